"""`shopmate playground --say`: one question to the real bot, and the conversation it makes."""

import asyncio
import html
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from slackbot.playground.bot_process import (
    STARTING_TIME_S,
    BotProcess,
    bot_environment,
    start_bot,
)
from slackbot.playground.claude_mind import answer
from slackbot.playground.claude_server import Mind, open_local_claude
from slackbot.playground.slack_server import LocalSlack, open_local_slack

ANSWER_TIME_S = 120.0
FIRST_TOKEN_S = 0.3
TOKENS_PER_S = 60.0
DRAIN_S = "1"  # at Ctrl-C nobody waits for the rest of the answer
STAND_IN = "(A local stand-in for Claude is answering: there is no key and no network here.)"


async def say_once(
    text: str, *, folder: Path, show: Callable[[str], None], mind: Mind = answer
) -> bool:
    """Whether a complete answer came to `text`, said in #support; `show` gets the conversation.

    The bot lives in `folder`; `mind` is what the local Claude answers with.
    """
    async with AsyncExitStack() as stack:
        slack = await stack.enter_async_context(open_local_slack())
        claude = await stack.enter_async_context(
            open_local_claude(first_token_s=FIRST_TOKEN_S, tokens_per_s=TOKENS_PER_S, mind=mind)
        )
        environ = bot_environment(slack, claude, folder / "playground.db", SHOPMATE_DRAIN_S=DRAIN_S)
        bot = await stack.enter_async_context(start_bot(environ, folder=folder))
        if await _wait_for(bot, "socket.connected", STARTING_TIME_S) is None:
            show("\n".join(["The bot did not start.", *_complaints(bot)]))
            return False
        show(STAND_IN)
        said = html.escape(text, quote=False)
        ts = slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> {said}")
        finished = await _wait_for(bot, "turn.finished", ANSWER_TIME_S)
        _show_thread(slack, ts, show)
        is_complete = finished is not None and finished["ending"] == "complete"
        if not is_complete:
            show("\n".join(["\nNo complete answer came.", *_complaints(bot)]))
        return is_complete


async def _wait_for(bot: BotProcess, event: str, limit_s: float) -> Mapping[str, Any] | None:
    try:
        async with asyncio.timeout(limit_s):
            return await bot.wait_for(event)
    except TimeoutError:
        return None


def _complaints(bot: BotProcess) -> list[str]:
    logged = [
        f"{line['level']} {line['event']}\n{line.get('traceback', '')}".strip()
        for line in bot.lines
        if line["level"] != "INFO"
    ]
    return [*logged, *bot.noise]


def _show_thread(slack: LocalSlack, ts: str, show: Callable[[str], None]) -> None:
    for message in slack.messages(slack.support.id, ts):
        is_bot = message.user == slack.bot_user_id
        name = "ShopMate" if is_bot else slack.alex.real_name
        said = _shown_text(message.blocks, message.text)
        show(f"\n{name}: {said.replace(f'<@{slack.bot_user_id}>', '@ShopMate')}")
        if is_bot:
            show(f"          (one message, {message.edits} edit{'s' * (message.edits != 1)})")


def _shown_text(blocks: object, text: str) -> str:
    if isinstance(blocks, list | tuple) and blocks and blocks[0].get("type") == "markdown":
        text = str(blocks[0]["text"])
    return html.unescape(text)
