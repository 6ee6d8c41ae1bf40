"""Rows of the database to values, and back."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from sqlite3 import Row
from typing import Any, assert_never

from slackbot.domain.conversation import ChannelKind, ConversationKey, Place
from slackbot.domain.messages import MessageKind, StoredMessage
from slackbot.domain.orders import Order
from slackbot.domain.rights import AllOrders, Denial, NoOrders, OwnOrders, Rights
from slackbot.domain.turns import ContentBlock, PostedMessage, Turn, TurnState


def to_time(at: datetime) -> str:
    """A time as it is kept: UTC, ISO 8601, sortable."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def from_time(text: str) -> datetime:
    """The time kept as `text`."""
    return datetime.fromisoformat(text)


def to_json(value: Any) -> str:
    """`value` as it is kept: compact JSON, half characters replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def to_rights(rights: Rights) -> str:
    """Rights as they are kept."""
    match rights:
        case AllOrders():
            return to_json({"orders": "all"})
        case OwnOrders(person, email):
            return to_json({"orders": "own", "person": person, "email": email})
        case NoOrders(denial):
            return to_json({"orders": "none", "denial": denial})
        case _:
            assert_never(rights)


def from_rights(text: str) -> Rights:
    """The rights kept as `text`."""
    kept = json.loads(text)
    match kept["orders"]:
        case "all":
            return AllOrders()
        case "own":
            return OwnOrders(kept["person"], kept["email"])
        case _:
            return NoOrders(Denial(kept["denial"]))


def parse_key(row: Row) -> ConversationKey:
    """The key of the conversation in `row`."""
    return ConversationKey(row["team"], row["channel"], row["root"])


def parse_place(row: Row) -> Place:
    """The place of the conversation in `row`."""
    return Place(ChannelKind(row["kind"]), bool(row["is_shared"]))


def parse_message(row: Row, place: Place) -> StoredMessage:
    """The message in `row`."""
    return StoredMessage(
        id=row["id"],
        ts=row["ts"],
        author=row["author"],
        author_team=row["author_team"],
        kind=MessageKind(row["kind"]),
        place=place,
        text=row["text"],
        mentions=tuple(json.loads(row["mentions"])),
        file_count=row["file_count"],
        heard_at=from_time(row["heard_at"]),
    )


def parse_turn(row: Row, posts: Sequence[PostedMessage]) -> Turn:
    """The turn in `row`, which is joined with its conversation's team, channel, root and place."""
    return Turn(
        id=row["id"],
        conversation=parse_key(row),
        place=parse_place(row),
        state=TurnState(row["state"]),
        attempts=row["attempts"],
        rights=from_rights(row["rights"]),
        asker=row["asker"],
        asked_ts=row["asked_ts"],
        heard_at=from_time(row["heard_at"]),
        final_text=row["final_text"],
        posts=tuple(posts),
        has_reaction=bool(row["has_reaction"]),
        is_stopped=bool(row["is_stopped"]),
    )


def parse_content(text: str) -> list[ContentBlock]:
    """The content blocks kept as `text`."""
    blocks: list[ContentBlock] = json.loads(text)
    return blocks


def parse_order(row: Row) -> Order:
    """The order in `row`."""
    return Order(
        order_id=row["order_id"],
        status=row["status"],
        item=row["item"],
        eta=row["eta"],
        tracking=row["tracking"],
        customer_email=row["customer_email"],
    )
