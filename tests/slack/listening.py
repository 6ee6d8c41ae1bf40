"""The real app and clients, with somebody who only notes what was heard."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from slackbot.domain.messages import Heard, HeardMessage
from slackbot.playground.slack_server import LocalSlack
from slackbot.slack.app import build_app, fetch_identity
from slackbot.slack.calls import SlackCalls, open_web_client


@dataclass(slots=True)
class Notes:
    """Everything that was heard, in order."""

    heard: list[Heard] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def hear(self, heard: Heard) -> None:
        """Notes it."""
        async with self.changed:
            self.heard.append(heard)
            self.changed.notify_all()

    @property
    def texts(self) -> list[str]:
        """What people said."""
        return [heard.text for heard in self.heard if isinstance(heard, HeardMessage)]

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Returns when `predicate` holds; it is asked whenever something was heard."""
        async with self.changed:
            await self.changed.wait_for(predicate)


@dataclass(frozen=True, slots=True)
class Listener:
    """ShopMate's ears, not connected to anything yet."""

    app: AsyncApp
    client: AsyncWebClient
    calls: SlackCalls
    notes: Notes


@asynccontextmanager
async def open_listener(slack: LocalSlack) -> AsyncIterator[Listener]:
    """The app of the bot in `slack`."""
    async with open_web_client(token=slack.bot_token, base_url=slack.url) as client:
        calls, notes = SlackCalls(client), Notes()
        app = build_app(
            client=client,
            identity=await fetch_identity(calls),
            signing_secret=slack.signing_secret,
            hearing=notes,
        )
        yield Listener(app, client, calls, notes)
