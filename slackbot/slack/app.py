"""The Bolt app: which listener hears what, and how a request is known to be Slack's."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.web.async_client import AsyncWebClient

from slackbot.logs import BOLT_LOGGER
from slackbot.slack.calls import SlackCalls
from slackbot.slack.listeners import messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who ShopMate is in its workspace."""

    team: str
    bot_user: str
    bot_id: str


async def fetch_identity(calls: SlackCalls) -> Identity:
    """Who the bot token belongs to.

    Raises:
        SlackError: Slack does not accept the token, or cannot be reached.
    """
    answer, _ = await calls.check_token()
    return Identity(team=answer["team_id"], bot_user=answer["user_id"], bot_id=answer["bot_id"])


def build_app(
    *,
    client: AsyncWebClient,
    identity: Identity,
    signing_secret: str,
    hearing: messages.Hearing,
) -> AsyncApp:
    """The app with every listener; an event is acknowledged once it is on record."""

    async def authorize() -> AuthorizeResult:
        # Bolt would ask auth.test, once for each event while the first answer is under way.
        return AuthorizeResult(
            enterprise_id=None,
            team_id=identity.team,
            bot_token=client.token,
            bot_id=identity.bot_id,
            bot_user_id=identity.bot_user,
        )

    app = AsyncApp(
        name="shopmate",
        logger=logging.getLogger(BOLT_LOGGER),
        client=client,
        authorize=authorize,
        signing_secret=signing_secret or "unused over a socket",
        process_before_response=True,
        attaching_function_token_enabled=False,
        attaching_conversation_kwargs_enabled=False,
    )
    messages.register(app, hearing=hearing, bot_user=identity.bot_user)
    _acknowledge_the_rest(app)
    return app


def _acknowledge_the_rest(app: AsyncApp) -> None:
    """What no listener takes is acknowledged too, or Slack sends it again and again."""

    async def ignore_event(body: Mapping[str, Any]) -> None:
        """Nothing to do."""

    async def ignore_action(ack: Any) -> None:
        await ack()

    app.event(re.compile(".*"))(ignore_event)
    app.action(re.compile(".*"))(ignore_action)
