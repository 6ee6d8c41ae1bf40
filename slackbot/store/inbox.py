"""What was heard, as rows: routed and recorded in one transaction."""

from datetime import UTC, datetime, timedelta
from sqlite3 import Row

from sqlite_utils import Database

from slackbot.domain.conversation import SESSION_PREFIX, ConversationKey
from slackbot.domain.messages import (
    DELETED_TEXT,
    HeardDeletion,
    HeardEdit,
    HeardMessage,
    MessageKind,
    ts_order,
    with_files,
)
from slackbot.domain.routing import Participation, Route, participation_after, route_message
from slackbot.domain.turns import TurnState
from slackbot.store.base import Effect, Recorded
from slackbot.store.rows import from_time, parse_content, parse_key, to_json, to_time

SESSION_SILENCE = timedelta(days=7)
LONGEST_DELIVERY = timedelta(seconds=10)  # of an event, as a rule
MAX_CONTEXT_MESSAGES = 50
ASKED_LATER_TEXT = "[asked below]"

_NOTHING = Recorded(Effect.NOTHING)
_KIND_OF = {
    Route.ANSWER: MessageKind.QUESTION,
    Route.CONTEXT: MessageKind.CONTEXT,
    Route.STOP: MessageKind.STOP,
}
_EFFECT_OF = {
    Route.ANSWER: Effect.WAKE,
    Route.CONTEXT: Effect.NOTHING,
    Route.STOP: Effect.STOP,
}


def record_message(db: Database, message: HeardMessage, now: datetime) -> Recorded:
    """Records a message unless it is known or not for ShopMate."""
    known = _find_message(db, message.team, message.channel, message.ts)
    if known:
        return _complete_known(db, known, message, now)
    return _record_new(db, message, now, is_in_thread=message.thread_ts is not None)


def record_edit(db: Database, edit: HeardEdit, now: datetime) -> Recorded:
    """Takes a changed text over; a mention that it adds is a mention."""
    message = edit.message
    known = _find_message(db, message.team, message.channel, message.ts)
    if known is None:
        if not edit.added_mention:
            return _NOTHING
        # People may have replied to it before it mentioned ShopMate.
        is_in_thread = message.thread_ts is not None or not message.place.is_dm
        return _record_new(db, message, now, is_in_thread=is_in_thread)
    if _is_deleted(known):
        return _NOTHING
    is_changed = known["text"] != message.text
    if is_changed:
        _replace_text(db, known, message)
    if edit.added_mention and known["kind"] == MessageKind.CONTEXT:
        return _ask_known(db, known, message, now)
    return _take_back_unposted(db, known) if is_changed else _NOTHING


def record_deletion(db: Database, deletion: HeardDeletion) -> Recorded:
    """Replaces a deleted message's text, and takes it out of what waits for an answer."""
    known = _find_message(db, deletion.team, deletion.channel, deletion.ts)
    if known is None or _is_deleted(known):
        return _NOTHING
    db.execute(
        "update messages set text = ?, mentions = '[]', file_count = 0, kind = ? where id = ?",
        (DELETED_TEXT, MessageKind.CONTEXT, known["id"]),
    )
    _replace_block(db, known, DELETED_TEXT)
    return _take_back_unposted(db, known)


def record_context(
    db: Database, key: ConversationKey, messages: list[HeardMessage], now: datetime
) -> None:
    """Keeps the last 50 messages people wrote in the thread before ShopMate was asked; once.

    What they wrote since is heard by itself, for it may be a question.
    """
    conversation = _find_conversation(db, key)
    if conversation is None or not conversation["needs_context"]:
        return
    question = db.execute(
        "select ts, heard_at from messages where conversation_id = ? and kind = ? order by id",
        (conversation["id"], MessageKind.QUESTION),
    ).fetchone()
    if question is None:
        return
    earlier = [
        message
        for message in messages
        if _was_before(message.ts, question)
        and not _find_message(db, message.team, message.channel, message.ts)
    ]
    for message in earlier[-MAX_CONTEXT_MESSAGES:]:
        _insert_message(db, conversation["id"], message, MessageKind.CONTEXT, now)
    db.execute("update conversations set needs_context = 0 where id = ?", (conversation["id"],))


