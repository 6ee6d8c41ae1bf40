"""The bot as a process that kills itself at a named point, forked from one that has imported it.

Importing takes seconds and a scenario needs several processes, so this program imports once and
then waits at the listening socket it was given as a file descriptor. Each connection is a process
of its own: the first line is its environment as JSON, and what it logs comes back. They all end
with this program's standard input.

`CRASH_AT` names the point: `before:save_post` is right before this method of the store commits,
`after:save_post` right after. With `CRASH_PART` only calls about this part of an answer count;
`CRASH_CALL` says which of the calls that count is meant, from 1.
"""

import asyncio
import json
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from slackbot.bootstrap import run_bot
from slackbot.logs import set_up_logging
from slackbot.settings import Settings
from slackbot.store.base import Store
from slackbot.store.sqlite import open_sqlite_store


class CrashingStore:
    """`store`, until the process ends at its point."""

    def __init__(self, store: Store, environ: Mapping[str, str]) -> None:
        self._store = store
        self._when, _, self._method = environ.get("CRASH_AT", "").partition(":")
        self._part = environ.get("CRASH_PART")
        self._calls_left = int(environ.get("CRASH_CALL", "1"))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._crashing(method) if name == self._method else method

    def _crashing(self, method: Any) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            if self._part is not None and self._part not in arguments:
                return await method(*arguments, **named)
            self._calls_left -= 1
            is_meant = self._calls_left == 0
            if is_meant and self._when == "before":
                _crash()
            returned = await method(*arguments, **named)
            if is_meant:
                _crash()
            return returned

        return call


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _run_bot(environ: Mapping[str, str]) -> None:
    @asynccontextmanager
    async def open_store(path: Path) -> AsyncIterator[Any]:
        async with open_sqlite_store(path) as store:
            yield CrashingStore(store, environ)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # Pauses are a fifth as long; the order of things stays what it is.
    await run_bot(
        Settings.from_env(environ),
        stop,
        open_store=open_store,
        sleep=lambda s: asyncio.sleep(s / 5),
    )


def _live(connection: socket.socket) -> None:
    environ = json.loads(connection.makefile("rb").readline())
    os.dup2(connection.fileno(), sys.stderr.fileno())
    settings = Settings.from_env(environ)
    set_up_logging(settings.log_format)
    sys.stderr.write(json.dumps({"event": "process.started", "pid": os.getpid()}) + "\n")
    asyncio.run(_run_bot(environ))


def main(listening: socket.socket) -> None:
    """Forks a bot for each connection, until standard input is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            os.killpg(0, signal.SIGKILL)
        connection, _ = listening.accept()
        with connection:
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _live(connection)
                return


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
