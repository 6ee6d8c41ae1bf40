"""One thread that owns the database, and commits together what is waiting together.

SQLite answers in microseconds but a durable commit waits for the disk. Everything submitted while
one commit is under way shares the next, so twenty messages at once cost two waits, not twenty.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlite_utils import Database

from slackbot.errors import ShopMateError, StoreError
from slackbot.store.migrations import migrations

log = logging.getLogger(__name__)

T = TypeVar("T")
BUSY_TIMEOUT_S = 5.0  # another process imports orders
MAX_JOBS_A_COMMIT = 256


class _Job:
    def __init__(self, work: Callable[[Database], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.outcome: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return  # nobody waits any more; what it did stays committed
        if self.error is None:
            self.future.set_result(self.outcome)
        else:
            self.future.set_exception(self.error)


class DatabaseThread:
    """A thread with the only connection to the database. Open with `start`, end with `stop`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="database", daemon=True)
        self._opened: Future[None] = Future()
        self._is_stopped = False

    async def start(self) -> None:
        """Opens the database and brings its tables up to date.

        Raises:
            StoreError: it cannot be opened, or is no database.
        """
        self._thread.start()
        try:
            await asyncio.wrap_future(self._opened)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"database {str(self._path)!r}: {error}") from error

    async def stop(self) -> None:
        """Lets everything submitted be committed, then closes the database."""
        self._is_stopped = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    async def run(self, work: Callable[[Database], T]) -> T:
        """What `work` returns, once its writes are on disk.

        Raises:
            StoreError: the database refused, or is closed; nothing of this work was kept.
        """
        if self._is_stopped:
            raise StoreError(f"database {str(self._path)!r} is closed")
        job = _Job(work)
        self._jobs.put(job)
        outcome: T = await asyncio.wrap_future(job.future)
        return outcome

    def _work(self) -> None:
        if not self._opened.set_running_or_notify_cancel():
            return
        try:
            db = _open(self._path)
        except Exception as error:  # noqa: BLE001 - it is raised in `start`, in the other thread
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while jobs := self._next_jobs():
                _commit_together(db, jobs)
                for job in jobs:
                    job.settle()
        finally:
            db.close()

    def _next_jobs(self) -> list[_Job]:
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if self._jobs.empty() or len(jobs) == MAX_JOBS_A_COMMIT:
                return jobs
            job = self._jobs.get()
        if jobs:
            self._jobs.put(None)  # the end comes after what was submitted before it
        return jobs


def _open(path: Path) -> Database:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.row_factory = sqlite3.Row
        db = Database(connection)
        db.enable_wal()
        db.execute("pragma synchronous = full")  # in WAL: what was committed survives a power cut
        db.execute("pragma foreign_keys = on")
        db.execute("pragma cache_size = -8000")  # KiB
        migrations.apply(db)
    except BaseException:
        connection.close()
        raise
    return db


def _commit_together(db: Database, jobs: list[_Job]) -> None:
    """Runs every job in a savepoint of its own, and one commit for all."""
    try:
        # Not deferred: a transaction that begins by reading may not write after somebody else did.
        db.execute("begin immediate")
        for job in jobs:
            _run(db, job)
        db.execute("commit")
    except sqlite3.Error as error:
        db.rollback()
        log.exception("store.commit_failed", extra={"jobs": len(jobs)})
        for job in jobs:
            job.error = StoreError(f"database: {error}")
            job.error.__cause__ = error


def _run(db: Database, job: _Job) -> None:
    try:
        with db.atomic():
            job.outcome = job.work(db)
    except ShopMateError as error:
        job.error = error
    except sqlite3.Error as error:
        job.error = StoreError(f"database: {error}")
        job.error.__cause__ = error
        if not db.conn.in_transaction:
            raise
    except Exception as error:  # noqa: BLE001 - it is the caller's, who waits in another thread
        job.error = error