def _record_new(
    db: Database, message: HeardMessage, now: datetime, *, is_in_thread: bool
) -> Recorded:
    key = _conversation_key(db, message, now)
    participation = _parse_participation(_find_conversation(db, key))
    route = route_message(message, participation)
    if route is Route.IGNORE:
        return _NOTHING
    after = participation_after(message, route, participation)
    conversation_id = _save_conversation(db, key, message, after, now)
    if participation is None and is_in_thread:
        db.execute("update conversations set needs_context = 1 where id = ?", (conversation_id,))
    _insert_message(db, conversation_id, message, _KIND_OF[route], now)
    if route is Route.STOP:
        _stop_everything(db, conversation_id)
    return Recorded(_EFFECT_OF[route], key)


def _complete_known(db: Database, known: Row, message: HeardMessage, now: datetime) -> Recorded:
    """What a twin adds: files that an app_mention lacks, or that it was a mention after all."""
    if _is_deleted(known):
        return _NOTHING
    has_more_files = message.file_count > known["file_count"]
    if has_more_files:
        db.execute(
            "update messages set file_count = ? where id = ?", (message.file_count, known["id"])
        )
        _replace_block(db, known, with_files(known["text"], message.file_count))
    if message.mentions_shopmate and known["kind"] == MessageKind.CONTEXT:
        return _ask_known(db, known, message, now)
    return _take_back_unposted(db, known) if has_more_files else _NOTHING


def _ask_known(db: Database, known: Row, message: HeardMessage, now: datetime) -> Recorded:
    """A message kept as context mentions ShopMate after all: it waits to be answered."""
    conversation = db.execute(
        "select * from conversations where id = ?", (known["conversation_id"],)
    ).fetchone()
    route = route_message(message, None)
    key = parse_key(conversation)
    _save_conversation(db, key, message, participation_after(message, route, None), now)
    _replace_block(db, known, ASKED_LATER_TEXT)
    db.execute(
        "update messages set kind = ?, heard_at = ?, turn_id = null, block = null where id = ?",
        (_KIND_OF[route], to_time(now), known["id"]),
    )
    if route is Route.STOP:
        _stop_everything(db, conversation["id"])
    return Recorded(_EFFECT_OF[route], key)


def _take_back_unposted(db: Database, known: Row) -> Recorded:
    """Before its first post a turn begins anew with what its messages say now."""
    turn = db.execute(
        "select turns.*, team, channel, root from turns join conversations "
        "on conversations.id = turns.conversation_id where turns.id = ? and state in (?, ?) "
        "and not is_stopped and not exists (select 1 from posts where posts.turn_id = turns.id"
        " and part glob '[0-9]*')",
        (known["turn_id"], TurnState.RUNNING, TurnState.WRITTEN),
    ).fetchone()
    if turn is None:
        return _NOTHING
    db.execute("update messages set turn_id = null, block = null where turn_id = ?", (turn["id"],))
    db.execute("update turns set state = ? where id = ?", (TurnState.SUPERSEDED, turn["id"]))
    db.execute("delete from history where turn_id = ?", (turn["id"],))
    return Recorded(Effect.RESTART, parse_key(turn))


def _is_deleted(known: Row) -> bool:
    return bool(known["kind"] == MessageKind.CONTEXT and known["text"] == DELETED_TEXT)


def _was_before(ts: str, question: Row) -> bool:
    """Whether the message `ts` was there before ShopMate heard `question`.

    A question may be older than the mention that an edit added to it.
    """
    heard_at = from_time(question["heard_at"]) - LONGEST_DELIVERY
    written_at = datetime.fromtimestamp(ts_order(ts)[0], UTC)
    return written_at < heard_at or ts_order(ts) < ts_order(question["ts"])


