"""Everything people say: mentions, direct messages, replies in threads, edits and deletions."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from slack_bolt.async_app import AsyncApp

from slackbot.domain.messages import Heard
from slackbot.slack.payloads import parse_heard

log = logging.getLogger(__name__)

EVENTS = ("app_mention", "message")


class Hearing(Protocol):
    """Who hears."""

    async def hear(self, heard: Heard) -> None:
        """Returns once `heard` is on record.

        Raises:
            StoreError: it is not; Slack delivers it again.
        """
        ...


def register(app: AsyncApp, *, hearing: Hearing, bot_user: str) -> None:
    """Has `hearing` hear what people say where ShopMate is, or mention it."""

    async def hear_event(body: Mapping[str, Any]) -> None:
        heard = parse_heard(body, bot_user=bot_user)
        if heard is not None:
            await hearing.hear(heard)

    for event in EVENTS:
        app.event(event)(hear_event)
