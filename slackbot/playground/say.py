"""`shopmate playground --say`: one question to the real bot, and the conversation it makes."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from slackbot.playground.bot_process import STARTING_TIME_S, bot_environment, start_bot
from slackbot.playground.claude_server import open_local_claude
from slackbot.playground.slack_server import LocalSlack, open_local_slack

ANSWER_TIME_S = 120.0
FIRST_TOKEN_S = 0.3
TOKENS_PER_S = 60.0
STAND_IN = "(A local stand-in for Claude is answering: there is no key and no network here.)"


async def say_once(text: str, *, show: Callable[[str], None]) -> bool:
    """Whether a complete answer came to `text`, said in #support; `show` gets the conversation."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="shopmate-playground-")))
        slack = await stack.enter_async_context(open_local_slack())
        claude = await stack.enter_async_context(
            open_local_claude(first_token_s=FIRST_TOKEN_S, tokens_per_s=TOKENS_PER_S)
        )
        environ = bot_environment(slack, claude, folder / "playground.db")
        bot = await stack.enter_async_context(start_bot(environ, folder=folder))
        async with asyncio.timeout(STARTING_TIME_S):
            if await bot.wait_for("socket.connected") is None:
                show("The bot did not start:\n" + "\n".join(map(str, [*bot.lines, *bot.noise])))
                return False
        show(STAND_IN)
        ts = slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> {text}")
        try:
            async with asyncio.timeout(ANSWER_TIME_S):
                finished = await bot.wait_for("turn.finished")
        except TimeoutError:
            finished = None
        _show_thread(slack, ts, show)
        return finished is not None and finished["ending"] == "complete"


def _show_thread(slack: LocalSlack, ts: str, show: Callable[[str], None]) -> None:
    for message in slack.messages(slack.support.id, ts):
        is_bot = message.user == slack.bot_user_id
        name = "ShopMate" if is_bot else slack.alex.real_name
        said = _shown_text(message.blocks, message.text)
        show(f"\n{name}: {said.replace(f'<@{slack.bot_user_id}>', '@ShopMate')}")
        if is_bot:
            show(f"          (posted once, edited {message.edits} times)")


def _shown_text(blocks: object, text: str) -> str:
    if isinstance(blocks, list | tuple) and blocks and blocks[0].get("type") == "markdown":
        return str(blocks[0]["text"])
    return text
