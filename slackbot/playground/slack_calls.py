"""Every call of the Web API: who may make it, what goes wrong on purpose, and the record of it."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from slackbot.playground.slack_faults import (
    Dropped,
    Fault,
    Faults,
    Held,
    RateLimited,
    Refused,
    ServerBroken,
    Slow,
)
from slackbot.playground.slack_limits import Throttle
from slackbot.playground.slack_methods import WebApi, read_arguments
from slackbot.playground.slack_rules import SlackRefusalError

BOT_TOKEN = "xoxb-local-bot"  # noqa: S105 - opens nothing but this server
APP_TOKEN = "xapp-local-app"  # noqa: S105 - opens nothing but this server


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """One call of the bot, once it was answered. Times are of the server's monotonic clock."""

    method: str
    arguments: Mapping[str, Any]
    token: str
    arrived_at: float
    answered_at: float
    status: int  # HTTP; 0 where the connection was dropped
    error: str | None
    ts: str | None  # of the message that was posted, edited or deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A call that waits for its answer."""

    method: str
    arguments: Mapping[str, Any]
    token: str
    arrived_at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call is answered with; a `str` body is HTML."""

    body: dict[str, Any] | str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """Slack's word for what is wrong, None if nothing is."""
        if isinstance(self.body, str):
            return f"http_{self.status}"
        return self.body.get("error")


class Watchers:
    """Those who wait until something holds."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}

    def look(self) -> None:
        """Something changed: lets everybody look whether what they wait for holds now."""
        for future, predicate in list(self._waiting.items()):
            if future.done():
                continue
            try:
                if predicate():
                    future.set_result(None)
            except Exception as error:  # noqa: BLE001 - it is the waiter's, and raised there
                future.set_exception(error)

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Returns when `predicate` holds."""
        if predicate():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = predicate
        try:
            await future
        finally:
            del self._waiting[future]


class CallServer:
    """Serves the methods of `api` over HTTP."""

    def __init__(
        self,
        api: WebApi,
        *,
        throttle: Throttle,
        latency_s: float,
        monotonic: Callable[[], float],
        watchers: Watchers,
    ) -> None:
        self._api = api
        self._throttle = throttle
        self._latency_s = latency_s
        self._monotonic = monotonic
        self._watchers = watchers
        self.calls: list[ApiCall] = []
        self.faults = Faults()
        self.rate_limited: Counter[str] = Counter()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One Web API call: fault, limit, effect, answer, and the note in `calls`."""
        arrived_at = self._monotonic()
        try:
            arguments, refusal = await read_arguments(request), None
        except SlackRefusalError as error:
            arguments, refusal = {}, error
        header = request.headers.get("Authorization", "")
        call = Arrival(
            method=request.match_info["method"],
            arguments=arguments,
            token=header.removeprefix("Bearer ") or str(arguments.pop("token", "")),
            arrived_at=arrived_at,
        )
        fault = self.faults.take(call.method, call.arguments)
        await self._wait_before(fault)
        outcome = self._decide(call, fault, refusal)
        await self._wait_after(fault)
        return self._answer(request, call, outcome, is_dropped=isinstance(fault, Dropped))

    async def _wait_before(self, fault: Fault | None) -> None:
        match fault:
            case Slow(seconds=seconds):
                await asyncio.sleep(seconds)
            case Held(before=True):
                await fault.hold()
        if self._latency_s:
            await asyncio.sleep(self._latency_s / 2)

    async def _wait_after(self, fault: Fault | None) -> None:
        self._watchers.look()
        if self._latency_s:
            await asyncio.sleep(self._latency_s / 2)
        match fault:
            case Held(before=False):
                await fault.hold()

    def _decide(
        self, call: Arrival, fault: Fault | None, refusal: SlackRefusalError | None
    ) -> Outcome:
        match fault:
            case ServerBroken(status=status):
                return Outcome(f"<html>{status}</html>", status)
            case RateLimited(retry_after_s=wait_s):
                self._throttle.hold(call.method, wait_s)
                return self._refuse_for_now(call, wait_s)
            case Refused(error=error):
                return Outcome({"ok": False, "error": error})
            case Dropped(done=False):
                return Outcome("", 0)
        try:
            self._check_caller(call, refusal)
            wait_s = self._throttle.take(call.method, str(call.arguments.get("channel", "")))
            if wait_s:
                return self._refuse_for_now(call, wait_s)
            return Outcome({"ok": True, **self._api.call(call.method, call.arguments)})
        except SlackRefusalError as error:
            return Outcome({"ok": False, "error": error.error, **error.fields})

    def _check_caller(self, call: Arrival, refusal: SlackRefusalError | None) -> None:
        if call.method not in self._api.methods:
            raise SlackRefusalError("unknown_method", req_method=call.method)
        if not call.token:
            raise SlackRefusalError("not_authed")
        if call.token not in (BOT_TOKEN, APP_TOKEN):
            raise SlackRefusalError("invalid_auth")
        needs_app_token = call.method == "apps.connections.open"
        if needs_app_token != (call.token == APP_TOKEN):
            raise SlackRefusalError("not_allowed_token_type")
        if refusal is not None:
            raise refusal

    def _refuse_for_now(self, call: Arrival, wait_s: float) -> Outcome:
        self.rate_limited[call.method] += 1
        headers = {"Retry-After": f"{wait_s:g}"}
        return Outcome({"ok": False, "error": "ratelimited"}, 429, headers)

    def _answer(
        self, request: web.Request, call: Arrival, outcome: Outcome, *, is_dropped: bool
    ) -> web.StreamResponse:
        is_told = isinstance(outcome.body, dict)
        self.calls.append(
            ApiCall(
                method=call.method,
                arguments=call.arguments,
                token=call.token,
                arrived_at=call.arrived_at,
                answered_at=self._monotonic(),
                status=0 if is_dropped else outcome.status,
                error="dropped" if is_dropped else outcome.error,
                ts=outcome.body.get("ts") if isinstance(outcome.body, dict) else None,
            )
        )
        self._watchers.look()
        if is_dropped:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if not is_told:
            return web.Response(
                text=str(outcome.body), status=outcome.status, content_type="text/html"
            )
        return web.Response(
            body=json.dumps(outcome.body).encode(),
            status=outcome.status,
            headers={"x-oauth-scopes": ",".join(sorted(self._api.scopes)), **outcome.headers},
            content_type="application/json",
        )
