"""A turn and what it posts, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from slackbot.domain.conversation import ConversationKey, Place
from slackbot.domain.rights import Rights

ContentBlock: TypeAlias = Mapping[str, Any]
MAX_ATTEMPTS = 3


class TurnState(StrEnum):
    """Where a turn stands. Only `RUNNING` and `WRITTEN` turns are taken up again at a start."""

    RUNNING = "running"
    WRITTEN = "written"
    DONE = "done"
    SUPERSEDED = "superseded"
    UNDELIVERABLE = "undeliverable"


class Ending(StrEnum):
    """How an answer ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    APOLOGY = "apology"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedMessage:
    """A Slack message of a turn. `ts` is None while only the intention to post is on record."""

    part: int
    ts: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A turn as the store has it.

    `asked_ts` is the ts of its first question and `asker` who wrote it; `has_reaction` whether a
    reaction on that message was, or was about to be, added; `is_stopped` whether somebody asked
    ShopMate to be quiet while it ran.
    """

    id: int
    conversation: ConversationKey
    place: Place
    state: TurnState
    attempts: int
    rights: Rights
    asker: str
    asked_ts: str
    heard_at: datetime
    final_text: str | None
    posts: tuple[PostedMessage, ...] = ()
    has_reaction: bool = False
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """One message of the Messages API: who says it, and its content blocks."""

    role: str
    content: Sequence[ContentBlock]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTurn:
    """What a turn left in the history, its first message the people's own words.

    `chars` is the size of all messages as JSON.
    """

    number: int
    rights: Rights
    chars: int
    finished_at: datetime | None
    messages: tuple[HistoryMessage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUsage:
    """What one request to Claude cost. Tokens of input are counted once, by how they are priced."""

    model: str
    input_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost_usd: float

    @property
    def all_input_tokens(self) -> int:
        """The size of everything Claude was given."""
        return (
            self.input_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
            + self.cache_read_tokens
        )
