"""Messages and turns as the store is given them, with keyword overrides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from slackbot.domain.conversation import ChannelKind, ConversationKey, Place
from slackbot.domain.messages import HeardDeletion, HeardEdit, HeardMessage, MessageKind, said_text
from slackbot.domain.rights import AllOrders, Rights
from slackbot.domain.turns import Ending, HistoryMessage, StepUsage, Turn, TurnState
from slackbot.store.base import Answer, Conversation, NewTurn, Store, ToldMessage

TEAM = "T1"
CHANNEL = "C1"
DM = "D1"
JO, KIT = "U1", "U2"
IN_CHANNEL = Place(ChannelKind.CHANNEL, is_shared=False)
IN_DM = Place(ChannelKind.IM, is_shared=False)
BEGINNING = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PREAMBLE = "[Monday]"


@dataclass
class Clock:
    """A clock that goes on when it is told to."""

    now: datetime = field(default=BEGINNING)

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, span: timedelta) -> None:
        self.now += span


def ts(seconds: float) -> str:
    """The ts of a message `seconds` after the beginning."""
    return f"{BEGINNING.timestamp() + seconds:.6f}"


def said(
    text: str,
    *,
    at: float = 0,
    by: str = JO,
    thread: float | None = None,
    mention: bool = False,
    files: int = 0,
    mentions: tuple[str, ...] = (),
) -> HeardMessage:
    """What somebody says in a channel."""
    return HeardMessage(
        team=TEAM,
        channel=CHANNEL,
        ts=ts(at),
        thread_ts=None if thread is None else ts(thread),
        author=by,
        author_team=TEAM,
        place=IN_CHANNEL,
        text=text,
        mentions=mentions,
        mentions_shopmate=mention,
        file_count=files,
    )


def mentioned(
    text: str, *, at: float = 0, by: str = JO, thread: float | None = None, files: int = 0
) -> HeardMessage:
    """What somebody says to ShopMate in a channel."""
    return said(text, at=at, by=by, thread=thread, mention=True, files=files)


def direct(
    text: str, *, at: float = 0, thread: float | None = None, files: int = 0
) -> HeardMessage:
    """What Jo says in her DM."""
    return HeardMessage(
        team=TEAM,
        channel=DM,
        ts=ts(at),
        thread_ts=None if thread is None else ts(thread),
        author=JO,
        author_team=TEAM,
        place=IN_DM,
        text=text,
        file_count=files,
    )


def edited(message: HeardMessage, *, added_mention: bool = False) -> HeardEdit:
    """That a message now reads like `message`."""
    return HeardEdit(message, added_mention=added_mention)


def deleted(message: HeardMessage) -> HeardDeletion:
    """That `message` is gone."""
    return HeardDeletion(message.team, message.channel, message.ts)


def thread_of(seconds: float) -> ConversationKey:
    """The conversation in the thread below the message of that time."""
    return ConversationKey(TEAM, CHANNEL, ts(seconds))


def session_of(seconds: float) -> ConversationKey:
    """The conversation at the top level of Jo's DM that began at that time."""
    return ConversationKey(TEAM, DM, f"session:{ts(seconds)}")


def build_new_turn(
    conversation: Conversation, *, rights: Rights | None = None, history_from: int = 1
) -> NewTurn:
    """A turn with everything that waits in the conversation."""
    names = {JO: "Jo", KIT: "Kit"}
    return NewTurn(
        conversation=conversation.key,
        preamble=PREAMBLE,
        told=[
            ToldMessage(message=one, prefix=f"{names[one.author]}: ", text=said_text(one, names))
            for one in conversation.waiting
        ],
        rights=rights or AllOrders(),
        history_from=history_from,
    )


async def begin(
    store: Store, key: ConversationKey, *, rights: Rights | None = None, history_from: int = 1
) -> Turn:
    """A turn that has begun with everything that waits."""
    conversation = await store.load_conversation(key)
    new = build_new_turn(conversation, rights=rights, history_from=history_from)
    begun = await store.begin_turn(new)
    assert begun is not None
    return begun.turn


async def finish(store: Store, turn: Turn, text: str = "It is on its way.") -> None:
    """Has `turn` answered and delivered."""
    await store.save_answer(turn.id, build_answer(text))
    await store.close_turn(turn.id, TurnState.DONE)


def build_answer(text: str, *, usage: Sequence[StepUsage] = ()) -> Answer:
    """An answer of one step."""
    return Answer(
        text=text,
        ending=Ending.COMPLETE,
        messages=[HistoryMessage("assistant", [{"type": "text", "text": text}])],
        usage=usage,
    )


def build_usage(*, input_tokens: int = 10, output_tokens: int = 5) -> StepUsage:
    """What a step cost."""
    return StepUsage(
        model="claude-sonnet-4-6",
        input_tokens=input_tokens,
        cache_write_5m_tokens=100,
        cache_write_1h_tokens=20,
        cache_read_tokens=3,
        output_tokens=output_tokens,
        cost_usd=0.25,
    )


def waiting_texts(
    conversation: Conversation, kind: MessageKind = MessageKind.QUESTION
) -> list[str]:
    """The texts of what waits."""
    return [message.text for message in conversation.waiting if message.kind is kind]


def people_told(conversation: Conversation) -> list[list[str]]:
    """What Claude is told of the people's words, turn by turn, without the preamble."""
    first = [turn.messages[0] for turn in conversation.past]
    return [[block["text"] for block in message.content[1:]] for message in first]
