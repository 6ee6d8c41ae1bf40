from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from slackbot.api.server import MAX_BODY_BYTES, ReadinessCheck, build_health_routes, open_server
from slackbot.errors import StoreError


class Conditions:
    """What a readiness check finds, as a test would have it."""

    def __init__(self) -> None:
        self.is_connected = True
        self.database_error: Exception | None = None

    async def check_database(self) -> None:
        if self.database_error is not None:
            raise self.database_error

    def build_check(self) -> ReadinessCheck:
        return ReadinessCheck(
            is_connected=lambda: self.is_connected, check_database=self.check_database
        )


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def url(conditions: Conditions) -> AsyncIterator[str]:
    async def measure(request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await request.read())})

    async def crash(_: web.Request) -> web.Response:
        raise ValueError("customer ORD-1001")

    routes = [
        *build_health_routes(conditions.build_check()),
        web.post("/measure", measure),
        web.get("/crash", crash),
    ]
    async with open_server(routes, host="127.0.0.1", port=0) as port:
        yield f"http://127.0.0.1:{port}"


async def fetch(http: aiohttp.ClientSession, url: str) -> tuple[int, Mapping[str, Any]]:
    async with http.get(url) as response:
        return response.status, await response.json()


async def test_healthz_says_that_the_process_answers(
    http: aiohttp.ClientSession, url: str, conditions: Conditions
) -> None:
    conditions.is_connected = False

    assert await fetch(http, f"{url}/healthz") == (200, {"alive": True})


async def test_readyz_is_200_when_everything_works(http: aiohttp.ClientSession, url: str) -> None:
    status, said = await fetch(http, f"{url}/readyz")

    assert status == 200
    assert said == {"ready": True, "slack": True, "database": True}


async def test_readyz_is_503_without_a_connection_to_slack(
    http: aiohttp.ClientSession, url: str, conditions: Conditions
) -> None:
    conditions.is_connected = False
    status, said = await fetch(http, f"{url}/readyz")

    assert status == 503
    assert said == {"ready": False, "slack": False, "database": True}


@pytest.mark.parametrize("error", [StoreError("database: disk is full"), TimeoutError()])
async def test_readyz_is_503_when_the_database_cannot_be_written(
    http: aiohttp.ClientSession, url: str, conditions: Conditions, error: Exception
) -> None:
    conditions.database_error = error
    status, said = await fetch(http, f"{url}/readyz")

    assert status == 503
    assert said == {"ready": False, "slack": True, "database": False}


async def test_readiness_comes_back(
    http: aiohttp.ClientSession, url: str, conditions: Conditions
) -> None:
    conditions.is_connected = False
    before, _ = await fetch(http, f"{url}/readyz")
    conditions.is_connected = True
    after, _ = await fetch(http, f"{url}/readyz")

    assert (before, after) == (503, 200)


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)])
async def test_a_body_of_more_than_a_mebibyte_is_refused(
    http: aiohttp.ClientSession, url: str, size: int, status: int
) -> None:
    async with http.post(f"{url}/measure", data=BytesIO(b"x" * size)) as response:
        assert response.status == status


async def test_a_crash_tells_the_client_nothing_and_the_log_everything(
    http: aiohttp.ClientSession, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with http.get(f"{url}/crash") as response:
        said = await response.text()

    assert response.status == 500
    assert "ORD-1001" not in said
    crashes = [record for record in caplog.records if record.getMessage() == "http.crashed"]
    assert len(crashes) == 1
    assert crashes[0].exc_info is not None


async def test_what_does_not_exist_is_not_found(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(f"{url}/admin") as response:
        assert response.status == 404


async def test_a_port_in_use_is_an_error() -> None:
    async with open_server([], host="127.0.0.1", port=0) as port:
        with pytest.raises(OSError, match=str(port)):
            async with open_server([], host="127.0.0.1", port=port):
                pass
