"""One process per database file."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slackbot.errors import StoreError, StoreLockedError
from slackbot.store.lock import hold_lock

HOLDER = """
import asyncio, pathlib, sys
from slackbot.store.lock import hold_lock

async def main():
    async with hold_lock(pathlib.Path(sys.argv[1]), wait_s=0):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""

in_processes = [pytest.mark.processes, pytest.mark.timeout(60)]


@asynccontextmanager
async def holder_of(database: Path) -> AsyncIterator[Process]:
    """A process that holds the lock until it is told a line, or killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(database), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        process.stdin.close()
        await process.wait()


class TestProcesses:
    pytestmark = in_processes

    async def test_a_second_process_hears_who_holds_it(self, database: Path) -> None:
        async with holder_of(database) as process:
            with pytest.raises(StoreLockedError) as caught:
                async with hold_lock(database, wait_s=0.3):
                    pytest.fail("two hold it")

        assert f"process {process.pid} on " in caught.value.holder
        assert str(database) in str(caught.value)

    async def test_a_second_process_waits_until_the_first_one_ends(self, database: Path) -> None:
        async with holder_of(database) as process:
            assert process.stdin is not None
            process.stdin.write(b"\n")

            async with hold_lock(database, wait_s=30):
                pass

            assert await process.wait() == 0

    async def test_a_process_that_is_killed_leaves_no_lock(self, database: Path) -> None:
        async with holder_of(database) as process:
            process.send_signal(signal.SIGKILL)
            await process.wait()

            async with hold_lock(database, wait_s=0):
                pass


async def test_the_lock_says_who_holds_it(database: Path) -> None:
    async with hold_lock(database, wait_s=0):
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()} on "):
            async with hold_lock(database, wait_s=0):
                pytest.fail("two hold it")


async def test_the_next_holder_replaces_what_the_last_one_wrote(database: Path) -> None:
    lock = database.with_name("shop.db.lock")
    lock.write_text("process 123456789 on a host with a long name, left by a crash")

    async with hold_lock(database, wait_s=0):
        held = lock.read_text()

    assert held.startswith(f"process {os.getpid()} on ")
    assert "crash" not in held


async def test_it_is_free_again_afterwards(database: Path) -> None:
    for _ in range(2):
        async with hold_lock(database, wait_s=0):
            pass


async def test_other_files_have_locks_of_their_own(tmp_path: Path) -> None:
    async with hold_lock(tmp_path / "a.db", wait_s=0), hold_lock(tmp_path / "b.db", wait_s=0):
        pass


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing/shop\.db"):
        async with hold_lock(tmp_path / "missing" / "shop.db", wait_s=0):
            pytest.fail("it is held")
