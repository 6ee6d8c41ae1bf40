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
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, overload
from uuid import uuid4

from aiohttp import web

from slackbot.playground.claude_cache import (
    CHARS_PER_TOKEN,
    Charge,
    PromptCache,
    content_blocks,
    list_breakpoints,
    read_prefixes,
)
from slackbot.playground.claude_mind import Reply, StopReason, TextBlock, ToolUseBlock, answer

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_BREAKPOINTS = 4
FLUSH_BYTES = 16 * 1024
SAMPLING_VERSION = "2023-06-01"  # the last API version on which sampling parameters exist
VERSIONS = frozenset({SAMPLING_VERSION, "2026-10-21"})

Body: TypeAlias = Mapping[str, Any]
Mind: TypeAlias = Callable[[Body], Reply]
Where: TypeAlias = Callable[[Body], bool]

_COUNT_KEYS = frozenset(
    [
        "cache_control",
        "messages",
        "model",
        "output_config",
        "speed",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    ]
)
_MESSAGE_KEYS = _COUNT_KEYS | frozenset(
    [
        "container",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "metadata",
        "service_tier",
        "stop_sequences",
        "stream",
    ]
)
_REQUEST_ID = web.RequestKey("request_id", str)
_SAMPLING_KEYS = frozenset({"temperature", "top_p", "top_k"})
_TOOL_KEYS = frozenset(
    [
        "allowed_callers",
        "cache_control",
        "defer_loading",
        "description",
        "eager_input_streaming",
        "input_examples",
        "input_schema",
        "name",
        "strict",
        "type",
    ]
)
_BLOCK_KEYS = {
    "text": {"text", "citations", "cache_control"},
    "image": {"source", "cache_control", "transformations"},
    "document": {"source", "cache_control", "citations", "context", "title"},
    "search_result": {"content", "source", "title", "cache_control", "citations"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
    "tool_use": {"id", "name", "input", "cache_control", "caller", "toolset_name"},
    "tool_result": {"tool_use_id", "content", "is_error", "cache_control", "toolset_name"},
}
_ROLE_BLOCKS = {
    "user": {"text", "image", "document", "search_result", "tool_result"},
    "assistant": {"text", "thinking", "redacted_thinking", "tool_use"},
}
_RESULT_BLOCKS = {"text", "image", "document", "search_result"}
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_EFFORTS = {"low", "medium", "high", "xhigh", "max"}
_STATUSES = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What one model takes and refuses."""

    id: str
    name: str
    context_tokens: int = 1_000_000
    max_tokens: int = 128_000
    min_cache_tokens: int = 1_024
    has_effort: bool = True
    has_prefill: bool = False
    has_forced_tool_choice: bool = True
    thinking: frozenset[str] = frozenset({"disabled", "enabled", "adaptive"})


_HAIKU_4_5 = ModelFacts(
    id="claude-haiku-4-5-20251001",
    name="Claude Haiku 4.5",
    context_tokens=200_000,
    max_tokens=64_000,
    min_cache_tokens=4_096,
    has_effort=False,
    has_prefill=True,
    thinking=frozenset({"disabled", "enabled"}),
)
_SONNET_4_6 = ModelFacts(id="claude-sonnet-4-6", name="Claude Sonnet 4.6")
_OPUS_4_6 = ModelFacts(id="claude-opus-4-6", name="Claude Opus 4.6", min_cache_tokens=4_096)
_HAIKU_5_5 = ModelFacts(
    id="claude-haiku-5-5",
    name="Claude Haiku 5.5",
    min_cache_tokens=512,
    has_forced_tool_choice=False,
    thinking=frozenset({"adaptive"}),
)
_SONNET_5_5 = replace(
    _HAIKU_5_5,
    id="claude-sonnet-5-5",
    name="Claude Sonnet 5.5",
    thinking=frozenset({"adaptive", "between_tools"}),
)
_OPUS_5_5 = replace(_HAIKU_5_5, id="claude-opus-5-5", name="Claude Opus 5.5")

_LISTED = (_OPUS_5_5, _SONNET_5_5, _HAIKU_5_5, _OPUS_4_6, _SONNET_4_6, _HAIKU_4_5)
MODELS: Mapping[str, ModelFacts] = MappingProxyType(
    {model.id: model for model in _LISTED} | {"claude-haiku-4-5": _HAIKU_4_5}
)


# What a test reads and injects


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


@dataclass(frozen=True, slots=True)
class HttpError:
    """A refusal before anything is streamed; the headers tell the SDK whether and when to retry."""

    status: int
    type: str
    _: KW_ONLY
    retry_after_s: float | None = None
    retry_after_ms: int | None = None
    should_retry: bool | None = None
    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class StreamError:
    """An `error` event under status 200; without streaming, the status that belongs to `type`."""

    type: str = "overloaded_error"
    _: KW_ONLY
    after_deltas: int = 0
    once: asyncio.Event | None = None
    """The stream holds still before it breaks, until this is set."""
    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionDropped:
    """The connection is cut: before the headers when `after_deltas` is 0, else in mid-stream."""

    after_deltas: int = 0
    once: asyncio.Event | None = None
    """As in `StreamError`; in mid-stream only."""
    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsWithoutStop:
    """The stream ends cleanly, but without `message_stop`."""

    after_deltas: int = 0
    once: asyncio.Event | None = None
    """As in `StreamError`."""
    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlPage:
    """A gateway's page instead of an answer."""

    status: int = 200
    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """The stream holds still once `after_deltas` were sent, sets `reached`, awaits `release`."""

    after_deltas: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A pace of its own; `tokens_per_s` None means at once after the first token."""

    first_token_s: float = 0.0
    tokens_per_s: float | None = None
    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidToolJson:
    """The streamed input of tool uses is no JSON."""

    times: int = 1
    where: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvents:
    """Events, blocks and deltas of unknown types, and pings, between the known ones; harmless."""

    times: int = 1
    where: Where | None = None


FatalFault: TypeAlias = HttpError | HtmlPage | StreamError | ConnectionDropped | EndsWithoutStop
StreamFault: TypeAlias = StreamError | ConnectionDropped | EndsWithoutStop | Stalled
Fault: TypeAlias = FatalFault | Stalled | Slow | InvalidToolJson | UnknownEvents


class RefusedError(Exception):
    """A request is answered with an error of the API's shape.

    Attributes:
        status: The HTTP status.
        kind: The API's error type, such as `invalid_request_error`.
        headers: Sent with it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = headers or {}


# What is refused


def check_headers(headers: Mapping[str, str], *, api_key: str) -> None:
    """Facts 1 and 2: the key as a bearer token, and a version.

    Raises:
        RefusedError: one of them is missing or wrong.
    """
    if headers.get("authorization") != f"Bearer {api_key}":
        raise RefusedError("Invalid bearer token", status=401, kind="authentication_error")
    version = headers.get("anthropic-version")
    if version is None:
        raise RefusedError("anthropic-version: header is required")
    if version not in VERSIONS:
        raise RefusedError(f'anthropic-version: "{version}" is not a valid version')


def check_message_request(body: Body, *, version: str) -> ModelFacts:
    """The model that `body` asks for, once nothing is wrong with it (facts 2 to 15).

    Raises:
        RefusedError: the first thing that is wrong.
    """
    allows_sampling = version == SAMPLING_VERSION
    _check_keys(body, _MESSAGE_KEYS | (_SAMPLING_KEYS if allows_sampling else frozenset()))
    model = _check_prompt(body)
    max_tokens = body.get("max_tokens")
    if max_tokens is None:
        raise RefusedError("max_tokens: Field required")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 0:
        raise RefusedError("max_tokens: Input should be a valid integer, 0 or greater")
    if max_tokens > model.max_tokens:
        raise RefusedError(
            f"max_tokens: {max_tokens} > {model.max_tokens}, which is the maximum allowed number "
            f"of output tokens for {model.id}"
        )
    return model


def check_count_request(body: Body) -> ModelFacts:
    """The model that `body` of a count asks for; it is checked like a message, without its limits.

    Raises:
        RefusedError: the first thing that is wrong.
    """
    _check_keys(body, _COUNT_KEYS)
    return _check_prompt(body)


def find_model(model_id: Any) -> ModelFacts:
    """The model called `model_id`, by alias too.

    Raises:
        RefusedError: there is none.
    """
    if model_id is None:
        raise RefusedError("model: Field required")
    if model_id not in MODELS:
        raise RefusedError(f"model: {model_id}", status=404, kind="not_found_error")
    return MODELS[model_id]


def _check_prompt(body: Body) -> ModelFacts:
    model = find_model(body.get("model"))
    _check_tools(body.get("tools"))
    _check_tool_choice(body, model)
    _check_settings(body, model)
    _check_system(body.get("system"))
    _check_messages(body.get("messages"), model)
    _check_breakpoints(body)
    return model


def _check_keys(holder: Mapping[str, Any], allowed: frozenset[str], *, at: str = "") -> None:
    for key in holder:
        if key in _SAMPLING_KEYS - allowed and not at:
            raise RefusedError(f"{key}: not supported from API version 2026-10-21 on")
        if key not in allowed:
            raise RefusedError(f"{at}{key}: Extra inputs are not permitted")


def _check_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise RefusedError("tools: Input should be a valid list")
    names = set()
    for number, tool in enumerate(tools):
        at = f"tools.{number}.custom."
        if not isinstance(tool, dict) or tool.get("type", "custom") not in {"custom", None}:
            raise RefusedError(f"tools.{number}: only custom tools are offered here")
        _check_keys(tool, _TOOL_KEYS, at=at)
        name = tool.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            pattern = "^[a-zA-Z0-9_-]{1,128}$"
            raise RefusedError(f"{at}name: String should match pattern '{pattern}'")
        if name in names:
            raise RefusedError("tools: Tool names must be unique.")
        names.add(name)
        _check_schema(tool, at=at)


def _check_schema(tool: Mapping[str, Any], *, at: str) -> None:
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        raise RefusedError(f"{at}input_schema: Field required")
    if schema.get("type") != "object":
        raise RefusedError(f"{at}input_schema.type: Input should be 'object'")
    if tool.get("strict"):
        _check_strict(schema, at=at)


def _check_strict(schema: Mapping[str, Any], *, at: str) -> None:
    if schema.get("additionalProperties") is not False:
        raise RefusedError(
            f"{at}input_schema: For 'object' type, 'additionalProperties' must be explicitly set "
            "to false"
        )
    required = schema.get("required")
    if not isinstance(required, list) or not set(required) <= set(schema.get("properties") or {}):
        raise RefusedError(f"{at}input_schema: 'required' must list properties of the schema")


def _check_tool_choice(body: Body, model: ModelFacts) -> None:
    choice = body.get("tool_choice")
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in {"auto", "any", "tool", "none"}:
        raise RefusedError("tool_choice: Input should be one of 'auto', 'any', 'tool', 'none'")
    if not body.get("tools"):
        raise RefusedError("tool_choice: tool_choice may only be specified while providing tools.")
    if kind in {"any", "tool"} and not model.has_forced_tool_choice:
        raise RefusedError(f"tool_choice: a forced tool choice is not supported by {model.id}")
    if kind == "tool" and choice.get("name") not in {tool["name"] for tool in body["tools"]}:
        raise RefusedError(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")


def _check_settings(body: Body, model: ModelFacts) -> None:
    output = body.get("output_config") or {}
    _check_keys(output, frozenset({"effort", "format"}), at="output_config.")
    effort = output.get("effort")
    if effort is not None and not model.has_effort:
        raise RefusedError("This model does not support the effort parameter.")
    if effort is not None and effort not in _EFFORTS:
        raise RefusedError(f"output_config.effort: Input should be one of {sorted(_EFFORTS)}")
    thinking = body.get("thinking")
    if thinking is not None and thinking.get("type") not in model.thinking:
        raise RefusedError(
            f"thinking: type {thinking.get('type')!r} is not supported by {model.id}"
        )


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise RefusedError("system: Input should be a valid list")
    for number, block in enumerate(system):
        at = f"system.{number}."
        if not isinstance(block, dict) or block.get("type") != "text":
            raise RefusedError(f"{at}type: Input should be 'text'")
        _check_block(block, at=at)


def _check_messages(messages: Any, model: ModelFacts) -> None:
    if not isinstance(messages, list) or not messages:
        raise RefusedError("messages: at least one message is required")
    for number, message in enumerate(messages):
        _check_message(message, at=f"messages.{number}.", is_last=number == len(messages) - 1)
    if messages[0]["role"] != "user":
        raise RefusedError('messages: first message must use the "user" role')
    _check_tool_uses(messages)
    if messages[-1]["role"] == "assistant":
        _check_prefill(messages[-1], model)


def _check_message(message: Any, *, at: str, is_last: bool) -> None:
    if not isinstance(message, dict):
        raise RefusedError(f"{at[:-1]}: Input should be an object")
    _check_keys(message, frozenset({"role", "content"}), at=at)
    role = message.get("role")
    if role not in _ROLE_BLOCKS:
        raise RefusedError(f"{at}role: Input should be 'user' or 'assistant'")
    content = message.get("content")
    if not isinstance(content, str | list):
        raise RefusedError(f"{at}content: Input should be a valid string or list")
    if not content and not (is_last and role == "assistant"):
        raise RefusedError(
            f"{at[:-1]}: all messages must have non-empty content except for the optional final "
            "assistant message"
        )
    for number, block in enumerate(content_blocks(content)):
        block_at = f"{at}content.{number}."
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _BLOCK_KEYS:
            raise RefusedError(
                f"{block_at}type: Input tag {kind!r} does not match any of the expected tags: "
                f"{', '.join(sorted(_BLOCK_KEYS))}"
            )
        if kind not in _ROLE_BLOCKS[role]:
            raise RefusedError(f"{block_at}type: `{kind}` blocks cannot be in `{role}` messages")
        if role == "user" and block.get("citations") and kind == "text":
            raise RefusedError(f"{block_at}citations: not permitted in `user` messages")
        _check_block(block, at=block_at)


def _check_block(block: Mapping[str, Any], *, at: str) -> None:
    kind = block["type"]
    _check_keys(block, frozenset(_BLOCK_KEYS[kind] | {"type"}), at=f"{at}{kind}.")
    match kind:
        case "text":
            _check_text(block, at=at)
        case "tool_use":
            if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
                raise RefusedError(f"{at}tool_use: `id` and `name` are required")
            if not isinstance(block.get("input"), dict):
                raise RefusedError(f"{at}tool_use.input: Input should be a valid dictionary")
        case "tool_result":
            _check_result(block, at=at)


def _check_text(block: Mapping[str, Any], *, at: str) -> None:
    words = block.get("text")
    if not isinstance(words, str):
        raise RefusedError(f"{at}text.text: Input should be a valid string")
    if not words and block.get("cache_control"):
        raise RefusedError(f"{at}cache_control: cannot be set for empty text blocks")
    if not words:
        raise RefusedError(f"{at}text: text content blocks must be non-empty")
    if not words.strip():
        raise RefusedError(f"{at}text: text content blocks must contain non-whitespace text")


def _check_result(block: Mapping[str, Any], *, at: str) -> None:
    if not isinstance(block.get("tool_use_id"), str):
        raise RefusedError(f"{at}tool_result.tool_use_id: Field required")
    content = block.get("content", "")
    if not isinstance(content, str | list):
        raise RefusedError(f"{at}tool_result.content: Input should be a valid string or list")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict) or part.get("type") not in _RESULT_BLOCKS:
            raise RefusedError(f"{at}tool_result.content: Input should be text, image or document")
        _check_block(part, at=f"{at}tool_result.content.")


def _check_tool_uses(messages: Sequence[Mapping[str, Any]]) -> None:
    asked: list[str] = []
    seen: set[str] = set()
    for number, message in enumerate(messages):
        blocks = content_blocks(message["content"])
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        leading = [
            block["tool_use_id"]
            for block in blocks[: len(results)]
            if block["type"] == "tool_result"
        ]
        _check_answered(asked, leading, at=number - 1)
        for tool_use_id in results:
            if tool_use_id not in asked:
                raise RefusedError(
                    f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{tool_use_id}. Each `tool_result` block must have a corresponding `tool_use` "
                    "block in the previous message."
                )
        if len(set(results)) < len(results):
            raise RefusedError(
                f"messages.{number}: each tool_use must have a single result. Found multiple "
                "`tool_result` blocks with one id."
            )
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(asked)) < len(asked) or seen.intersection(asked):
            raise RefusedError(f"messages.{number}: `tool_use` ids must be unique")
        seen.update(asked)
    _check_answered(asked, [], at=len(messages) - 1)


