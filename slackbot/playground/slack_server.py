"""A Slack of our own on 127.0.0.1, for the tests, the playground and the benchmarks.

The real slack-bolt and slack_sdk clients run against it, so it has to be as strict as the real one;
a bot that passes here should pass there. What it enforces, each with a test where a real client
does it wrong:

 1. Every method needs a known token; `apps.connections.open` the app's, all others the bot's.
 2. A method that does not exist is refused as `unknown_method`, a broken body as `invalid_json`.
 3. A method needs its scope; `auth.test` says in `x-oauth-scopes` which there are.
 4. Who is no member of a channel may neither post, read nor react in it; a private one and other
    people's DMs do not exist for them. Nobody posts into an archived channel.
 5. An answer needs a thread that exists, named by its root: `invalid_thread_ts`,
    `thread_not_found`, `cannot_reply_to_message`.
 6. Only one's own messages can be edited or deleted.
 7. A post of more than 4,000 characters becomes several messages; an edit of more than 4,000 bytes
    is refused.
 8. At most 50 blocks, 12,000 characters of markdown over all of them, 3,000 a section, 13,200
    altogether; unknown or malformed blocks, and messages without content, are refused.
 9. `markdown_text` excludes `text` and `blocks`.
10. Metadata is `{event_type, event_payload}`. It is read back only with `include_all_metadata`,
    an edit without it keeps it, `{}` removes it.
11. An edit with text and without blocks removes the blocks. Markdown blocks are read back as
    rich text, without their block_id.
12. `oldest` and `latest` are exclusive, unless `inclusive`; pages have a limit and a cursor;
    a thread is read root first, a channel newest first and without its threads' replies.
13. A reaction is set once, and removed where it is; its name is a word, not an emoji.
14. A status needs a thread or message; it goes after two minutes and with the bot's next reply.
15. Too many calls get HTTP 429 with `Retry-After`, per method, posts per channel; until that time
    is over, all others too.
16. A mention in a channel comes as `app_mention` and as `message`, under two event ids; where the
    bot is no member, only as `app_mention`. A DM comes once. Files are only in `message`.
17. Edits come as `message_changed` (a mention added by one as `app_mention` too), deletions as
    `message_deleted`, or as a tombstone where there are replies; the bot's own come back as well.
18. An event that is not acknowledged in time comes again under the same event id.
19. A Socket Mode ticket opens one socket; an eleventh socket is sent away.
20. HTTP events are signed; they are repeated unless answered with 200, or told not to.
21. E-mail addresses need `users:read.email`.

What is missing: slash commands, buttons and views, files and their contents, native streams,
`reaction_added` and `member_joined_channel` events, posting by channel name.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from slackbot.playground.slack_calls import APP_TOKEN, BOT_TOKEN, ApiCall, CallServer, Watchers
from slackbot.playground.slack_delivery import Ack, Delivery, DisconnectReason, open_task_home
from slackbot.playground.slack_events import Announcer
from slackbot.playground.slack_limits import SlackLimits, Throttle
from slackbot.playground.slack_methods import ALL_SCOPES, WebApi
from slackbot.playground.slack_workspace import (
    Channel,
    ChannelKind,
    Member,
    SlackMessage,
    Workspace,
)

RETRY_DELAYS_S = (0.0, 60.0, 300.0)  # D: apis/events-api
SHUTDOWN_S = 0.1
STRANGERS_TEAM_ID = "T0OTHER0001"


class LocalSlack:
    """One workspace, its people at the test's command, and the server the bot is connected to.

    `support` and `copy` are channels with the bot, `random` is one without. `alex` and `sam` are
    full members and in all three, `jo` is a guest and in none, `kim` belongs to another team.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        delivery: Delivery,
        announcer: Announcer,
        api: WebApi,
        throttle: Throttle,
        server: CallServer,
        signing_secret: str,
        watchers: Watchers,
    ) -> None:
        self._workspace = workspace
        self._delivery = delivery
        self._announcer = announcer
        self._api = api
        self._throttle = throttle
        self._watchers = watchers
        self.port = 0  # known once the server listens
        self.signing_secret = signing_secret
        self.bot_token = BOT_TOKEN
        self.app_token = APP_TOKEN
        self.calls = server.calls
        self.faults = server.faults
        self.rate_limited = server.rate_limited  # 429s by method
        self.team_id = workspace.team_id
        self.app_id = workspace.app_id
        self.bot_id = workspace.bot_id
        self.bot_user_id = workspace.bot_user_id
        self._seed()

    def _seed(self) -> None:
        self.alex = self.add_member(name="alex", real_name="Alex Morgan", email="alex@example.com")
        self.sam = self.add_member(name="sam", real_name="Sam Lee", email="sam@example.com")
        self.jo = self.add_member(
            name="jo", real_name="Jo Reed", email="jo@example.com", is_restricted=True
        )
        self.kim = self.add_member(
            name="kim",
            real_name="Kim Stone",
            email="kim@example.com",
            team_id=STRANGERS_TEAM_ID,
            is_stranger=True,
        )
        team = (self.alex.id, self.sam.id)
        self._support_id = self.add_channel("support", members=(*team, self.bot_user_id)).id
        self._copy_id = self.add_channel("copy", members=(*team, self.bot_user_id)).id
        self._random_id = self.add_channel("random", members=team).id

    @property
    def url(self) -> str:
        """The base URL for `AsyncWebClient`."""
        return f"http://127.0.0.1:{self.port}/api/"

    @property
    def support(self) -> Channel:
        """#support, as it is now."""
        return self.channel(self._support_id)

    @property
    def copy(self) -> Channel:
        """#copy, as it is now."""
        return self.channel(self._copy_id)

    @property
    def random(self) -> Channel:
        """#random, as it is now."""
        return self.channel(self._random_id)

    @property
    def scopes(self) -> frozenset[str]:
        """What the bot was granted; may be set."""
        return self._api.scopes

    @scopes.setter
    def scopes(self, scopes: Iterable[str]) -> None:
        self._api.scopes = frozenset(scopes)

    @property
    def limits(self) -> SlackLimits:
        """How often methods may be called; may be set."""
        return self._throttle.limits

    @limits.setter
    def limits(self, limits: SlackLimits) -> None:
        self._throttle.limits = limits

    def channel(self, channel_id: str) -> Channel:
        """The channel as it is now."""
        return self._workspace.channels[channel_id]

    def add_member(self, **overrides: Any) -> Member:
        """A new person; every field of `Member` may be given."""
        return self._workspace.add_member(**overrides)

    def change_member(self, user_id: str, **changes: Any) -> Member:
        """The person with other fields, as when an account is deactivated."""
        return self._workspace.change_member(user_id, **changes)

    def add_channel(
        self,
        name: str,
        *,
        members: Iterable[str] = (),
        kind: ChannelKind = "channel",
        is_ext_shared: bool = False,
    ) -> Channel:
        """A new channel of these user ids; the bot is in it only if named."""
        return self._workspace.add_channel(
            name, members=members, kind=kind, is_ext_shared=is_ext_shared
        )

    def open_dm(self, user_id: str) -> Channel:
        """The DM between a person and the bot."""
        return self._workspace.open_dm(user_id)

    def invite(self, channel_id: str, user_id: str | None = None) -> None:
        """Makes somebody, by default the bot, a member; without an event."""
        members = self.channel(channel_id).members | {user_id or self.bot_user_id}
        self._workspace.change_channel(channel_id, members=members)

    def kick(self, channel_id: str, user_id: str | None = None) -> None:
        """Removes somebody, by default the bot."""
        members = self.channel(channel_id).members - {user_id or self.bot_user_id}
        self._workspace.change_channel(channel_id, members=members)

    def archive(self, channel_id: str) -> None:
        """Nobody can post any more."""
        self._workspace.change_channel(channel_id, is_archived=True)

    def say(
        self,
        user_id: str,
        channel_id: str,
        text: str,
        *,
        thread_ts: str | None = None,
        files: Sequence[Mapping[str, Any]] = (),
        broadcast: bool = False,
        times: int = 1,
    ) -> str:
        """The ts of a new message, with `text` as Slack encodes it (`&amp;`, `<@U…>`).

        Somebody who speaks in a public channel joins it. Each event is delivered `times` times.
        """
        subtype = "file_share" if files else None
        return self._speak(
            user_id,
            channel_id,
            text,
            times=times,
            thread_ts=thread_ts,
            files=files,
            subtype="thread_broadcast" if broadcast else subtype,
            client_msg_id=str(uuid4()),
        )

    def forward(
        self,
        user_id: str,
        channel_id: str,
        text: str,
        *,
        author_name: str,
        comment: str = "",
        thread_ts: str | None = None,
    ) -> str:
        """The ts of a message that shares what `author_name` wrote elsewhere."""
        shared = {"is_share": True, "text": text, "author_name": author_name, "fallback": text}
        return self._speak(
            user_id,
            channel_id,
            comment,
            thread_ts=thread_ts,
            attachments=(shared,),
            client_msg_id=str(uuid4()),
        )

    def bot_says(self, channel_id: str, text: str, *, thread_ts: str | None = None) -> str:
        """The ts of a message by another app."""
        other = self.add_member(name="otherbot", real_name="Other Bot", email=None, is_bot=True)
        bot_id = self._workspace.new_id("B")
        return self._speak(other.id, channel_id, text, thread_ts=thread_ts, bot_id=bot_id)

    def join(self, user_id: str, channel_id: str) -> str:
        """The ts of the message that says so."""
        text = f"<@{user_id}> has joined the channel"
        return self._speak(user_id, channel_id, text, subtype="channel_join")

    def edit(self, channel_id: str, ts: str, text: str) -> None:
        """Its author gives a message another text."""
        message, before = self._change(channel_id, ts)
        message.edited = {"user": message.user, "ts": self._workspace.new_ts()}
        message.show(text, message.blocks, shown_at=self._workspace.clock())
        self._announcer.changed(message, before)
        self._watchers.look()

    def unfurl(self, channel_id: str, ts: str) -> None:
        """Slack adds a preview: a change of no text, by nobody."""
        message, before = self._change(channel_id, ts)
        preview = {"from_url": "https://example.com/", "title": "Example", "id": 1}
        message.attachments = (*message.attachments, preview)
        self._announcer.changed(message, before)
        self._watchers.look()

    def delete(self, channel_id: str, ts: str) -> None:
        """A message goes; one with replies leaves a tombstone."""
        message, before = self._change(channel_id, ts)
        if self._workspace.remove_message(message):
            self._announcer.changed(message, before)
        else:
            self._announcer.deleted(message, before)
        self._watchers.look()

    def _speak(
        self, user_id: str, channel_id: str, text: str, *, times: int = 1, **fields: Any
    ) -> str:
        channel = self.channel(channel_id)
        if user_id not in channel.members and channel.kind != "channel":
            raise ValueError(f"{user_id} is no member of {channel.name!r}")
        if (thread_ts := fields.get("thread_ts")) is not None:
            self._workspace.check_thread(channel_id, thread_ts)
        self.invite(channel_id, user_id)
        message = SlackMessage(
            channel=channel_id,
            ts=self._workspace.new_ts(),
            user=user_id,
            text=text,
            team_id=self._workspace.members[user_id].team_id,
            **fields,
        )
        self._workspace.add_message(message)
        self._announcer.posted(message, times=times)
        self._watchers.look()
        return message.ts

    def _change(self, channel_id: str, ts: str) -> tuple[SlackMessage, Mapping[str, Any]]:
        message = self._workspace.find(channel_id, ts)
        if message is None:
            raise ValueError(f"no message {ts!r} in {channel_id}")
        return message, self._workspace.build_message(message)

    @property
    def all_messages(self) -> Sequence[SlackMessage]:
        """Every message there ever was, deleted ones too."""
        return self._workspace.all_messages

    @property
    def ephemerals(self) -> Sequence[SlackMessage]:
        """What was shown to one person only."""
        return self._workspace.ephemerals

    @property
    def acks(self) -> Sequence[Ack]:
        """What the bot acknowledged, in order."""
        return self._delivery.acks

    @property
    def unacked(self) -> list[Mapping[str, Any]]:
        """The bodies of events that are still under way."""
        return self._delivery.unacked

    @property
    def lost(self) -> Sequence[Mapping[str, Any]]:
        """The bodies of events that will not be sent again."""
        return self._delivery.lost

    def messages(self, channel_id: str, thread_ts: str | None = None) -> list[SlackMessage]:
        """What is in a channel (replies too) or in one thread (its root first), oldest first."""
        return self._workspace.messages(channel_id, thread_ts)

    def status_of(self, channel_id: str, thread_ts: str) -> str:
        """What is shown as the bot's status, empty if nothing."""
        return self._workspace.status_of(channel_id, thread_ts)

    async def wait_for(
        self,
        method: str,
        *,
        where: Callable[[ApiCall], bool] | None = None,
        after: int = 0,
    ) -> ApiCall:
        """The first answered call that fits, among `calls[after:]` or still to come."""
        found: list[ApiCall] = []
        seen = after

        def is_found() -> bool:
            nonlocal seen
            for call in islice(self.calls, seen, None):
                if call.method == method and (where is None or where(call)):
                    found.append(call)
                    return True
            seen = max(seen, len(self.calls))
            return False

        await self.wait_until(is_found)
        return found[0]

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Returns when `predicate` holds; it is asked at every change of anything here."""
        await self._watchers.wait_until(predicate)

    @property
    def connected_sockets(self) -> int:
        """How many Socket Mode connections are open."""
        return len(self._delivery.sockets)

    @property
    def sockets_opened(self) -> int:
        """How many Socket Mode connections there ever were."""
        return self._delivery.sockets_opened

    @property
    def events_url(self) -> str | None:
        """Where events are POSTed; None: they go over Socket Mode. May be set."""
        return self._delivery.events_url

    @events_url.setter
    def events_url(self, url: str | None) -> None:
        self._delivery.events_url = url

    @property
    def refuse_tickets(self) -> int | bool:
        """How many more handshakes fail, or True for all. May be set."""
        return self._delivery.refuse_tickets

    @refuse_tickets.setter
    def refuse_tickets(self, refuse: int | bool) -> None:
        self._delivery.refuse_tickets = refuse

    @property
    def tickets_refused(self) -> int:
        """How many handshakes were refused."""
        return self._delivery.tickets_refused

    @property
    def max_parked(self) -> int:
        """How many events are kept while no socket is open; the others are lost. May be set."""
        return self._delivery.max_parked

    @max_parked.setter
    def max_parked(self, limit: int) -> None:
        self._delivery.max_parked = limit

    def drop_sockets(self) -> None:
        """Breaks every socket's TCP connection."""
        self._delivery.drop_sockets()

    def disconnect_sockets(self, reason: DisconnectReason = "refresh_requested") -> None:
        """Tells every socket to leave, and closes it unless it is only a `warning`."""
        self._delivery.disconnect_sockets(reason)

    def deafen(self, *, also_new: bool = False) -> None:
        """Open sockets stay open and nothing passes; with `also_new`, new ones say no hello."""
        self._delivery.deafen(also_new=also_new)

    async def challenge(self, challenge: str) -> str:
        """What `events_url` answers to `url_verification`."""
        return await self._delivery.challenge(challenge)


