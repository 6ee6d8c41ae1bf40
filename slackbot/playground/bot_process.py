"""The real bot as a process of its own, connected to the two local servers."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_server import LocalSlack

STARTING_TIME_S = 30.0
STOPPING_TIME_S = 15.0
MAX_LINE_BYTES = 1024 * 1024
RUN = ("-m", "slackbot", "run")


class BotProcess:
    """A running bot. `lines` are what it has logged, as JSON objects."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self._has_ended = False
        self.lines: list[Mapping[str, Any]] = []
        self.noise: list[str] = []

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def wait_for(self, event: str, *, after: int = 0) -> Mapping[str, Any] | None:
        """The first log line of `event` from index `after` on; None if the bot has ended."""
        async with self._changed:
            while True:
                for line in self.lines[after:]:
                    if line.get("event") == event:
                        return line
                if self._has_ended:
                    return None
                await self._changed.wait()

    async def follow(self) -> None:
        """Reads what the bot logs, until it ends."""
        if self._process.stderr is None:
            raise ValueError("the process was started without a pipe for its log")
        async for raw in self._process.stderr:
            text = raw.decode(errors="replace").rstrip()
            line = _parse_line(text)
            async with self._changed:
                if line is None:
                    self.noise.append(text)
                else:
                    self.lines.append(line)
                self._changed.notify_all()
        async with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it a signal; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> int:
        """Asks it to stop, as an operator would; its exit code."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOPPING_TIME_S):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()
        except asyncio.CancelledError:
            self.kill()  # nobody waits for it any more
            raise

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()


def _parse_line(text: str) -> Mapping[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def bot_environment(
    slack: LocalSlack, claude: LocalClaude, database: Path, **more: str
) -> dict[str, str]:
    """The environment of a bot between the two servers.

    Nothing of a real workspace's is in it, nor a proxy, which could not reach them.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLACK_", "ANTHROPIC_", "SHOPMATE_", "DATABASE_"))
        and not name.lower().endswith("_proxy")
    }
    return {
        **kept,
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_API_URL": slack.url,
        "ANTHROPIC_API_KEY": claude.api_key,
        "ANTHROPIC_BASE_URL": claude.url,
        "DATABASE_URL": f"sqlite:///{database}",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "SHOPMATE_LOG": "json",
        **more,
    }


@asynccontextmanager
async def start_bot(
    environ: Mapping[str, str], *, folder: Path, command: Sequence[str] = RUN
) -> AsyncIterator[BotProcess]:
    """The bot, running in `folder`; stopped, if it still runs, when the context ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env=dict(environ),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    bot = BotProcess(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(bot.follow(), name="log of the bot")
        try:
            yield bot
        finally:
            await bot.stop()
