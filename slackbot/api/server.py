"""The HTTP server: health for operators, and whatever routes the Slack edge adds."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import web

from slackbot.errors import ShopMateError

log = logging.getLogger(__name__)

CHECK_TIME_S = 2.0
SHUTDOWN_S = 3.0
MAX_BODY_BYTES = 1024 * 1024


class ReadinessCheck:
    """Whether ShopMate can do its work: Slack is connected, and the database can be written."""

    def __init__(
        self, *, is_connected: Callable[[], bool], check_database: Callable[[], Awaitable[None]]
    ) -> None:
        self._is_connected = is_connected
        self._check_database = check_database

    async def run(self) -> dict[str, bool]:
        """Each condition by name."""
        return {"slack": self._is_connected(), "database": await self._is_writable()}

    async def _is_writable(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_TIME_S):
                await self._check_database()
        except (ShopMateError, TimeoutError):
            log.warning("database.not_writable")
            return False
        return True


def build_health_routes(check: ReadinessCheck) -> list[web.RouteDef]:
    """`/healthz`: the process answers. `/readyz`: it can do its work; 503 if not."""

    async def show_health(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def show_readiness(_: web.Request) -> web.Response:
        conditions = await check.run()
        is_ready = all(conditions.values())
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return web.json_response({"ready": is_ready, **conditions}, status=status)

    return [web.get("/healthz", show_health), web.get("/readyz", show_readiness)]


@web.middleware
async def _log_crashes(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:
        log.exception("http.crashed", extra={"path": request.path})
        return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)


@asynccontextmanager
async def open_server(
    routes: Iterable[web.RouteDef], *, host: str, port: int
) -> AsyncIterator[int]:
    """Serves `routes`; the port, which is chosen by the system if `port` is 0.

    Raises:
        OSError: the address is in use, or not ours.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_log_crashes])
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
