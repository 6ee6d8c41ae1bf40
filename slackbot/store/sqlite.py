"""The store in one SQLite file: each method is one piece of work for the database's thread."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlite_utils import Database

from slackbot.domain.conversation import ChannelKind, ConversationKey, Place
from slackbot.domain.messages import HeardDeletion, HeardEdit, HeardMessage
from slackbot.domain.orders import Order
from slackbot.domain.turns import StepUsage, Turn, TurnState
from slackbot.store import inbox, shop, turnlog
from slackbot.store.base import (
    Answer,
    BegunTurn,
    Conversation,
    Escalation,
    ImportCounts,
    NewTurn,
    Recorded,
)
from slackbot.store.rows import to_time
from slackbot.store.thread import DatabaseThread


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class SqliteStore:
    """Every method returns once what it changed is on disk, and raises StoreError if it is not."""

    def __init__(self, thread: DatabaseThread, now: Callable[[], datetime]) -> None:
        self._thread = thread
        self._now = now

    async def record_message(self, message: HeardMessage) -> Recorded:
        """Records a message unless it is known or not for ShopMate."""
        return await self._thread.run(
            partial(inbox.record_message, message=message, now=self._now())
        )

    async def record_edit(self, edit: HeardEdit) -> Recorded:
        """Takes a changed text over."""
        return await self._thread.run(partial(inbox.record_edit, edit=edit, now=self._now()))

    async def record_deletion(self, deletion: HeardDeletion) -> Recorded:
        """Replaces a deleted message's text wherever it is kept."""
        return await self._thread.run(partial(inbox.record_deletion, deletion=deletion))

    async def record_context(self, key: ConversationKey, messages: Sequence[HeardMessage]) -> None:
        """Keeps what people wrote in the thread before ShopMate was asked; once."""
        work = partial(inbox.record_context, key=key, messages=list(messages), now=self._now())
        await self._thread.run(work)

    async def load_conversation(self, key: ConversationKey) -> Conversation:
        """The conversation, empty where nothing was recorded."""
        found = await self._thread.run(partial(turnlog.load_conversation, key=key))
        return found or turnlog.empty_conversation(key, Place(ChannelKind.IM, is_shared=False))

    async def begin_turn(self, new: NewTurn) -> BegunTurn | None:
        """The turn, on record as running; None if one of its messages has changed meanwhile."""
        try:
            return await self._thread.run(partial(turnlog.begin_turn, new=new, now=self._now()))
        except turnlog.StaleTurnError:
            return None

    async def load_turn(self, turn_id: int) -> Turn:
        """The turn as it stands."""
        return await self._thread.run(partial(turnlog.load_turn, turn_id=turn_id))

    async def save_usage(self, turn_id: int, usage: Sequence[StepUsage]) -> None:
        """Records what a turn cost that leaves no answer."""
        work = partial(turnlog.save_usage, turn_id=turn_id, usage=usage, now=self._now())
        await self._thread.run(work)

    async def resume_turn(self, turn_id: int) -> BegunTurn:
        """A turn that was running, with one attempt more."""
        return await self._thread.run(partial(turnlog.resume_turn, turn_id=turn_id))

    async def save_answer(self, turn_id: int, answer: Answer) -> None:
        """Commits the answer before it is delivered."""
        work = partial(turnlog.save_answer, turn_id=turn_id, answer=answer, now=self._now())
        await self._thread.run(work)

    async def close_turn(self, turn_id: int, state: TurnState) -> None:
        """The turn is over."""
        work = partial(turnlog.close_turn, turn_id=turn_id, state=state, now=self._now())
        await self._thread.run(work)

    async def unfinished_turns(self) -> list[Turn]:
        """Turns that an earlier process left running or written, oldest first."""
        return await self._thread.run(turnlog.unfinished_turns)

    async def waiting_conversations(self) -> list[ConversationKey]:
        """Conversations with a question that no turn has taken."""
        return await self._thread.run(turnlog.waiting_conversations)

    async def intend_post(self, turn_id: int, part: str) -> None:
        """Commits the intention to post `part`, or does nothing if there is one."""
        work = partial(turnlog.intend_post, turn_id=turn_id, part=part, now=self._now())
        await self._thread.run(work)

    async def save_post(self, turn_id: int, part: str, ts: str) -> None:
        """Records that Slack has `part` as the message `ts`."""
        await self._thread.run(partial(turnlog.save_post, turn_id=turn_id, part=part, ts=ts))

    async def load_post(self, turn_id: int, part: str) -> tuple[bool, str | None]:
        """Whether there is an intention to post `part`, and its ts once known."""
        return await self._thread.run(partial(turnlog.load_post, turn_id=turn_id, part=part))

    async def forget_post(self, turn_id: int, part: str) -> None:
        """`part` is not in Slack any more."""
        await self._thread.run(partial(turnlog.forget_post, turn_id=turn_id, part=part))

    async def save_reaction(self, turn_id: int, *, is_there: bool) -> None:
        """Records that a reaction is about to be added, or is gone."""
        work = partial(turnlog.save_reaction, turn_id=turn_id, is_there=is_there)
        await self._thread.run(work)

    async def find_order(self, order_id: str) -> Order | None:
        """The order with this id, whatever the case of its letters."""
        return await self._thread.run(partial(shop.find_order, order_id=order_id))

    async def list_orders(self) -> list[Order]:
        """Every order, by id."""
        return await self._thread.run(shop.list_orders)

    async def has_sample_orders(self) -> bool:
        """Whether the orders a fresh database begins with are there."""
        return await self._thread.run(shop.has_sample_orders)

    async def import_orders(self, orders: Sequence[Order]) -> ImportCounts:
        """Adds and updates orders in one transaction; untouched samples go with the first."""
        return await self._thread.run(partial(shop.import_orders, orders=orders))

    async def record_escalation(self, escalation: Escalation) -> None:
        """Records it; one that is known already stays as it is."""
        work = partial(shop.record_escalation, escalation=escalation, now=self._now())
        await self._thread.run(work)

    async def check_writable(self) -> None:
        """Commits a write."""
        at = to_time(self._now())

        def beat(db: Database) -> None:
            db.execute("insert or replace into heartbeat (id, at) values (1, ?)", (at,))

        await self._thread.run(beat)


@asynccontextmanager
async def open_sqlite_store(
    path: Path, *, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[SqliteStore]:
    """The store in the file `path`, which is made where it is missing.

    Raises:
        StoreError: the file cannot be opened, or is no database.
    """
    thread = DatabaseThread(path)
    try:
        await thread.start()
        yield SqliteStore(thread, now)
    finally:
        await thread.stop()
