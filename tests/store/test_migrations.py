"""The tables people may query (DESIGN §7), as plain sqlite3 sees them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from slackbot.store.sqlite import open_sqlite_store
from tests.store.factories import JO, begin, finish, mentioned, thread_of
from tests.store.test_orders import TEE


def select(database: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize(
    "table",
    ["conversations", "messages", "turns", "history", "orders", "usage", "escalations"],
)
async def test_people_may_query(database: Path, table: str) -> None:
    async with open_sqlite_store(database):
        rows = select(database, f"select * from {table}")

    assert len(rows) == (3 if table == "orders" else 0)


async def test_rows_can_be_read_while_it_runs(database: Path) -> None:
    async with open_sqlite_store(database) as store:
        await store.record_message(mentioned("Hello"))
        await finish(store, await begin(store, thread_of(0)), "Hi")

        rows = select(
            database,
            "select author, text, final_text from messages join turns on turns.id = turn_id",
        )

    assert rows == [(JO, "Hello", "Hi")]


async def test_reopening_changes_nothing(database: Path) -> None:
    everything = "select name, sql from sqlite_master order by name"
    async with open_sqlite_store(database):
        schema = select(database, everything)
        applied = select(database, "select * from _sqlite_migrations")

    async with open_sqlite_store(database):
        assert select(database, everything) == schema
        assert select(database, "select * from _sqlite_migrations") == applied
        assert select(database, "select count(*) from orders") == [(3,)]


async def test_samples_do_not_come_back(database: Path) -> None:
    async with open_sqlite_store(database) as store:
        await store.import_orders([TEE])

    async with open_sqlite_store(database) as store:
        assert await store.list_orders() == [TEE]


async def test_a_check_commits_a_write(database: Path) -> None:
    async with open_sqlite_store(database) as store:
        await store.check_writable()
        await store.check_writable()

        assert select(database, "select count(*) from heartbeat") == [(1,)]
