"""Turns, what they post and what they leave in the history, as rows."""

from collections.abc import Sequence
from datetime import datetime
from sqlite3 import Row

from sqlite_utils import Database

from slackbot.domain.conversation import ConversationKey, Place
from slackbot.domain.messages import MessageKind, StoredMessage, in_order
from slackbot.domain.turns import (
    HistoryMessage,
    PastTurn,
    PostedMessage,
    StepUsage,
    Turn,
    TurnState,
)
from slackbot.errors import TurnSupersededError
from slackbot.store.base import Answer, BegunTurn, Conversation, NewTurn
from slackbot.store.inbox import MAX_CONTEXT_MESSAGES
from slackbot.store.rows import (
    from_rights,
    from_time,
    parse_content,
    parse_key,
    parse_message,
    parse_place,
    parse_turn,
    to_json,
    to_rights,
    to_time,
)

_UNFINISHED = (TurnState.RUNNING, TurnState.WRITTEN)
_SELECT_TURN = (
    "select turns.*, team, channel, root, conversations.kind, is_shared from turns "
    "join conversations on conversations.id = turns.conversation_id"
)


class StaleTurnError(Exception):
    """A message changed between the reading and the beginning of a turn."""


def load_conversation(db: Database, key: ConversationKey) -> Conversation | None:
    """The conversation, or None where nothing of it was recorded."""
    row = db.execute(
        "select * from conversations where team = ? and channel = ? and root = ?",
        (key.team, key.channel, key.root),
    ).fetchone()
    if row is None:
        return None
    place = parse_place(row)
    waiting = db.execute(
        "select * from messages where conversation_id = ? and turn_id is null", (row["id"],)
    )
    return Conversation(
        key=key,
        place=place,
        needs_context=bool(row["needs_context"]),
        waiting=_newest(in_order([parse_message(message, place) for message in waiting])),
        past=_load_past(db, row["id"], row["history_from"]),
    )


def begin_turn(db: Database, new: NewTurn, now: datetime) -> BegunTurn:
    """The turn, on record as running.

    Raises:
        StaleTurnError: one of its messages is not any more what was read.
    """
    key = new.conversation
    conversation = db.execute(
        "update conversations set history_from = max(history_from, ?)"
        " where team = ? and channel = ? and root = ? returning *",
        (new.history_from, key.team, key.channel, key.root),
    ).fetchone()
    questions = [told.message for told in new.told if told.message.kind is MessageKind.QUESTION]
    turn_row = db.execute(
        "insert into turns (conversation_id, number, state, attempts, rights, asker, asked_ts,"
        " heard_at, started_at) values (?, (select coalesce(max(number), 0) + 1 from turns"
        " where conversation_id = ?), ?, 1, ?, ?, ?, ?, ?) returning id",
        (
            conversation["id"],
            conversation["id"],
            TurnState.RUNNING,
            to_rights(new.rights),
            questions[0].author,
            questions[0].ts,
            to_time(min(message.heard_at for message in questions)),
            to_time(now),
        ),
    ).fetchone()
    _take_messages(db, new, turn_row["id"])
    _pass_over_older(db, new, conversation["id"], turn_row["id"])
    content = new.content
    _insert_history(db, turn_row["id"], 0, HistoryMessage("user", content))
    return BegunTurn(load_turn(db, turn_row["id"]), content)


def resume_turn(db: Database, turn_id: int) -> BegunTurn:
    """A turn that was running, with one attempt more.

    Raises:
        TurnSupersededError: the turn was taken back.
    """
    resumed = db.execute(
        "update turns set attempts = attempts + 1 where id = ? and state = ? returning id",
        (turn_id, TurnState.RUNNING),
    ).fetchone()
    if resumed is None:
        raise TurnSupersededError(turn_id)
    history = db.execute(
        "select content from history where turn_id = ? and position = 0", (turn_id,)
    ).fetchone()
    return BegunTurn(load_turn(db, turn_id), parse_content(history["content"]))


def save_answer(db: Database, turn_id: int, answer: Answer, now: datetime) -> None:
    """The turn is written.

    Raises:
        TurnSupersededError: the turn was taken back.
    """
    written = db.execute(
        "update turns set state = ?, final_text = ?, ending = ?, input_tokens = ?"
        " where id = ? and state = ? returning id",
        (
            TurnState.WRITTEN,
            answer.text,
            answer.ending,
            answer.input_tokens,
            turn_id,
            TurnState.RUNNING,
        ),
    ).fetchone()
    if written is None:
        raise TurnSupersededError(turn_id)
    for position, message in enumerate(answer.messages, start=1):
        _insert_history(db, turn_id, position, message)
    save_usage(db, turn_id, answer.usage, now)


def close_turn(db: Database, turn_id: int, state: TurnState, now: datetime) -> None:
    """The turn is over."""
    db.execute(
        "update turns set state = ?, finished_at = ? where id = ?", (state, to_time(now), turn_id)
    )


def unfinished_turns(db: Database) -> list[Turn]:
    """Turns left running or written, oldest first."""
    rows = db.execute(f"{_SELECT_TURN} where state in (?, ?) order by turns.id", _UNFINISHED)
    return [parse_turn(row, _load_posts(db, row["id"])) for row in rows.fetchall()]


def waiting_conversations(db: Database) -> list[ConversationKey]:
    """Conversations with a question that no turn has taken, the longest waiting first."""
    rows = db.execute(
        "select conversations.team, conversations.channel, root from messages join conversations"
        " on conversations.id = conversation_id where turn_id is null and messages.kind = ?"
        " group by conversations.id order by min(messages.id)",
        (MessageKind.QUESTION,),
    )
    return [parse_key(row) for row in rows]