def _check_answered(asked: Sequence[str], answered: Sequence[str], *, at: int) -> None:
    missing = [tool_use_id for tool_use_id in asked if tool_use_id not in answered]
    if missing:
        raise RefusedError(
            f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately "
            f"after: {', '.join(missing)}. Each `tool_use` block must have a corresponding "
            "`tool_result` block at the start of the next message."
        )


def _check_prefill(message: Mapping[str, Any], model: ModelFacts) -> None:
    if not model.has_prefill:
        raise RefusedError(
            "This model does not support assistant message prefill. The conversation must end with "
            "a user message."
        )
    blocks = content_blocks(message["content"])
    if (
        blocks
        and blocks[-1]["type"] == "text"
        and blocks[-1]["text"] != blocks[-1]["text"].rstrip()
    ):
        raise RefusedError("messages: final assistant content cannot end with trailing whitespace")


def _check_breakpoints(body: Body) -> None:
    for control in _cache_controls(body):
        if not isinstance(control, dict) or control.get("type") != "ephemeral":
            raise RefusedError("cache_control.type: Input should be 'ephemeral'")
        if control.get("ttl", "5m") not in {"5m", "1h"}:
            raise RefusedError("cache_control.ttl: Input should be '5m' or '1h'")
    ttls = list_breakpoints(body)
    if len(ttls) > MAX_BREAKPOINTS:
        raise RefusedError(
            f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {len(ttls)}."
        )
    if "5m" in ttls and "1h" in ttls[ttls.index("5m") :]:
        raise RefusedError(
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block"
        )


