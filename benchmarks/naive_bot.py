"""The bot that people write first: what ShopMate's waits are compared with.

It says "Thinking…", reads the thread, asks Claude and edits its message: every `EDIT_EVERY_S`
seconds while the answer comes, or once at the end where that is not set. No pacing, no memory, no
recovery. It is run as a program; the benchmark starts it in ShopMate's place.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

from anthropic import AsyncAnthropic
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

MODEL = "claude-sonnet-4-6"
MAX_TOKENS = 2_000


class NaiveBot:
    """Answers mentions in their thread."""

    def __init__(
        self, slack: AsyncWebClient, claude: AsyncAnthropic, edit_every_s: float | None
    ) -> None:
        self._slack = slack
        self._claude = claude
        self._edit_every_s = edit_every_s

    async def answer(self, event: dict[str, Any]) -> None:
        """The listener, and all there is."""
        channel, thread_ts = event["channel"], event.get("thread_ts", event["ts"])
        posted = await self._slack.chat_postMessage(
            channel=channel, thread_ts=thread_ts, text="Thinking…"
        )
        thread = await self._slack.conversations_replies(channel=channel, ts=thread_ts)
        messages = [
            {"role": "assistant" if "bot_id" in said else "user", "content": said["text"]}
            for said in thread["messages"]
            if said["ts"] <= event["ts"]
        ]
        text = await self._stream(messages, channel=channel, ts=posted["ts"])
        await self._slack.chat_update(channel=channel, ts=posted["ts"], text=text)

    async def _stream(self, messages: Any, *, channel: str, ts: str) -> str:
        text, edited_at = "", time.monotonic()
        async with self._claude.messages.stream(
            model=MODEL, max_tokens=MAX_TOKENS, messages=messages
        ) as stream:
            async for piece in stream.text_stream:
                text += piece
                if self._edit_every_s and time.monotonic() - edited_at >= self._edit_every_s:
                    await self._slack.chat_update(channel=channel, ts=ts, text=text)
                    edited_at = time.monotonic()
        return text


async def main() -> None:
    """Runs until it is killed."""
    slack = AsyncWebClient(
        token=os.environ["SLACK_BOT_TOKEN"], base_url=os.environ["SLACK_API_URL"]
    )
    claude = AsyncAnthropic(
        api_key=os.environ["ANTHROPIC_API_KEY"], base_url=os.environ["ANTHROPIC_BASE_URL"]
    )
    bot = NaiveBot(slack, claude, float(os.environ.get("EDIT_EVERY_S", "0")) or None)
    app = AsyncApp(client=slack, signing_secret="unused over a socket")
    app.event("app_mention")(bot.answer)
    handler = AsyncSocketModeHandler(app, os.environ["SLACK_APP_TOKEN"], web_client=slack)
    await handler.connect_async()  # type: ignore[no-untyped-call] # the SDK's own gap
    sys.stderr.write(json.dumps({"event": "socket.connected"}) + "\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
