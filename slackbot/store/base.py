"""What must survive a crash, as Protocols: each no bigger than what its callers use."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Protocol

from slackbot.domain.conversation import ConversationKey, Place
from slackbot.domain.messages import HeardDeletion, HeardEdit, HeardMessage, StoredMessage
from slackbot.domain.orders import Order
from slackbot.domain.rights import Rights
from slackbot.domain.turns import (
    ContentBlock,
    Ending,
    HistoryMessage,
    PastTurn,
    StepUsage,
    Turn,
    TurnState,
)


class Effect(StrEnum):
    """What a record asks of the turns of its conversation."""

    NOTHING = auto()
    WAKE = auto()
    STOP = auto()
    RESTART = auto()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of something heard. `conversation` is None when it left no row."""

    effect: Effect
    conversation: ConversationKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Everything the next turn of a conversation begins with.

    `waiting` are the messages no turn has taken yet, in Slack's order; `past` the turns from
    `history_from` on, oldest first. `needs_context` says that people began the thread without
    ShopMate and what they wrote has not been read yet.
    """

    key: ConversationKey
    place: Place
    needs_context: bool
    waiting: tuple[StoredMessage, ...]
    past: tuple[PastTurn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldMessage:
    """A message as Claude is told of it: `prefix` says whose it is, where that is not plain."""

    message: StoredMessage
    prefix: str
    text: str

    @property
    def block(self) -> ContentBlock:
        """The message as a content block."""
        return {"type": "text", "text": self.prefix + self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A turn about to begin: the messages it takes, after a `preamble` of ShopMate's own.

    History before the turn numbered `history_from` is not given to Claude any more.
    """

    conversation: ConversationKey
    preamble: str
    told: Sequence[ToldMessage]
    rights: Rights
    history_from: int

    @property
    def content(self) -> list[ContentBlock]:
        """The content blocks Claude is given: the preamble, then one for each message."""
        preamble = {"type": "text", "text": self.preamble}
        return [preamble, *(told.block for told in self.told)]


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """A turn on record as running, and what Claude is told of its messages."""

    turn: Turn
    content: Sequence[ContentBlock]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A turn's outcome: what people are told, and what it leaves in the history.

    `input_tokens` is the size of the last request, `usage` has an entry for each.
    """

    text: str
    ending: Ending
    messages: Sequence[HistoryMessage]
    usage: Sequence[StepUsage]

    @property
    def input_tokens(self) -> int:
        """The size of the last request."""
        return self.usage[-1].all_input_tokens if self.usage else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """A matter for the team. (turn, index) names it: the same one is recorded once."""

    turn_id: int
    index: int
    asker: str
    summary: str
    order_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What an import of orders changed."""

    added: int
    updated: int
    unchanged: int
    samples_removed: int


class Inbox(Protocol):
    """Where what was heard is recorded, once, durably."""

    async def record_message(self, message: HeardMessage) -> Recorded:
        """Records a message unless it is known or not for ShopMate."""
        ...

    async def record_edit(self, edit: HeardEdit) -> Recorded:
        """Takes a changed text over."""
        ...

    async def record_deletion(self, deletion: HeardDeletion) -> Recorded:
        """Replaces a deleted message's text wherever it is kept."""
        ...


class TurnLog(Protocol):
    """The turns of the conversations: what they begin with, where they stand, how they end."""

    async def load_conversation(self, key: ConversationKey) -> Conversation:
        """The conversation, empty where nothing was recorded."""
        ...

    async def record_context(self, key: ConversationKey, messages: Sequence[HeardMessage]) -> None:
        """Keeps what people wrote in the thread before ShopMate was asked; once."""
        ...

    async def begin_turn(self, new: NewTurn) -> BegunTurn | None:
        """The turn, on record as running; None if one of its messages has changed meanwhile."""
        ...

    async def load_turn(self, turn_id: int) -> Turn:
        """The turn as it stands."""
        ...

    async def save_usage(self, turn_id: int, usage: Sequence[StepUsage]) -> None:
        """Records what a turn cost that leaves no answer."""
        ...

    async def resume_turn(self, turn_id: int) -> BegunTurn:
        """A turn that was running, with one attempt more.

        Raises:
            TurnSupersededError: the turn was taken back.
        """
        ...

    async def save_answer(self, turn_id: int, answer: Answer) -> None:
        """Commits the answer before it is delivered: the turn is written.

        Raises:
            TurnSupersededError: the turn was taken back.
        """
        ...

    async def close_turn(self, turn_id: int, state: TurnState) -> None:
        """The turn is over."""
        ...

    async def unfinished_turns(self) -> list[Turn]:
        """Turns that an earlier process left running or written, oldest first."""
        ...

    async def waiting_conversations(self) -> list[ConversationKey]:
        """Conversations with a question that no turn has taken."""
        ...


class PostLog(Protocol):
    """What was posted, or was about to be, for a turn. Part numbers count from 0."""

    async def intend_post(self, turn_id: int, part: str) -> None:
        """Commits the intention to post `part`, or does nothing if there is one.

        Raises:
            TurnSupersededError: the turn was taken back.
        """
        ...

    async def save_post(self, turn_id: int, part: str, ts: str) -> None:
        """Records that Slack has `part` as the message `ts`."""
        ...

    async def load_post(self, turn_id: int, part: str) -> tuple[bool, str | None]:
        """Whether there is an intention to post `part`, and its ts once known."""
        ...

    async def forget_post(self, turn_id: int, part: str) -> None:
        """`part` is not in Slack any more."""
        ...

    async def save_reaction(self, turn_id: int, *, is_there: bool) -> None:
        """Records that a reaction is about to be added, or is gone."""
        ...


class OrderTable(Protocol):
    """The shop's orders."""

    async def find_order(self, order_id: str) -> Order | None:
        """The order with this id, whatever the case of its letters."""
        ...


class EscalationTable(Protocol):
    """What waits for the team."""

    async def record_escalation(self, escalation: Escalation) -> None:
        """Records it; one that is known already stays as it is."""
        ...


class Store(Inbox, TurnLog, PostLog, OrderTable, EscalationTable, Protocol):
    """Everything that is kept."""

    async def list_orders(self) -> list[Order]:
        """Every order, by id."""
        ...

    async def import_orders(self, orders: Sequence[Order]) -> ImportCounts:
        """Adds and updates orders in one transaction; untouched samples go with the first."""
        ...

    async def has_sample_orders(self) -> bool:
        """Whether the orders a fresh database begins with are there."""
        ...

    async def check_writable(self) -> None:
        """Commits a write.

        Raises:
            StoreError: the database cannot be written.
        """
        ...
