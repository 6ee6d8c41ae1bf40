"""How events reach the bot: over Socket Mode or signed HTTP, again and again until acknowledged."""

import asyncio
import hashlib
import hmac
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from uuid import uuid4

import aiohttp
from aiohttp import web

DisconnectReason: TypeAlias = Literal["warning", "refresh_requested", "link_disabled"]

MAX_SOCKETS = 10  # per app, D: apis/events-api/using-socket-mode
MAX_OUTBOX = 100_000
CLOSE = ""  # in an outbox: close the socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The bot's word that it has an event; `envelope_id` is empty over HTTP."""

    event_id: str
    envelope_id: str
    after_s: float  # since this attempt was sent
    retry_attempt: int
    event: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Parcel:
    """An event under way."""

    body: Mapping[str, Any]
    attempt: int = 0
    reason: str = ""
    is_acked: bool = False
    sent_at: dict[str, float] = field(default_factory=dict)  # envelope id → when
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Socket:
    """One open Socket Mode connection. A deaf one neither sends nor hears anything."""

    transport: asyncio.Transport | None
    is_deaf: bool
    outbox: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(MAX_OUTBOX))


@asynccontextmanager
async def open_task_home() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup in a task of its own, cancelled at the end.

    A TaskGroup must be left by the task that entered it; test fixtures are left by another one.
    """
    ready: asyncio.Future[asyncio.TaskGroup] = asyncio.get_running_loop().create_future()

    async def live() -> None:
        async with asyncio.TaskGroup() as tasks:
            ready.set_result(tasks)
            await asyncio.Event().wait()

    home = asyncio.get_running_loop().create_task(live(), name="local slack")
    try:
        yield await ready
    finally:
        home.cancel()
        await asyncio.wait({home})
        if not home.cancelled():
            home.result()


class Delivery:
    """The way of every event to the bot, and what the bot acknowledged."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        ack_timeout_s: float,
        retry_delays_s: Sequence[float],
        signing_secret: str,
        tasks: asyncio.TaskGroup,
        session: aiohttp.ClientSession,
        changed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._ack_timeout_s = ack_timeout_s
        self._retry_delays_s = retry_delays_s
        self._signing_secret = signing_secret
        self._tasks = tasks
        self._session = session
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._envelopes: dict[str, Parcel] = {}
        self._open: dict[Parcel, None] = {}
        self._parked: deque[Parcel] = deque()
        self._tickets: set[str] = set()
        self._turn = 0
        self.sockets: list[Socket] = []
        self.acks: list[Ack] = []
        self.lost: list[Mapping[str, Any]] = []
        self.events_url: str | None = None
        self.refuse_tickets: int | bool = False
        self.tickets_refused = 0
        self.sockets_opened = 0
        self.new_sockets_are_deaf = False
        self.max_parked = 1_000

    @property
    def unacked(self) -> list[Mapping[str, Any]]:
        """The bodies of events that are still under way."""
        return [parcel.body for parcel in self._open]

    def deliver(self, body: Mapping[str, Any]) -> None:
        """Sends an event, and sends it again while it is not acknowledged."""
        parcel = Parcel(body)
        self._open[parcel] = None
        self._send(parcel)

    def new_ticket(self) -> str:
        """What a Socket Mode connection is opened with, once."""
        ticket = uuid4().hex
        self._tickets.add(ticket)
        return ticket

    def deafen(self, *, also_new: bool) -> None:
        """Open sockets (and new ones, before their hello) stay open, and nothing passes."""
        for socket in self.sockets:
            socket.is_deaf = True
        self.new_sockets_are_deaf = also_new

    def drop_sockets(self) -> None:
        """Breaks every socket's TCP connection."""
        for socket in self.sockets:
            if socket.transport is not None:
                socket.transport.abort()

    def disconnect_sockets(self, reason: DisconnectReason) -> None:
        """Tells every socket to leave. After a `warning` it may stay until it leaves by itself."""
        for socket in self.sockets:
            socket.outbox.put_nowait(_build_disconnect(reason))
            if reason != "warning":
                socket.outbox.put_nowait(CLOSE)

    def close(self) -> None:
        """Nothing is sent any more."""
        for parcel in self._open:
            if parcel.timer is not None:
                parcel.timer.cancel()
        self._open.clear()
        self.drop_sockets()

    async def challenge(self, challenge: str) -> str:
        """The answer of `events_url` to Slack's `url_verification`."""
        body = {"type": "url_verification", "challenge": challenge}
        raw = json.dumps(body).encode()
        async with self._session.post(
            str(self.events_url), data=raw, headers=self._sign(raw)
        ) as response:
            return await response.text()

    async def serve_socket(self, request: web.Request) -> web.StreamResponse:
        """A Socket Mode connection, from handshake to end."""
        if refusal := self._refuse(request.query.get("ticket", "")):
            return refusal
        websocket = web.WebSocketResponse(autoping=False, timeout=1.0)
        await websocket.prepare(request)
        socket = Socket(request.transport, self.new_sockets_are_deaf)
        if len(self.sockets) >= MAX_SOCKETS:
            socket.outbox.put_nowait(_build_disconnect("too_many_websockets"))
            socket.outbox.put_nowait(CLOSE)
        else:
            self._welcome(socket)
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(_write(websocket, socket), name="socket writer")
                await self._read(websocket, socket)
                writer.cancel()
        finally:
            if socket in self.sockets:
                self.sockets.remove(socket)
            self._changed()
        return websocket

    def _refuse(self, ticket: str) -> web.Response | None:
        """The refusal of a handshake: told to refuse, or the ticket is unknown or was used."""
        if self.refuse_tickets:
            if self.refuse_tickets is not True:
                self.refuse_tickets -= 1
        elif ticket in self._tickets:
            self._tickets.remove(ticket)
            return None
        self.tickets_refused += 1
        self._changed()
        return web.Response(status=408, text="ticket_expired")

    def _welcome(self, socket: Socket) -> None:
        self.sockets.append(socket)
        self.sockets_opened += 1
        hello = {
            "type": "hello",
            "num_connections": len(self.sockets),
            "debug_info": {
                "host": "applink-local",
                "build_number": 1,
                "approximate_connection_time": 18_060,
            },
            "connection_info": {"app_id": "A0LOCAL0001"},
        }
        socket.outbox.put_nowait(json.dumps(hello))
        while self._parked:
            self._send(self._parked.popleft())
        self._changed()

    async def _read(self, websocket: web.WebSocketResponse, socket: Socket) -> None:
        async for message in websocket:
            if socket.is_deaf:
                continue
            if message.type == aiohttp.WSMsgType.PING:
                with suppress(ConnectionError):  # gone already; the next read says so
                    await websocket.pong(message.data)
            elif message.type == aiohttp.WSMsgType.TEXT:
                self._hear_ack(str(json.loads(message.data).get("envelope_id")))

    def _hear_ack(self, envelope_id: str) -> None:
        parcel = self._envelopes.get(envelope_id)
        if parcel is not None:
            self._note_ack(parcel, envelope_id, parcel.sent_at[envelope_id])

    def _note_ack(self, parcel: Parcel, envelope_id: str, sent_at: float) -> None:
        self.acks.append(
            Ack(
                event_id=parcel.body["event_id"],
                envelope_id=envelope_id,
                after_s=self._monotonic() - sent_at,
                retry_attempt=parcel.attempt,
                event=parcel.body["event"],
            )
        )
        parcel.is_acked = True
        self._forget(parcel)
        self._changed()

    def _forget(self, parcel: Parcel) -> None:
        if parcel.timer is not None:
            parcel.timer.cancel()
        for envelope_id in parcel.sent_at:
            self._envelopes.pop(envelope_id, None)
        self._open.pop(parcel, None)

    def _send(self, parcel: Parcel) -> None:
        if self.events_url is not None:
            self._tasks.create_task(self._post(parcel, self.events_url), name="event")
        elif self.sockets:
            self._turn += 1
            self._put(parcel, self.sockets[self._turn % len(self.sockets)])
        elif len(self._parked) < self.max_parked:
            parcel.attempt, parcel.reason = max(parcel.attempt, 1), "connection_failed"
            self._parked.append(parcel)
        else:
            self._lose(parcel)

    def _put(self, parcel: Parcel, socket: Socket) -> None:
        envelope_id = str(uuid4())
        envelope = {
            "envelope_id": envelope_id,
            "payload": parcel.body,
            "type": "events_api",
            "accepts_response_payload": False,
            "retry_attempt": parcel.attempt,
            "retry_reason": parcel.reason,
        }
        self._envelopes[envelope_id] = parcel
        parcel.sent_at[envelope_id] = self._monotonic()
        parcel.timer = self._loop.call_later(self._ack_timeout_s, self._retry, parcel, "timeout")
        socket.outbox.put_nowait(json.dumps(envelope))

    def _retry(self, parcel: Parcel, reason: str) -> None:
        if parcel.attempt >= len(self._retry_delays_s):
            self._lose(parcel)
            return
        delay_s = self._retry_delays_s[parcel.attempt]
        parcel.attempt, parcel.reason = parcel.attempt + 1, reason
        parcel.timer = self._loop.call_later(delay_s, self._send, parcel)

    def _lose(self, parcel: Parcel) -> None:
        self.lost.append(parcel.body)
        self._forget(parcel)
        self._changed()

    async def _post(self, parcel: Parcel, url: str) -> None:
        raw = json.dumps(parcel.body).encode()
        headers = self._sign(raw)
        if parcel.attempt:
            headers |= {
                "X-Slack-Retry-Num": str(parcel.attempt),
                "X-Slack-Retry-Reason": parcel.reason,
            }
        sent_at = self._monotonic()
        timeout = aiohttp.ClientTimeout(total=self._ack_timeout_s)
        try:
            async with self._session.post(
                url, data=raw, headers=headers, timeout=timeout
            ) as response:
                status, no_retry = response.status, response.headers.get("x-slack-no-retry")
        except TimeoutError:
            self._retry(parcel, "http_timeout")
        except aiohttp.ClientError:
            self._retry(parcel, "connection_failed")
        else:
            if status == 200:
                self._note_ack(parcel, "", sent_at)
            elif no_retry == "1":
                self._lose(parcel)
            else:
                self._retry(parcel, "http_error")

    def _sign(self, raw: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock()))
        base = b"v0:" + timestamp.encode() + b":" + raw
        digest = hmac.new(self._signing_secret.encode(), base, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": f"v0={digest}",
        }


async def _write(websocket: web.WebSocketResponse, socket: Socket) -> None:
    """Sends what is in the outbox; what a deaf socket was given is lost."""
    while (frame := await socket.outbox.get()) != CLOSE:
        if not socket.is_deaf and not websocket.closed:
            with suppress(ConnectionError):  # gone already; the reader notices
                await websocket.send_str(frame)
    await websocket.close()


def _build_disconnect(reason: str) -> str:
    frame = {"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-local"}}
    return json.dumps(frame)
