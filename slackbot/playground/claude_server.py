"""A local stand-in for the Claude Messages API, as strict as the real one, with faults on demand.

The real `anthropic.AsyncAnthropic` runs against it: in tests, in benchmarks and in the offline
playground. What `claude_mind.answer` (or a script) says is streamed as the API streams it. A bot
that works only because a stand-in is lenient does not work, so these facts are enforced:

 1. The key comes as `Authorization: Bearer`; `x-api-key` alone is refused: 401.
 2. `anthropic-version` is required. On 2026-10-21 sampling parameters are refused on every model.
 3. An unknown model is 404 `not_found_error`.
 4. `max_tokens` is required, and at most what the model can write; a reply is cut there.
 5. Unknown keys, at the top level and in blocks, are "Extra inputs are not permitted".
 6. The first message is the user's; roles are `user` and `assistant`.
 7. No message is empty, no text block empty or blank.
 8. Every `tool_use` is answered in the one next message, which starts with the `tool_result`s.
 9. A `tool_result` has its `tool_use` in the message before.
10. Ids of tool uses are unique.
11. Content blocks are of known types, each in the role that may use it.
12. The conversation ends with the user where the model takes no prefill (4.6 and later); where it
    takes one, without trailing blanks.
13. Tools have a name of 1 to 128 letters, digits, `_`, `-`, unique, and an object schema; `strict`
    ones close it (`additionalProperties: false`, `required`). A `tool_choice` needs tools, and is
    not forced on 5.5.
14. `output_config.effort` is refused on Haiku 4.5; `thinking` takes what the model knows.
15. At most 4 cache breakpoints, 1h before 5m, none on empty text or on thinking.
16. A prefix is cached from the model's minimum on, for its lifetime, and read by the next request
    that repeats it within 20 blocks of a breakpoint.
17. A prompt longer than the model's context is refused; a body over 32 MB is 413.
18. Errors have the API's envelope, and every response a `request-id`.
19. A stream is named events in the API's order, with cumulative usage; an error in its middle is an
    `error` event under status 200.

Not here: batches, files, server tools, thinking, stop sequences, rate limits, the beta headers.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, overload
from uuid import uuid4

from aiohttp import web

from slackbot.playground.claude_cache import PromptCache, read_prefixes
from slackbot.playground.claude_faults import (
    ConnectionDropped,
    EndsWithoutStop,
    FatalFault,
    Fault,
    HtmlPage,
    HttpError,
    InvalidToolJson,
    Slow,
    Stalled,
    StreamError,
    StreamFault,
    UnknownEvents,
)
from slackbot.playground.claude_mind import Body, Reply, answer
from slackbot.playground.claude_rules import (
    LISTED_MODELS,
    ModelFacts,
    RefusedError,
    check_context,
    check_count_request,
    check_headers,
    check_message_request,
    find_model,
)
from slackbot.playground.claude_wire import (
    Pace,
    Wire,
    WireMessage,
    body_frames,
    encode_event,
    end_frame,
    write_message,
)

MAX_BODY_BYTES = 32 * 1024 * 1024

Mind: TypeAlias = Callable[[Body], Reply]

_REQUEST_ID = web.RequestKey("request_id", str)
_STATUSES = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeRequest:
    """One `POST /v1/messages` as it stands now; a later state is a new value in `requests`."""

    body: Body
    headers: Mapping[str, str]
    """Names in lower case."""
    arrived_at: float
    """`time.monotonic()` seconds, like `finished_at`."""
    finished_at: float | None = None
    """When the last byte was written, or the client hung up."""
    usage: Mapping[str, Any] | None = None
    """Set once a reply was sent to its end."""
    aborted: bool = False
    """Whether the client hung up first."""
    error: str | None = None
    """Why it was refused, or the name of the fault that ended it."""


class LocalClaude:
    """The running stand-in; open one with `open_local_claude`."""

    def __init__(
        self, *, api_key: str, pace: tuple[float, float | None], cache: PromptCache, mind: Mind
    ) -> None:
        self.url = ""
        self.api_key = api_key
        self.requests: list[ClaudeRequest] = []
        """Every `POST /v1/messages`, refused ones too, in the order of arrival."""
        self._pace = Pace(*pace)
        self._cache = cache
        self._mind = mind
        self._script: list[Reply] = []
        self._faults: list[Fault] = []
        self._changed = asyncio.Event()

    def script(self, *replies: Reply) -> None:
        """The next requests get `replies` instead of what the mind says.

        A request that a fault ends takes none: the retry gets it.
        """
        self._script += replies

    def add(self, fault: Fault) -> None:
        """The next `fault.times` valid requests that match `fault.where` meet it, one fault each.

        Faults in mid-stream strike at the latest before `message_stop`.
        """
        self._faults.append(fault)

    def clear(self) -> None:
        """Takes away all faults that are still waiting."""
        self._faults.clear()

    @overload
    async def wait_for_request(self, wanted: int = 1) -> ClaudeRequest: ...
    @overload
    async def wait_for_request(self, wanted: Callable[[ClaudeRequest], bool]) -> ClaudeRequest: ...
    async def wait_for_request(
        self, wanted: int | Callable[[ClaudeRequest], bool] = 1
    ) -> ClaudeRequest:
        """The `wanted`-th request once it has arrived, or the first in a state that fits.

        It waits without limit: put it in an `asyncio.timeout()`.
        """
        matching: list[ClaudeRequest] = []

        def is_there() -> bool:
            if isinstance(wanted, int):
                matching[:] = self.requests[wanted - 1 : wanted]
            else:
                matching[:] = filter(wanted, self.requests)
            return bool(matching)

        await self.wait_until(is_there)
        return matching[0]

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Returns once `predicate` holds; it is asked again whenever a request's state changes."""
        while not predicate():
            await self._changed.wait()

    def build_app(self) -> web.Application:
        """The aiohttp application that answers for it."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_shape_errors])
        app.router.add_post("/v1/messages", self._create_message)
        app.router.add_post("/v1/messages/count_tokens", self._count_tokens)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{id}", self._fetch_model)
        return app

    async def _create_message(self, request: web.Request) -> web.StreamResponse:
        arrived_at = time.monotonic()
        raw = await request.read()
        number = len(self.requests)
        self.requests.append(
            ClaudeRequest(body={}, headers=_lower_names(request), arrived_at=arrived_at)
        )
        try:
            self._note(number, body=_parse_body(raw))
            return await self._respond(request, number)
        except RefusedError as refusal:
            self._note(number, error=f"{refusal.kind}: {refusal}")
            raise
        except (asyncio.CancelledError, ConnectionResetError):
            self._note(number, aborted=True)
            raise
        finally:
            self._note(number, finished_at=time.monotonic())

    async def _respond(self, request: web.Request, number: int) -> web.StreamResponse:
        body, headers = self.requests[number].body, self.requests[number].headers
        check_headers(headers, api_key=self.api_key)
        model = check_message_request(body, version=headers["anthropic-version"])
        prefixes = read_prefixes(body, model=model.id)
        check_context(prefixes[-1].tokens, model)
        fault = self._take_fault(body)
        match fault:
            case HttpError():
                raise _refuse_for(fault)
            case HtmlPage():
                self._note(number, error="HtmlPage")
                page = "<html><body><h1>Gateway</h1></body></html>"
                return web.Response(text=page, content_type="text/html", status=fault.status)
            case ConnectionDropped(after_deltas=0):
                return self._drop(request, number)
        charge = self._cache.charge(prefixes, minimum_tokens=model.min_cache_tokens)
        message = write_message(
            self._choose_reply(body, consume=not isinstance(fault, FatalFault)),
            model=model,
            max_tokens=body["max_tokens"],
            charge=charge,
            breaks_json=isinstance(fault, InvalidToolJson),
        )
        self._cache.remember(charge)
        send = self._stream if body.get("stream") else self._send_whole
        return await send(request, number, message, fault)

    def _choose_reply(self, body: Body, *, consume: bool) -> Reply:
        if not self._script:
            return self._mind(body)
        return self._script.pop(0) if consume else self._script[0]

    def _take_fault(self, body: Body) -> Fault | None:
        for place, fault in enumerate(self._faults):
            if fault.where is None or fault.where(body):
                left = replace(fault, times=fault.times - 1)
                self._faults[place : place + 1] = [left] if left.times > 0 else []
                return fault
        return None

    async def _send_whole(
        self, request: web.Request, number: int, message: WireMessage, fault: Fault | None
    ) -> web.StreamResponse:
        match fault:
            case StreamError(type=kind):
                raise RefusedError(kind, status=_STATUSES.get(kind, 500), kind=kind)
            case ConnectionDropped() | EndsWithoutStop():
                return self._drop(request, number)
            case Stalled():
                fault.reached.set()
                await fault.release.wait()
        await asyncio.sleep(self._pace_for(fault).due_s(message.output_tokens))
        self._note(number, usage=message.usage)
        content = [block.whole for block in message.blocks]
        whole = message.build_start() | message.build_end()
        return web.json_response(whole | {"content": content, "usage": message.usage})

    async def _stream(
        self, request: web.Request, number: int, message: WireMessage, fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "request-id": request[_REQUEST_ID],
            }
        )
        await response.prepare(request)
        wire = Wire(response)
        pace = self._pace_for(fault)
        strikes = fault if isinstance(fault, StreamFault) else None
        started = time.monotonic()
        sent = 0
        for frame in body_frames(message, adds_unknown=isinstance(fault, UnknownEvents)):
            if frame.is_delta:
                if strikes and sent == strikes.after_deltas:
                    if not await self._survives(strikes, wire, request, number):
                        return response
                    strikes = None
                if not pace.is_instant:
                    await wire.flush()
                    await asyncio.sleep(max(0.0, started + pace.due_s(sent) - time.monotonic()))
                sent += 1
            await wire.send(frame.data)
        if strikes and not await self._survives(strikes, wire, request, number):
            return response
        await wire.send(end_frame(message).data)
        await wire.flush()
        await response.write_eof()
        self._note(number, usage=message.usage)
        return response

    async def _survives(
        self, fault: StreamFault, wire: Wire, request: web.Request, number: int
    ) -> bool:
        """Whether the stream goes on after `fault` struck it."""
        await wire.flush()
        if not isinstance(fault, Stalled) and fault.once is not None:
            await fault.once.wait()
        match fault:
            case Stalled():
                fault.reached.set()
                await fault.release.wait()
                return True
            case StreamError():
                self._note(number, error="StreamError")
                error = _envelope(fault.type, fault.type, request[_REQUEST_ID])
                await wire.send(encode_event(error))
                await wire.flush()
            case ConnectionDropped():
                self._drop(request, number)
            case EndsWithoutStop():
                self._note(number, error="EndsWithoutStop")
        return False

    def _drop(self, request: web.Request, number: int) -> web.StreamResponse:
        self._note(number, error="ConnectionDropped")
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _pace_for(self, fault: Fault | None) -> Pace:
        if isinstance(fault, Slow):
            return Pace(fault.first_token_s, fault.tokens_per_s)
        return self._pace

    async def _count_tokens(self, request: web.Request) -> web.Response:
        check_headers(_lower_names(request), api_key=self.api_key)
        body = _parse_body(await request.read())
        model = check_count_request(body)
        return web.json_response({"input_tokens": read_prefixes(body, model=model.id)[-1].tokens})

    async def _list_models(self, request: web.Request) -> web.Response:
        check_headers(_lower_names(request), api_key=self.api_key)
        models = [_build_model(model) for model in LISTED_MODELS]
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]}
        return web.json_response({"data": models, "has_more": False, **ends})

    async def _fetch_model(self, request: web.Request) -> web.Response:
        check_headers(_lower_names(request), api_key=self.api_key)
        return web.json_response(_build_model(find_model(request.match_info["id"])))

    def _note(self, number: int, **changes: Any) -> None:
        self.requests[number] = replace(self.requests[number], **changes)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _lower_names(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _parse_body(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise RefusedError("The request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise RefusedError("Input should be a valid dictionary")
    return body


def _refuse_for(fault: HttpError) -> RefusedError:
    headers = {
        "retry-after": fault.retry_after_s,
        "retry-after-ms": fault.retry_after_ms,
        "x-should-retry": None if fault.should_retry is None else str(fault.should_retry).lower(),
    }
    sent = {name: str(value) for name, value in headers.items() if value is not None}
    return RefusedError(fault.type, status=fault.status, kind=fault.type, headers=sent)


def _build_model(model: ModelFacts) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": model.context_tokens,
        "max_tokens": model.max_tokens,
    }


def _envelope(kind: str, message: str, request_id: str) -> dict[str, Any]:
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


@web.middleware
async def _shape_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    request_id = request[_REQUEST_ID] = f"req_{uuid4().hex}"
    try:
        response = await handler(request)
    except RefusedError as refusal:
        envelope = _envelope(refusal.kind, str(refusal), request_id)
        response = web.json_response(envelope, status=refusal.status, headers=refusal.headers)
    except web.HTTPRequestEntityTooLarge:
        envelope = _envelope("request_too_large", "Request exceeds the maximum size", request_id)
        response = web.json_response(envelope, status=413)
    except web.HTTPException as refusal:
        envelope = _envelope("not_found_error", refusal.reason, request_id)
        response = web.json_response(envelope, status=refusal.status)
    if not response.prepared:
        response.headers["request-id"] = request_id
    return response


@asynccontextmanager
async def open_local_claude(
    *,
    port: int = 0,
    first_token_s: float = 0.0,
    tokens_per_s: float | None = None,
    clock: Callable[[], float] = time.time,
    api_key: str = "sk-local-claude",
    mind: Mind = answer,
) -> AsyncIterator[LocalClaude]:
    """A `LocalClaude` on 127.0.0.1, closed with the block.

    Args:
        port: 0 takes a free one.
        first_token_s: From the request to the first delta.
        tokens_per_s: None writes a reply at once.
        clock: Seconds, for the lifetimes of the prompt cache only.
        api_key: The one key it takes.
        mind: What answers when nothing is scripted.
    """
    claude = LocalClaude(
        api_key=api_key, pace=(first_token_s, tokens_per_s), cache=PromptCache(clock), mind=mind
    )
    runner = web.AppRunner(
        claude.build_app(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        claude.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield claude
    finally:
        await runner.cleanup()
