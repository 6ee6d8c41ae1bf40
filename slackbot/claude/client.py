"""The one client for Claude: a step is one streamed request of the Messages API."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx2
from anthropic import AsyncAnthropic, DefaultAioHttpClient
from anthropic.types import Message

from slackbot.claude.errors import STREAM_ERRORS, translate_error
from slackbot.claude.models import find_model
from slackbot.claude.usage import measure_usage
from slackbot.domain.turns import ContentBlock, StepUsage
from slackbot.errors import ClaudeInterruptedError, ClaudeRejectedError

MAX_RETRIES = 4  # before the first byte; the SDK's own, with its backoff
RETRY_AFTER_CAP_S = 20  # the SDK obeys any number: hours, if a gateway says so
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60  # between two chunks; the API sends pings meanwhile
POOL_TIMEOUT_S = 10
_KNOWN_BLOCKS = frozenset({"redacted_thinking", "thinking", "tool_use"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """What one request asks. Dicts are as the Messages API has them."""

    model: str
    effort: str
    max_tokens: int
    system: Sequence[ContentBlock]
    tools: Sequence[ContentBlock]
    messages: Sequence[ContentBlock]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What Claude answered: content blocks that may be sent back as they are."""

    content: tuple[ContentBlock, ...]
    stop_reason: str
    usage: StepUsage
    request_id: str | None

    @property
    def text(self) -> str:
        """All text of the step."""
        return "".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def tool_uses(self) -> tuple[ContentBlock, ...]:
        """The tool uses of the step, in order."""
        return tuple(block for block in self.content if block["type"] == "tool_use")


StepPiece: TypeAlias = str | Step


class Claude:
    """Claude behind the SDK's client."""

    def __init__(self, client: AsyncAnthropic) -> None:
        self._client = client

    async def stream_step(self, request: StepRequest) -> AsyncGenerator[StepPiece, None]:
        """The pieces of the text as they come, then the whole step.

        Raises:
            ClaudeError: there is no step. ClaudeInterruptedError: some text came before.
        """
        try:
            async with self._client.messages.stream(**_build_params(request)) as stream:
                async for event in stream:
                    if event.type == "text" and event.text:
                        yield event.text
                message = await stream.get_final_message()
                request_id = stream.request_id
        except STREAM_ERRORS as error:
            raise translate_error(error) from error
        yield _parse_step(request.model, message, request_id)

    async def check_model(self, model_id: str) -> None:
        """Returns if the key is accepted and the model exists.

        Raises:
            ClaudeError: one of them is not so, or Claude cannot be reached.
        """
        try:
            await self._client.models.retrieve(model_id)
        except STREAM_ERRORS as error:
            raise translate_error(error) from error


def _parse_step(model_id: str, message: Message, request_id: str | None) -> Step:
    if not isinstance(message, Message):  # a gateway's page with status 200
        raise ClaudeRejectedError("the answer is not a message")
    if message.stop_reason is None:
        raise ClaudeInterruptedError("the stream ended without a stop reason")
    blocks = [block.to_dict(mode="json") for block in message.content]
    return Step(
        content=tuple(block for block in blocks if _may_come_back(block)),
        stop_reason=message.stop_reason,
        usage=measure_usage(find_model(model_id), message.usage),
        request_id=request_id,
    )


def _may_come_back(block: ContentBlock) -> bool:
    # The API refuses empty text blocks when they come back to it, and types it does not know: one
    # of them in the history, and every later turn of the conversation fails.
    if block["type"] == "text":
        return bool(str(block["text"] or "").strip())
    return block["type"] in _KNOWN_BLOCKS


def _build_params(request: StepRequest) -> dict[str, Any]:
    params: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "system": list(request.system),
        "messages": list(request.messages),
    }
    if request.tools:
        params["tools"] = list(request.tools)
    if find_model(request.model).has_effort:
        params["output_config"] = {"effort": request.effort}
    return params


@asynccontextmanager
async def open_claude(
    *,
    api_key: str,
    base_url: str,
    retry_after_cap_s: float = RETRY_AFTER_CAP_S,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> AsyncIterator[Claude]:
    """The client, closed with the context."""
    caps = {"retry-after": retry_after_cap_s, "retry-after-ms": retry_after_cap_s * 1_000}

    async def cap_retry_after(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        headers = response.http_response.headers
        for name, cap in caps.items():
            if _number(headers.get(name)) > cap:
                headers[name] = str(cap)
        return response

    timeout = httpx2.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S, pool=POOL_TIMEOUT_S)
    async with AsyncAnthropic(
        # A local server takes any key, but the SDK refuses to call without one.
        api_key=api_key or "none",
        base_url=base_url,
        max_retries=MAX_RETRIES,
        timeout=timeout,
        # A third cheaper in CPU than the default transport, and aiohttp is here anyway.
        http_client=DefaultAioHttpClient(timeout=timeout),
        middleware=[cap_retry_after],
    ) as client:
        yield Claude(client)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # an HTTP date: far off, unless proven otherwise
        return float("inf")