def _replace_text(db: Database, known: Row, message: HeardMessage) -> None:
    db.execute(
        "update messages set text = ?, mentions = ? where id = ?",
        (message.text, to_json(message.mentions), known["id"]),
    )
    _replace_block(db, known, with_files(message.text, known["file_count"]))


def _replace_block(db: Database, known: Row, text: str) -> None:
    """What Claude is told of a message in later turns; a speaker's name before it stays."""
    row = db.execute(
        "select content from history where turn_id = ? and position = 0", (known["turn_id"],)
    ).fetchone()
    if row is None or known["block"] is None:
        return
    blocks = parse_content(row["content"])
    blocks[known["block"]] = {"type": "text", "text": known["told_prefix"] + text}
    db.execute(
        "update history set content = ? where turn_id = ? and position = 0",
        (to_json(blocks), known["turn_id"]),
    )


def _stop_everything(db: Database, conversation_id: int) -> None:
    """No question that waits is answered, and no running turn is taken up again."""
    db.execute(
        "update messages set kind = ? where conversation_id = ? and turn_id is null and kind = ?",
        (MessageKind.DROPPED, conversation_id, MessageKind.QUESTION),
    )
    db.execute(
        "update turns set is_stopped = 1 where conversation_id = ? and state = ?",
        (conversation_id, TurnState.RUNNING),
    )


def _conversation_key(db: Database, message: HeardMessage, now: datetime) -> ConversationKey:
    if message.thread_ts or not message.place.is_dm:
        root = message.thread_ts or message.ts
        return ConversationKey(message.team, message.channel, root)
    session = db.execute(
        "select root, last_heard_at from conversations where team = ? and channel = ? "
        "and root >= ? and root < ? order by id desc limit 1",
        (message.team, message.channel, SESSION_PREFIX, SESSION_PREFIX + "~"),
    ).fetchone()
    goes_on = (
        session is not None
        and not message.is_start_over
        and now - from_time(session["last_heard_at"]) < SESSION_SILENCE
    )
    root = session["root"] if goes_on else SESSION_PREFIX + message.ts
    return ConversationKey(message.team, message.channel, root)


def _find_message(db: Database, team: str, channel: str, ts: str) -> Row | None:
    row: Row | None = db.execute(
        "select * from messages where team = ? and channel = ? and ts = ?", (team, channel, ts)
    ).fetchone()
    return row


def _find_conversation(db: Database, key: ConversationKey) -> Row | None:
    row: Row | None = db.execute(
        "select * from conversations where team = ? and channel = ? and root = ?",
        (key.team, key.channel, key.root),
    ).fetchone()
    return row


def _parse_participation(conversation: Row | None) -> Participation | None:
    if conversation is None:
        return None
    return Participation(conversation["talking_with"], bool(conversation["is_muted"]))


def _save_conversation(
    db: Database,
    key: ConversationKey,
    message: HeardMessage,
    participation: Participation,
    now: datetime,
) -> int:
    row = db.execute(
        "insert into conversations (team, channel, root, kind, is_shared, talking_with, is_muted,"
        " last_heard_at) values (?, ?, ?, ?, ?, ?, ?, ?)"
        " on conflict (team, channel, root) do update set is_shared = excluded.is_shared,"
        " talking_with = excluded.talking_with, is_muted = excluded.is_muted,"
        " last_heard_at = excluded.last_heard_at returning id",
        (
            key.team,
            key.channel,
            key.root,
            message.place.kind,
            message.place.is_shared,
            participation.talking_with,
            participation.is_muted,
            to_time(now),
        ),
    ).fetchone()
    return int(row["id"])


def _insert_message(
    db: Database,
    conversation_id: int,
    message: HeardMessage,
    kind: MessageKind,
    now: datetime,
) -> None:
    db.execute(
        "insert into messages (conversation_id, team, channel, ts, author, author_team, kind, text,"
        " mentions, file_count, heard_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            conversation_id,
            message.team,
            message.channel,
            message.ts,
            message.author,
            message.author_team,
            kind,
            message.text,
            to_json(message.mentions),
            message.file_count,
            to_time(now),
        ),
    )
