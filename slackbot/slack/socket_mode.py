"""Events over a socket that ShopMate opens, and the watchdog that keeps it alive.

The SDK's client reconnects by itself, with two gaps (facts: slack_sdk 3.47): a ticket that Slack
refuses is tried again for ever, and a socket that is open but says nothing counts as connected.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp import WSMessage
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.web.async_client import AsyncWebClient

from slackbot.slack.calls import SlackCalls

log = logging.getLogger(__name__)

ACK_TIME_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogTimes:
    """When a socket is given up, in seconds.

    `hello_s`: without Slack's greeting. `silence_s`: without any event, for a socket can go deaf
    while its pings are answered; a new one costs one call. `ping_s`: between two pings.
    """

    check_s: float = 1.0
    disconnected_s: float = 3.0
    hello_s: float = 10.0
    silence_s: float = 600.0
    ping_s: float = 5.0


class SocketConnection:
    """The socket to Slack, watched."""

    def __init__(
        self, client: SocketModeClient, *, times: WatchdogTimes, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._times = times
        self._clock = clock
        self._is_greeted = False
        self._session: str | None = None
        self._session_since = clock()
        self._heard_at = clock()
        self._connected_at = clock()
        client.on_message_listeners.append(self._note_message)

    @property
    def is_connected(self) -> bool:
        """Whether events can come in."""
        session = self._client.current_session
        return self._is_greeted and session is not None and not session.closed

    async def watch(self) -> None:
        """Gives up whatever does not work any more; the SDK then connects anew."""
        while True:
            await asyncio.sleep(self._times.check_s)
            await self._check()

    async def _check(self) -> None:
        now = self._clock()
        if not await self._client.is_connected():
            self._is_greeted = False
            if now - self._connected_at >= self._times.disconnected_s:
                log.warning("socket.new_ticket")
                self._client.wss_uri = None  # the next try asks for a new one
                self._connected_at = now
            return
        self._connected_at = now
        session = await self._client.session_id()
        if session != self._session:
            self._session, self._session_since = session, now
        silent_since = max(self._heard_at, self._session_since)
        limit_s = self._times.silence_s if self._is_greeted else self._times.hello_s
        if now - silent_since >= limit_s and self._client.current_session is not None:
            log.warning("socket.deaf", extra={"silent_s": round(now - silent_since)})
            self._is_greeted = False
            await self._client.current_session.close()

    async def _note_message(self, message: WSMessage) -> None:
        self._heard_at = self._clock()
        if not self._is_greeted and '"hello"' in str(message.data):
            self._is_greeted = True
            log.info("socket.connected")


class _Acknowledging:
    """Knows whether envelopes are being handled, so that none is cut off before its ack."""

    def __init__(self, handler: AsyncSocketModeHandler) -> None:
        self._handler = handler
        self._under_way = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._listeners = handler.client.socket_mode_request_listeners
        self._listeners[:] = [self._handle]

    async def stop(self) -> None:
        """Takes no envelope any more, and waits for the acks under way; Slack resends the rest."""
        self._listeners.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(ACK_TIME_S):
                await self._is_idle.wait()

    async def _handle(self, _: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        self._under_way += 1
        self._is_idle.clear()
        try:
            await self._handler.handle(self._handler.client, request)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._is_idle.set()


@asynccontextmanager
async def open_socket(
    app: AsyncApp,
    *,
    app_token: str,
    client: AsyncWebClient,
    calls: SlackCalls,
    clock: Callable[[], float],
    times: WatchdogTimes | None = None,
) -> AsyncIterator[SocketConnection]:
    """The socket, connecting; whatever comes over it goes to `app`.

    Raises:
        SlackError: Slack does not accept the app token, or cannot be reached.
    """
    times = times or WatchdogTimes()
    # Asked once here, for the SDK would ask for ever and never say that the token is wrong.
    ticket = await calls.open_connection(app_token)
    handler = AsyncSocketModeHandler(app, app_token, web_client=client, ping_interval=times.ping_s)
    handler.client.wss_uri = ticket
    acknowledging = _Acknowledging(handler)
    connection = SocketConnection(handler.client, times=times, clock=clock)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_connect(handler), name="socket connection"),
            group.create_task(connection.watch(), name="socket watchdog"),
        ]
        try:
            yield connection
        finally:
            for task in tasks:
                task.cancel()
            await acknowledging.stop()
            await handler.close_async()  # type: ignore[no-untyped-call] # the SDK's own gap


async def _connect(handler: AsyncSocketModeHandler) -> None:
    await handler.connect_async()  # type: ignore[no-untyped-call] # the SDK's own gap
