"""How a reply of the local stand-in for Claude goes over the wire: whole, or event by event."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import uuid4

from aiohttp import web

from slackbot.playground.claude_cache import CHARS_PER_TOKEN, Charge
from slackbot.playground.claude_mind import Reply, StopReason, TextBlock, ToolUseBlock
from slackbot.playground.claude_rules import ModelFacts

FLUSH_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WireBlock:
    """One block of a reply, whole and as the deltas of a stream."""

    kind: Literal["text", "tool_use"]
    whole: Mapping[str, Any]
    """The block as a message that is not streamed holds it."""
    deltas: Sequence[str]

    @property
    def opening(self) -> Mapping[str, Any]:
        """The block as `content_block_start` holds it: still empty."""
        return {**self.whole, "text": ""} if self.kind == "text" else {**self.whole, "input": {}}

    @property
    def delta_type(self) -> str:
        """The `type` of its deltas."""
        return "text_delta" if self.kind == "text" else "input_json_delta"

    @property
    def delta_key(self) -> str:
        """Where a delta has its words."""
        return "text" if self.kind == "text" else "partial_json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WireMessage:
    """A reply cut to `max_tokens`, and what the API says about it."""

    id: str
    model: str
    blocks: Sequence[WireBlock]
    stop_reason: StopReason
    usage: Mapping[str, Any]

    @property
    def output_tokens(self) -> int:
        """One for each delta."""
        return sum(len(block.deltas) for block in self.blocks)

    def build_start(self) -> dict[str, Any]:
        """The message as `message_start` holds it."""
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
        """How it ended, as `message_delta` says it."""
        refusal = {"type": "refusal", "category": None, "explanation": None}
        return {
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "stop_details": refusal if self.stop_reason == "refusal" else None,
        }


def write_message(
    reply: Reply, *, model: ModelFacts, max_tokens: int, charge: Charge, breaks_json: bool
) -> WireMessage:
    """`reply` as `model` sends it, cut to `max_tokens`; `charge` is what its prompt costs."""
    blocks: list[WireBlock] = []
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
    message = WireMessage(
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


def _wire_block(block: TextBlock | ToolUseBlock, deltas: Sequence[str]) -> WireBlock:
    words = "".join(deltas)
    if isinstance(block, TextBlock):
        whole: dict[str, Any] = {"type": "text", "text": words}
        return WireBlock(kind="text", whole=whole, deltas=deltas)
    is_whole = words == json.dumps(block.input)
    whole = {
        "type": "tool_use",
        "id": f"toolu_{uuid4().hex}",
        "name": block.name,
        "input": block.input if is_whole else {},
    }
    return WireBlock(kind="tool_use", whole=whole, deltas=deltas)


@dataclass(frozen=True, slots=True)
class Frame:
    """Some bytes of a stream: whole events, or one delta."""

    data: bytes
    is_delta: bool = False


def encode_event(payload: Mapping[str, Any]) -> bytes:
    """`payload` as one event of a stream, named by its `type`."""
    body = json.dumps(payload, separators=(",", ":"))
    return f"event: {payload['type']}\ndata: {body}\n\n".encode()


_PING = Frame(encode_event({"type": "ping"}))


def body_frames(message: WireMessage, *, adds_unknown: bool) -> Iterator[Frame]:
    """The events of `message` up to its last block's end."""
    yield Frame(encode_event({"type": "message_start", "message": message.build_start()}))
    yield _PING
    if adds_unknown:
        yield from _unknown_block()
    for index, block in enumerate(message.blocks, start=1 if adds_unknown else 0):
        at = {"index": index}
        start = {"type": "content_block_start", **at, "content_block": block.opening}
        yield Frame(encode_event(start))
        if adds_unknown:
            sparkle = {"type": "sparkle_delta", "sparkle": "*"}
            yield Frame(encode_event({"type": "content_block_delta", **at, "delta": sparkle}))
            yield Frame(encode_event({"type": "weather_report", "sky": "clear"}))
            yield _PING
        # Written out by hand: a long answer is thousands of these.
        opening = (
            f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
            f'"delta":{{"type":"{block.delta_type}","{block.delta_key}":'
        )
        for delta in block.deltas:
            yield Frame(f"{opening}{json.dumps(delta)}}}}}\n\n".encode(), is_delta=True)
        yield Frame(encode_event({"type": "content_block_stop", **at}))


def _unknown_block() -> Iterator[Frame]:
    block = {"type": "hologram", "shape": "cube"}
    yield Frame(encode_event({"type": "content_block_start", "index": 0, "content_block": block}))
    yield Frame(encode_event({"type": "content_block_stop", "index": 0}))


def end_frame(message: WireMessage) -> Frame:
    """The events of `message` behind its last block."""
    end = {"type": "message_delta", "delta": message.build_end(), "usage": message.usage}
    return Frame(encode_event(end) + encode_event({"type": "message_stop"}))


class Wire:
    """Events on their way to one client, gathered into few writes."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._waiting = bytearray()

    async def send(self, data: bytes) -> None:
        """Writes `data` soon: once `FLUSH_BYTES` have gathered, or with the next `flush`."""
        self._waiting += data
        if len(self._waiting) >= FLUSH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Writes all that has gathered."""
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            await self._response.write(waiting)


@dataclass(frozen=True, slots=True)
class Pace:
    """When a reply's tokens are due; `tokens_per_s` None means at once after the first."""

    first_token_s: float
    tokens_per_s: float | None

    @property
    def is_instant(self) -> bool:
        """Whether all tokens are due at once."""
        return not self.first_token_s and self.tokens_per_s is None

    def due_s(self, token: int) -> float:
        """Seconds from the start of the stream to `token`, counted from 0."""
        return self.first_token_s + (token / self.tokens_per_s if self.tokens_per_s else 0.0)