def _cache_controls(body: Body) -> Iterator[Any]:
    holders = [body, *(body.get("tools") or ()), *content_blocks(body.get("system"))]
    for message in body["messages"]:
        holders += content_blocks(message["content"])
    return (holder["cache_control"] for holder in holders if holder.get("cache_control"))


# How a reply goes over the wire


@dataclass(frozen=True, slots=True, kw_only=True)
class _WireBlock:
    kind: Literal["text", "tool_use"]
    whole: Mapping[str, Any]
    """The block as a message that is not streamed holds it."""
    deltas: Sequence[str]

    @property
    def opening(self) -> Mapping[str, Any]:
        return {**self.whole, "text": ""} if self.kind == "text" else {**self.whole, "input": {}}

    @property
    def delta_type(self) -> str:
        return "text_delta" if self.kind == "text" else "input_json_delta"

    @property
    def delta_key(self) -> str:
        return "text" if self.kind == "text" else "partial_json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _WireMessage:
    """A reply cut to `max_tokens`, and what the API says about it."""

    id: str
    model: str
    blocks: Sequence[_WireBlock]
    stop_reason: StopReason
    usage: Mapping[str, Any]

    @property
    def output_tokens(self) -> int:
        return sum(len(block.deltas) for block in self.blocks)

    def build_start(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": {**self.usage, "output_tokens": 1},
        }

    def build_end(self) -> dict[str, Any]:
        refusal = {"type": "refusal", "category": None, "explanation": None}
        return {
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "stop_details": refusal if self.stop_reason == "refusal" else None,
        }


