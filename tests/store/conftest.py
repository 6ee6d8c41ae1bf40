"""The store under test, in a file of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from slackbot.store.base import Store
from slackbot.store.sqlite import open_sqlite_store
from tests.store.factories import Clock

Opener: TypeAlias = Callable[[Path, Clock], AbstractAsyncContextManager[Store]]


def _open_sqlite(path: Path, clock: Clock) -> AbstractAsyncContextManager[Store]:
    return open_sqlite_store(path, now=clock)


IMPLEMENTATIONS: dict[str, Opener] = {"sqlite": _open_sqlite}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def open_store(request: pytest.FixtureRequest) -> Opener:
    return IMPLEMENTATIONS[request.param]


@pytest.fixture
async def store(open_store: Opener, database: Path, clock: Clock) -> AsyncIterator[Store]:
    async with open_store(database, clock) as store:
        yield store