@asynccontextmanager
async def open_local_slack(
    *,
    port: int = 0,
    limits: SlackLimits | None = None,
    latency_s: float = 0.0,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    ack_timeout_s: float = 3.0,
    twins: bool = True,
    retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    scopes: frozenset[str] = ALL_SCOPES,
) -> AsyncIterator[LocalSlack]:
    """A running server with its default people and channels, closed at the end.

    Args:
        port: 0 takes any that is free.
        limits: None: those of Slack.
        latency_s: added to every call, half before its effect and half after.
        clock: gives `ts` and signatures their time.
        monotonic: what rate limits, statuses and records go by.
        ack_timeout_s: after this an event is sent again (or an HTTP request given up).
        twins: False: a mention that the bot hears is told as `app_mention` only.
        retry_delays_s: how long before each retry; as many retries as there are delays.
        scopes: what the bot was granted.
    """
    watchers = Watchers()
    workspace = Workspace(clock=clock, monotonic=monotonic)
    throttle = Throttle(limits or SlackLimits(), monotonic)
    signing_secret = uuid4().hex
    async with aiohttp.ClientSession() as session, open_task_home() as tasks:
        delivery = Delivery(
            clock=clock,
            monotonic=monotonic,
            ack_timeout_s=ack_timeout_s,
            retry_delays_s=retry_delays_s,
            signing_secret=signing_secret,
            tasks=tasks,
            session=session,
            changed=watchers.look,
        )
        announcer = Announcer(
            workspace,
            deliver=delivery.deliver,
            has_scope=lambda scope: scope in api.scopes,
            twins=twins,
        )
        api = WebApi(
            workspace,
            announcer=announcer,
            scopes=scopes,
            open_socket_url=lambda: (
                f"ws://127.0.0.1:{slack.port}/link/?ticket={delivery.new_ticket()}"
            ),
        )
        server = CallServer(
            api,
            throttle=throttle,
            latency_s=latency_s,
            monotonic=monotonic,
            watchers=watchers,
        )
        slack = LocalSlack(
            workspace=workspace,
            delivery=delivery,
            announcer=announcer,
            api=api,
            throttle=throttle,
            server=server,
            signing_secret=signing_secret,
            watchers=watchers,
        )
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_route("*", "/api/{method}", server.serve)
        application.router.add_get("/link/", delivery.serve_socket)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            slack.port = runner.addresses[0][1]
            yield slack
        finally:
            delivery.close()
            await runner.cleanup()
