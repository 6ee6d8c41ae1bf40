"""The whole bot in this process, between the two local servers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from slackbot.bootstrap import run_bot
from slackbot.playground.bot_process import bot_environment
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_rules import pings_in
from slackbot.playground.slack_server import LocalSlack
from slackbot.playground.slack_workspace import SlackMessage
from slackbot.settings import Settings

STARTING_TIME_S = 5


@asynccontextmanager
async def running_bot(
    slack: LocalSlack,
    claude: LocalClaude,
    database: Path,
    options: Mapping[str, Any] | None = None,
    /,
    **variables: str,
) -> AsyncIterator[None]:
    """The bot, connected to both servers; drained when the context ends.

    `options` are keyword arguments of `run_bot`, `variables` more of its environment. The pacer is
    off unless they say otherwise.
    """
    environ = bot_environment(
        slack, claude, database, **{"SHOPMATE_PACER": "off", "SHOPMATE_DRAIN_S": "5", **variables}
    )
    settings = Settings.from_env(environ)
    stop = asyncio.Event()
    before = slack.sockets_opened
    async with asyncio.TaskGroup() as group:
        group.create_task(run_bot(settings, stop, **(options or {})), name="bot")
        async with asyncio.timeout(STARTING_TIME_S):
            await slack.wait_until(lambda: slack.sockets_opened > before)
        try:
            yield
        finally:
            stop.set()


async def hasty_sleep(seconds: float) -> None:
    """Twenty times as fast as `asyncio.sleep`, for the pauses between tries."""
    await asyncio.sleep(seconds / 20)


def answers(slack: LocalSlack, channel: str, thread_ts: str | None = None) -> list[SlackMessage]:
    """What ShopMate has said there, oldest first."""
    return [
        message
        for message in slack.messages(channel, thread_ts)
        if message.user == slack.bot_user_id
    ]


def shown_text(message: SlackMessage) -> str:
    """What a person reads of a message."""
    blocks = message.blocks
    return str(blocks[0]["text"]) if blocks else message.text


async def wait_for_answer(
    slack: LocalSlack, channel: str, thread_ts: str | None, *, holding: str = "", count: int = 1
) -> SlackMessage:
    """The `count`th message of ShopMate's there, once it holds `holding`."""

    def is_there() -> bool:
        said = answers(slack, channel, thread_ts)
        return len(said) >= count and holding in shown_text(said[count - 1])

    async with asyncio.timeout(8):
        await slack.wait_until(is_there)
    return answers(slack, channel, thread_ts)[count - 1]


def all_pings(slack: LocalSlack) -> list[str]:
    """Everybody whom any version of any message of ShopMate's would have notified."""
    return [
        ping
        for message in slack.all_messages
        if message.user == slack.bot_user_id
        for version in message.versions
        for ping in pings_in(version)
    ]
