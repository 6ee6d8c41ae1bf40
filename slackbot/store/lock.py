"""One process per database file: an exclusive lock beside it, which says who holds it."""

import asyncio
import fcntl
import logging
import math
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from slackbot.errors import StoreError, StoreLockedError

log = logging.getLogger(__name__)

RETRY_S = 0.2


@asynccontextmanager
async def hold_lock(database: Path, *, wait_s: float) -> AsyncIterator[None]:
    """Holds the lock of `database` for as long as the context lasts.

    It goes with the process, so a crash leaves nothing to clean up.

    Raises:
        StoreLockedError: another process still held it after `wait_s` seconds.
        StoreError: the lock file cannot be written, or not locked.
    """
    try:
        file = await asyncio.to_thread(_acquire, database, wait_s)
    except OSError as error:
        raise StoreError(f"lock of database {str(database)!r}: {error.strerror}") from error
    try:
        yield
    finally:
        file.close()


def _acquire(database: Path, wait_s: float) -> IO[str]:
    file = database.with_name(database.name + ".lock").open("a+", encoding="utf-8")
    has_said = False
    for tries_left in reversed(range(math.ceil(wait_s / RETRY_S) + 1)):
        if _try_lock(file):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        if not has_said:
            has_said = True
            log.info("database.in_use", extra={"waits_s": wait_s})
        if tries_left:
            time.sleep(RETRY_S)
    with file:
        file.seek(0)
        raise StoreLockedError(database, file.read() or "another process")


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
