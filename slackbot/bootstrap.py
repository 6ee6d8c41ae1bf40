"""The composition root: settings to clients to services to the running bot. No logic."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from slackbot.agent.loop import USUAL_LIMITS, Agent, Limits
from slackbot.agent.tools.escalate import Escalate
from slackbot.agent.tools.orders import GetOrder
from slackbot.api.server import ReadinessCheck, build_health_routes, open_server
from slackbot.assistant import Assistant
from slackbot.claude.client import Claude, open_claude
from slackbot.intake import Intake
from slackbot.settings import Settings
from slackbot.slack.app import Identity, build_app, fetch_identity
from slackbot.slack.calls import SlackCalls, open_web_client
from slackbot.slack.directory import Directory
from slackbot.slack.escalations import TeamDesk
from slackbot.slack.events_endpoint import build_events_route
from slackbot.slack.pacer import EditPacer, PostPacer
from slackbot.slack.poster import Poster
from slackbot.slack.reply_writer import SlackReplies
from slackbot.slack.socket_mode import open_socket
from slackbot.slack.threads import ThreadReader
from slackbot.store.base import Store
from slackbot.store.lock import hold_lock
from slackbot.store.sqlite import open_sqlite_store, utc_now
from slackbot.tasks import open_tasks
from slackbot.turns import TurnRunner

log = logging.getLogger(__name__)

CLOSING_TIME_S = 5.0


async def run_bot(
    settings: Settings,
    stop: asyncio.Event,
    *,
    open_store: Callable[..., AbstractAsyncContextManager[Store]] = open_sqlite_store,
    open_claude: Callable[..., AbstractAsyncContextManager[Claude]] = open_claude,
    limits: Limits = USUAL_LIMITS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Runs the bot until `stop` is set and its turns have been drained.

    Raises:
        StoreError: the database cannot be opened, or another process holds it.
        SlackError: Slack does not accept a token, or cannot be reached.
        OSError: the port is in use.
    """
    async with AsyncExitStack() as stack:
        # As long as another process may take to stop.
        wait_s = settings.drain_s + CLOSING_TIME_S if settings.drain_s else 0.0
        await stack.enter_async_context(hold_lock(settings.database_path, wait_s=wait_s))
        store = await stack.enter_async_context(open_store(settings.database_path))
        client = await stack.enter_async_context(
            open_web_client(token=settings.slack_bot_token, base_url=settings.slack_api_url)
        )
        claude = await stack.enter_async_context(
            open_claude(api_key=settings.anthropic_api_key, base_url=settings.anthropic_base_url)
        )
        calls = SlackCalls(client)
        identity = await fetch_identity(calls)
        assistant = _build_assistant(
            settings, store, calls, claude, identity, limits=limits, sleep=sleep
        )
        async with open_tasks() as group:
            turns = TurnRunner(group, assistant.run_turn)
            app = build_app(
                client=client,
                identity=identity,
                signing_secret=settings.slack_signing_secret,
                hearing=Intake(inbox=store, turns=turns),
            )
            for key in await assistant.recover():
                turns.wake(key)
            async with _open_ears(settings, app, client, calls, store):
                await stop.wait()
            await turns.drain(settings.drain_s)
            await turns.close(CLOSING_TIME_S)
    log.info("shopmate.stopped")


def _build_assistant(
    settings: Settings,
    store: Store,
    calls: SlackCalls,
    claude: Claude,
    identity: Identity,
    *,
    limits: Limits,
    sleep: Callable[[float], Awaitable[None]],
) -> Assistant:
    clock = time.monotonic
    poster = Poster(
        calls=calls,
        posts=store,
        pacer=PostPacer(clock, is_paced=settings.paces_edits),
        sleep=sleep,
    )
    desk = TeamDesk(
        table=store,
        posts=store,
        poster=poster,
        calls=calls,
        team_channel=settings.team_channel,
    )
    return Assistant(
        log_of_turns=store,
        agent=Agent(
            claude=claude,
            tools=[GetOrder(store), Escalate(desk)],
            model=settings.chat_model,
            limits=limits,
        ),
        replies=SlackReplies(
            calls=calls,
            poster=poster,
            pacer=EditPacer(clock, is_paced=settings.paces_edits),
            posts=store,
            clock=clock,
            sleep=sleep,
        ),
        people=Directory(calls=calls, team=identity.team, clock=clock, sleep=sleep),
        threads=ThreadReader(calls=calls, bot_user=identity.bot_user, sleep=sleep),
        trusted_teams=settings.trusted_teams,
        history_tokens=settings.history_tokens,
        now=utc_now,
        sleep=sleep,
    )


@asynccontextmanager
async def _open_ears(
    settings: Settings,
    app: AsyncApp,
    client: AsyncWebClient,
    calls: SlackCalls,
    store: Store,
) -> AsyncIterator[None]:
    """Listens to Slack, and to whoever asks for ShopMate's health."""
    async with AsyncExitStack() as stack:
        is_connected: Callable[[], bool] = lambda: True  # noqa: E731 - HTTP has no connection
        routes = []
        if settings.uses_socket_mode:
            connection = await stack.enter_async_context(
                open_socket(
                    app,
                    app_token=settings.slack_app_token,
                    client=client,
                    calls=calls,
                    clock=time.monotonic,
                )
            )
            is_connected = lambda: connection.is_connected  # noqa: E731
        else:
            routes.append(build_events_route(app, signing_secret=settings.slack_signing_secret))
        check = ReadinessCheck(is_connected=is_connected, check_database=store.check_writable)
        port = await stack.enter_async_context(
            open_server(
                [*routes, *build_health_routes(check)], host=settings.host, port=settings.port
            )
        )
        mode = "socket" if settings.uses_socket_mode else "http"
        log.info("shopmate.ready", extra={"mode": mode, "port": port})
        yield