def intend_post(db: Database, turn_id: int, part: str, now: datetime) -> None:
    """Keeps the intention to post `part`.

    Raises:
        TurnSupersededError: the turn was taken back.
    """
    state = db.execute("select state from turns where id = ?", (turn_id,)).fetchone()["state"]
    if state not in _UNFINISHED:
        raise TurnSupersededError(turn_id)
    db.execute(
        "insert into posts (turn_id, part, intended_at) values (?, ?, ?) on conflict do nothing",
        (turn_id, part, to_time(now)),
    )


def save_post(db: Database, turn_id: int, part: str, ts: str) -> None:
    """Slack has `part` as the message `ts`."""
    db.execute("update posts set ts = ? where turn_id = ? and part = ?", (ts, turn_id, part))


def load_post(db: Database, turn_id: int, part: str) -> tuple[bool, str | None]:
    """Whether there is an intention to post `part`, and its ts once known."""
    row = db.execute(
        "select ts from posts where turn_id = ? and part = ?", (turn_id, part)
    ).fetchone()
    return row is not None, row["ts"] if row else None


def forget_post(db: Database, turn_id: int, part: str) -> None:
    """`part` is not in Slack any more."""
    db.execute("delete from posts where turn_id = ? and part = ?", (turn_id, part))


def save_reaction(db: Database, turn_id: int, *, is_there: bool) -> None:
    """A reaction is about to be added, or is gone."""
    db.execute("update turns set has_reaction = ? where id = ?", (is_there, turn_id))


def _take_messages(db: Database, new: NewTurn, turn_id: int) -> None:
    for block, told in enumerate(new.told, start=1):
        message = told.message
        taken = db.execute(
            "update messages set turn_id = ?, block = ?, told_prefix = ?"
            " where id = ? and turn_id is null and text = ? and kind = ? and file_count = ?"
            " returning id",
            (
                turn_id,
                block,
                told.prefix,
                message.id,
                message.text,
                message.kind,
                message.file_count,
            ),
        ).fetchone()
        if taken is None:
            raise StaleTurnError


def _newest(messages: Sequence[StoredMessage]) -> tuple[StoredMessage, ...]:
    """All questions, and of what else was said only the last: people may talk for long."""
    others = [message for message in messages if message.kind is not MessageKind.QUESTION]
    passed_over = {message.id for message in others[:-MAX_CONTEXT_MESSAGES]}
    return tuple(message for message in messages if message.id not in passed_over)


def _pass_over_older(db: Database, new: NewTurn, conversation_id: int, turn_id: int) -> None:
    """What was too much to tell goes with the turn, untold, and does not come up again."""
    db.execute(
        "update messages set turn_id = ? where conversation_id = ? and turn_id is null"
        " and kind != ? and id < ?",
        (
            turn_id,
            conversation_id,
            MessageKind.QUESTION,
            max(told.message.id for told in new.told),
        ),
    )


def load_turn(db: Database, turn_id: int) -> Turn:
    """The turn as it stands."""
    row = db.execute(f"{_SELECT_TURN} where turns.id = ?", (turn_id,)).fetchone()
    return parse_turn(row, _load_posts(db, turn_id))


def _load_posts(db: Database, turn_id: int) -> Sequence[PostedMessage]:
    rows = db.execute("select part, ts from posts where turn_id = ?", (turn_id,))
    answer_parts = [row for row in rows if row["part"].isdecimal()]
    return sorted(
        (PostedMessage(part=int(row["part"]), ts=row["ts"]) for row in answer_parts),
        key=lambda post: post.part,
    )


def _load_past(db: Database, conversation_id: int, history_from: int) -> tuple[PastTurn, ...]:
    rows = db.execute(
        "select turns.id, number, rights, finished_at, role, content from turns"
        " join history on history.turn_id = turns.id where conversation_id = ? and number >= ?"
        " and state in (?, ?, ?) order by number, position",
        (
            conversation_id,
            history_from,
            TurnState.WRITTEN,
            TurnState.DONE,
            TurnState.UNDELIVERABLE,
        ),
    ).fetchall()
    by_turn: dict[int, list[Row]] = {}
    for row in rows:
        by_turn.setdefault(row["id"], []).append(row)
    return tuple(_parse_past_turn(of_turn) for of_turn in by_turn.values())


def _parse_past_turn(rows: list[Row]) -> PastTurn:
    first = rows[0]
    return PastTurn(
        number=first["number"],
        rights=from_rights(first["rights"]),
        chars=sum(len(row["content"]) for row in rows),
        finished_at=from_time(first["finished_at"]) if first["finished_at"] else None,
        messages=tuple(HistoryMessage(row["role"], parse_content(row["content"])) for row in rows),
    )


def _insert_history(db: Database, turn_id: int, position: int, message: HistoryMessage) -> None:
    db.execute(
        "insert into history (turn_id, position, role, content) values (?, ?, ?, ?)",
        (turn_id, position, message.role, to_json(message.content)),
    )


def save_usage(db: Database, turn_id: int, usage: Sequence[StepUsage], now: datetime) -> None:
    """What a turn's requests cost."""
    db.conn.executemany(
        "insert into usage (turn_id, model, input_tokens, cache_write_5m_tokens,"
        " cache_write_1h_tokens, cache_read_tokens, output_tokens, cost_usd, at)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                turn_id,
                step.model,
                step.input_tokens,
                step.cache_write_5m_tokens,
                step.cache_write_1h_tokens,
                step.cache_read_tokens,
                step.output_tokens,
                step.cost_usd,
                to_time(now),
            )
            for step in usage
        ],
    )


def empty_conversation(key: ConversationKey, place: Place) -> Conversation:
    """A conversation of which nothing was recorded."""
    return Conversation(key=key, place=place, needs_context=False, waiting=(), past=())