def _write_message(
    reply: Reply, *, model: ModelFacts, max_tokens: int, charge: Charge, breaks_json: bool
) -> _WireMessage:
    blocks: list[_WireBlock] = []
    room = max_tokens
    was_cut = False
    for block in reply.blocks:
        deltas = _split(_wire_text(block, breaks_json=breaks_json))
        was_cut = len(deltas) > room
        if room or not was_cut:
            blocks.append(_wire_block(block, deltas[:room]))
        room -= len(deltas)
        if was_cut:
            break
    calls = any(isinstance(block, ToolUseBlock) for block in reply.blocks)
    stop_reason = reply.stop_reason or ("tool_use" if calls else "end_turn")
    message = _WireMessage(
        id=f"msg_{uuid4().hex}",
        model=model.id,
        blocks=blocks,
        stop_reason="max_tokens" if was_cut or not max_tokens else stop_reason,
        usage=charge.usage,
    )
    return replace(message, usage={**charge.usage, "output_tokens": message.output_tokens})


def _wire_text(block: TextBlock | ToolUseBlock, *, breaks_json: bool) -> str:
    if isinstance(block, TextBlock):
        return block.text
    return "{no json" if breaks_json else json.dumps(block.input)


def _split(words: str) -> list[str]:
    """`words` as deltas of one token each."""
    return [words[at : at + CHARS_PER_TOKEN] for at in range(0, len(words), CHARS_PER_TOKEN)]


