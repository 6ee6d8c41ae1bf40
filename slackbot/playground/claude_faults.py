"""Ways in which a request to Claude can go wrong, to be injected by tests."""

import asyncio
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeAlias

from slackbot.playground.claude_mind import Body

Where: TypeAlias = Callable[[Body], bool]


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
