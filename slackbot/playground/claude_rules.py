"""What the local stand-in for Claude refuses: headers, settings, tools, and histories.

The facts are numbered in `claude_server`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from slackbot.playground.claude_cache import content_blocks, list_breakpoints
from slackbot.playground.claude_mind import Body

MAX_BREAKPOINTS = 4
SAMPLING_VERSION = "2023-06-01"  # the last API version on which sampling parameters exist
VERSIONS = frozenset({SAMPLING_VERSION, "2026-10-21"})

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

LISTED_MODELS = (_OPUS_5_5, _SONNET_5_5, _HAIKU_5_5, _OPUS_4_6, _SONNET_4_6, _HAIKU_4_5)
MODELS: Mapping[str, ModelFacts] = MappingProxyType(
    {model.id: model for model in LISTED_MODELS} | {"claude-haiku-4-5": _HAIKU_4_5}
)


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


def check_context(tokens: int, model: ModelFacts) -> None:
    """Fact 17: a prompt of `tokens` is no longer than what `model` reads.

    Raises:
        RefusedError: it is longer.
    """
    if tokens > model.context_tokens:
        raise RefusedError(f"prompt is too long: {tokens} tokens > {model.context_tokens} maximum")


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
