"""The thread that owns the database: durable, together, and never one for the other."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from slackbot.errors import StoreError, TurnSupersededError
from slackbot.store.sqlite import open_sqlite_store
from slackbot.store.thread import DatabaseThread

Work = Callable[[Database], None]


@pytest.fixture
async def thread(database: Path) -> AsyncIterator[DatabaseThread]:
    thread = DatabaseThread(database)
    await thread.start()
    await thread.run(make_notes)
    yield thread
    await thread.stop()


def make_notes(db: Database) -> None:
    db.execute("create table notes (text text primary key)")


def note(text: str) -> Work:
    def insert(db: Database) -> None:
        db.execute("insert into notes values (?)", (text,))

    return insert


def read_notes(db: Database) -> list[str]:
    return [row["text"] for row in db.execute("select text from notes order by rowid")]


def notes_on_disk(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("select text from notes order by rowid").fetchall()
        return [text for (text,) in rows]


async def until_submitted() -> None:
    """Returns once every task that was started has come to its first wait."""
    submitted = asyncio.Event()
    asyncio.get_running_loop().call_soon(submitted.set)
    await submitted.wait()


@asynccontextmanager
async def held_up(thread: DatabaseThread) -> AsyncIterator[None]:
    """The thread is busy with a job of its own; the context ends once that is done."""
    has_begun, may_end = threading.Event(), threading.Event()

    def wait(_: Database) -> None:
        has_begun.set()
        may_end.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(thread.run(wait), name="wait")
        await asyncio.to_thread(has_begun.wait)
        yield
        may_end.set()


async def run_together(thread: DatabaseThread, *works: Work) -> list[Exception | None]:
    """Has `works` run with one commit; the errors they raised."""
    errors: list[Exception | None] = [None] * len(works)

    async def run(index: int, work: Work) -> None:
        try:
            await thread.run(work)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            errors[index] = error

    async with asyncio.TaskGroup() as group, held_up(thread):
        for index, work in enumerate(works):
            group.create_task(run(index, work), name=f"work {index}")
        await until_submitted()
    return errors


class TestCommits:
    async def test_jobs_that_wait_are_committed_together(self, thread: DatabaseThread) -> None:
        statements: list[str] = []
        await thread.run(lambda db: db.conn.set_trace_callback(statements.append))
        statements.clear()

        await run_together(thread, *(note(str(number)) for number in range(20)))

        commits = [one for one in statements if one.upper().startswith("COMMIT")]
        assert len(commits) == 2  # of the job that held the others up, and of the others

    async def test_more_jobs_than_fit_one_commit_are_all_kept(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        errors = await run_together(thread, *(note(str(number)) for number in range(600)))

        assert not any(errors)
        assert notes_on_disk(database) == [str(number) for number in range(600)]

    async def test_a_job_that_fails_does_not_undo_its_neighbours(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        def fail(db: Database) -> None:
            note("half")(db)
            raise ValueError("a bug")

        def refuse(db: Database) -> None:
            note("other half")(db)
            raise TurnSupersededError(7)

        errors = await run_together(thread, note("a"), fail, note("a"), refuse, note("b"))

        kinds = [type(error) for error in errors]
        assert kinds == [type(None), ValueError, StoreError, TurnSupersededError, type(None)]
        assert notes_on_disk(database) == ["a", "b"]

    async def test_what_a_job_returns_is_on_disk(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        await thread.run(note("kept"))

        assert notes_on_disk(database) == ["kept"]

    async def test_the_work_of_a_cancelled_waiter_stays_committed(
        self, thread: DatabaseThread
    ) -> None:
        async with asyncio.TaskGroup() as group, held_up(thread):
            waiter = group.create_task(thread.run(note("kept")), name="waiter")
            await until_submitted()
            waiter.cancel()

        assert await thread.run(read_notes) == ["kept"]

    async def test_waiters_cancelled_at_any_moment_leave_the_thread_alive(
        self, thread: DatabaseThread
    ) -> None:
        for number in range(200):
            async with asyncio.TaskGroup() as group:
                waiter = group.create_task(thread.run(note(str(number))), name="waiter")
                await asyncio.to_thread(int)
                waiter.cancel()

        assert len(await thread.run(read_notes)) == 200

    async def test_commits_are_durable_in_wal_mode(self, thread: DatabaseThread) -> None:
        def read(db: Database) -> tuple[int, str, int]:
            pragmas = ("synchronous", "journal_mode", "foreign_keys")
            synchronous, journal, keys = (
                db.execute(f"pragma {pragma}").fetchone()[0] for pragma in pragmas
            )
            return synchronous, journal, keys

        full = 2
        assert await thread.run(read) == (full, "wal", 1)


class TestRefusals:
    async def test_a_write_waits_for_another_process(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        has_tried = threading.Event()

        def see(statement: str) -> None:
            if statement.lower().startswith("begin"):
                has_tried.set()

        await thread.run(lambda db: db.conn.set_trace_callback(see))
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("begin immediate")
            other.execute("insert into notes values ('other')")

            async with asyncio.TaskGroup() as group:
                group.create_task(thread.run(note("mine")), name="note")
                await asyncio.to_thread(has_tried.wait)
                other.execute("commit")

        assert await thread.run(read_notes) == ["other", "mine"]

    async def test_a_lock_that_stays_is_an_error_and_the_next_write_works(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        await thread.run(lambda db: db.execute("pragma busy_timeout = 1"))
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("begin immediate")

            with pytest.raises(StoreError, match="database is locked"):
                await thread.run(note("lost"))

            other.execute("rollback")

        await thread.run(note("kept"))
        assert await thread.run(read_notes) == ["kept"]

    async def test_a_full_disk_is_an_error_and_what_was_kept_stays(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        await thread.run(note("kept"))
        await thread.run(lambda db: db.execute("pragma max_page_count = 1"))  # as many as there are

        errors = await run_together(thread, note("x" * 100_000), note("y" * 100_000))

        assert [type(error) for error in errors] == [StoreError, StoreError]
        assert notes_on_disk(database) == ["kept"]

    async def test_after_a_full_disk_got_room_writes_work(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        await thread.run(lambda db: db.execute("pragma max_page_count = 1"))
        with pytest.raises(StoreError, match="full"):
            await thread.run(note("x" * 100_000))

        await thread.run(lambda db: db.execute("pragma max_page_count = 1000000"))
        await thread.run(note("kept"))

        assert notes_on_disk(database) == ["kept"]

    async def test_a_database_that_cannot_be_written_is_an_error(
        self, thread: DatabaseThread, database: Path
    ) -> None:
        await thread.run(note("kept"))
        await thread.run(lambda db: db.execute("pragma query_only = on"))

        with pytest.raises(StoreError, match="readonly"):
            await thread.run(note("lost"))

        assert notes_on_disk(database) == ["kept"]


@pytest.fixture
def no_database(database: Path) -> Path:
    database.write_bytes(b"order_id,status\n" * 1_000)
    return database


class TestOpening:
    async def test_a_file_that_is_no_database_is_named(self, no_database: Path) -> None:
        with pytest.raises(StoreError, match=r"shop\.db.*not a database"):
            async with open_sqlite_store(no_database):
                pytest.fail("it was opened")

    async def test_a_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=str(tmp_path)):
            async with open_sqlite_store(tmp_path):
                pytest.fail("it was opened")

    async def test_a_folder_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"missing/shop\.db"):
            async with open_sqlite_store(tmp_path / "missing" / "shop.db"):
                pytest.fail("it was opened")

    async def test_a_path_that_is_none_at_all_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="null"):
            async with open_sqlite_store(tmp_path / "a\0b"):
                pytest.fail("it was opened")

    async def test_no_thread_is_left_behind(self, no_database: Path) -> None:
        with pytest.raises(StoreError):
            async with open_sqlite_store(no_database):
                pytest.fail("it was opened")

        assert "database" not in {thread.name for thread in threading.enumerate()}


class TestStopping:
    async def test_what_was_submitted_is_committed(self, database: Path) -> None:
        thread = DatabaseThread(database)
        await thread.start()
        await thread.run(make_notes)

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(thread.run(note(str(number))), name=f"note {number}")
            group.create_task(thread.stop(), name="stop")

        assert notes_on_disk(database) == [str(number) for number in range(50)]

    async def test_work_that_comes_too_late_is_refused(self, database: Path) -> None:
        thread = DatabaseThread(database)
        await thread.start()
        await thread.stop()

        with pytest.raises(StoreError, match="is closed"):
            await thread.run(make_notes)