def _wire_block(block: TextBlock | ToolUseBlock, deltas: Sequence[str]) -> _WireBlock:
    words = "".join(deltas)
    if isinstance(block, TextBlock):
        whole: dict[str, Any] = {"type": "text", "text": words}
        return _WireBlock(kind="text", whole=whole, deltas=deltas)
    is_whole = words == json.dumps(block.input)
    whole = {
        "type": "tool_use",
        "id": f"toolu_{uuid4().hex}",
        "name": block.name,
        "input": block.input if is_whole else {},
    }
    return _WireBlock(kind="tool_use", whole=whole, deltas=deltas)


@dataclass(frozen=True, slots=True)
class _Frame:
    data: bytes
    is_delta: bool = False


def _event(payload: Mapping[str, Any]) -> bytes:
    body = json.dumps(payload, separators=(",", ":"))
    return f"event: {payload['type']}\ndata: {body}\n\n".encode()


_PING = _Frame(_event({"type": "ping"}))


def _body_frames(message: _WireMessage, *, adds_unknown: bool) -> Iterator[_Frame]:
    """The events of `message` up to its last block's end."""
    yield _Frame(_event({"type": "message_start", "message": message.build_start()}))
    yield _PING
    if adds_unknown:
        yield from _unknown_block()
    for index, block in enumerate(message.blocks, start=1 if adds_unknown else 0):
        at = {"index": index}
        start = {"type": "content_block_start", **at, "content_block": block.opening}
        yield _Frame(_event(start))
        if adds_unknown:
            sparkle = {"type": "sparkle_delta", "sparkle": "*"}
            yield _Frame(_event({"type": "content_block_delta", **at, "delta": sparkle}))
            yield _Frame(_event({"type": "weather_report", "sky": "clear"}))
            yield _PING
        # Written out by hand: a long answer is thousands of these.
        opening = (
            f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
            f'"delta":{{"type":"{block.delta_type}","{block.delta_key}":'
        )
        for delta in block.deltas:
            yield _Frame(f"{opening}{json.dumps(delta)}}}}}\n\n".encode(), is_delta=True)
        yield _Frame(_event({"type": "content_block_stop", **at}))


def _unknown_block() -> Iterator[_Frame]:
    block = {"type": "hologram", "shape": "cube"}
    yield _Frame(_event({"type": "content_block_start", "index": 0, "content_block": block}))
    yield _Frame(_event({"type": "content_block_stop", "index": 0}))


def _end_frame(message: _WireMessage) -> _Frame:
    end = {"type": "message_delta", "delta": message.build_end(), "usage": message.usage}
    return _Frame(_event(end) + _event({"type": "message_stop"}))


class _Wire:
    """Events on their way to one client, gathered into few writes."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._waiting = bytearray()

    async def send(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= FLUSH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            await self._response.write(waiting)


@dataclass(frozen=True, slots=True)
class _Pace:
    first_token_s: float
    tokens_per_s: float | None

    @property
    def is_instant(self) -> bool:
        return not self.first_token_s and self.tokens_per_s is None

    def due_s(self, token: int) -> float:
        """Seconds from the start of the stream to `token`, counted from 0."""
        return self.first_token_s + (token / self.tokens_per_s if self.tokens_per_s else 0.0)


# The server


class LocalClaude:
    """The running stand-in; open one with `open_local_claude`."""

    def __init__(
        self, *, api_key: str, pace: tuple[float, float | None], cache: PromptCache, mind: Mind
    ) -> None:
        self.url = ""
        self.api_key = api_key
        self.requests: list[ClaudeRequest] = []
        """Every `POST /v1/messages`, refused ones too, in the order of arrival."""
        self._pace = _Pace(*pace)
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
        _check_context(prefixes[-1].tokens, model)
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
        message = _write_message(
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
        self, request: web.Request, number: int, message: _WireMessage, fault: Fault | None
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
        self, request: web.Request, number: int, message: _WireMessage, fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "request-id": request[_REQUEST_ID],
            }
        )
        await response.prepare(request)
        wire = _Wire(response)
        pace = self._pace_for(fault)
        strikes = fault if isinstance(fault, StreamFault) else None
        started = time.monotonic()
        sent = 0
        for frame in _body_frames(message, adds_unknown=isinstance(fault, UnknownEvents)):
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
        await wire.send(_end_frame(message).data)
        await wire.flush()
        await response.write_eof()
        self._note(number, usage=message.usage)
        return response

    async def _survives(
        self, fault: StreamFault, wire: _Wire, request: web.Request, number: int
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
                await wire.send(_event(error))
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

    def _pace_for(self, fault: Fault | None) -> _Pace:
        if isinstance(fault, Slow):
            return _Pace(fault.first_token_s, fault.tokens_per_s)
        return self._pace

    async def _count_tokens(self, request: web.Request) -> web.Response:
        check_headers(_lower_names(request), api_key=self.api_key)
        body = _parse_body(await request.read())
        model = check_count_request(body)
        return web.json_response({"input_tokens": read_prefixes(body, model=model.id)[-1].tokens})

    async def _list_models(self, request: web.Request) -> web.Response:
        check_headers(_lower_names(request), api_key=self.api_key)
        models = [_build_model(model) for model in _LISTED]
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


def _check_context(tokens: int, model: ModelFacts) -> None:
    if tokens > model.context_tokens:
        raise RefusedError(f"prompt is too long: {tokens} tokens > {model.context_tokens} maximum")


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
