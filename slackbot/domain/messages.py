"""What people say, and how it is worded for Claude."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from slackbot.domain.conversation import Place

DELETED_TEXT = "[message deleted]"
STOP_WORDS = frozenset({"stop", "quiet", "be quiet"})
START_OVER_WORDS = frozenset({"start over"})


class MessageKind(StrEnum):
    """What a stored message is to ShopMate."""

    QUESTION = "question"
    CONTEXT = "context"
    STOP = "stop"
    DROPPED = "dropped"  # a question that waited when ShopMate was told to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardMessage:
    """A message as it was heard, its text decoded.

    People mentioned in `text` stand there as `@` and their id; `mentions` lists those ids, without
    ShopMate's own. `text` does not hold the mention of ShopMate.
    """

    team: str
    channel: str
    ts: str
    thread_ts: str | None
    author: str
    author_team: str
    place: Place
    text: str
    mentions: tuple[str, ...] = ()
    mentions_shopmate: bool = False
    file_count: int = 0

    @property
    def is_stop(self) -> bool:
        """Whether it says nothing but that ShopMate should be quiet."""
        return bare_words(self.text) in STOP_WORDS

    @property
    def is_start_over(self) -> bool:
        """Whether it says nothing but that the conversation should begin anew."""
        return bare_words(self.text) in START_OVER_WORDS


@dataclass(frozen=True, slots=True)
class HeardEdit:
    """A message whose text changed; `added_mention` if ShopMate is mentioned only now."""

    message: HeardMessage
    added_mention: bool


@dataclass(frozen=True, slots=True)
class HeardDeletion:
    """A message that is gone."""

    team: str
    channel: str
    ts: str


Heard: TypeAlias = HeardMessage | HeardEdit | HeardDeletion


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message of a conversation as the store keeps it."""

    id: int
    ts: str
    author: str
    author_team: str
    kind: MessageKind
    place: Place
    text: str
    mentions: tuple[str, ...]
    file_count: int
    heard_at: datetime

    @property
    def is_bare(self) -> bool:
        """Whether there is neither text nor a file in it."""
        return not self.text.strip() and not self.file_count


def bare_words(text: str) -> str:
    """The words of `text` in lower case, without punctuation."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def said_text(message: StoredMessage, names: Mapping[str, str]) -> str:
    """One message in words for Claude; never empty.

    `names` has a name for every id in the message's mentions.
    """
    named = name_mentions(message.text, message.mentions, names)
    return with_files(named, message.file_count)


def with_files(text: str, file_count: int) -> str:
    """`text` and a word on the files attached to it; never empty."""
    said = text.strip()
    if file_count:
        attached = "[a file is attached]" if file_count == 1 else "[files are attached]"
        said = f"{said}\n{attached}".strip()
    return said or "[no text]"


def name_mentions(text: str, mentions: Collection[str], names: Mapping[str, str]) -> str:
    """`text` with the ids of `mentions` replaced by people's names."""
    if not mentions:
        return text
    pattern = "|".join(re.escape(user) for user in mentions)
    return re.sub(rf"@({pattern})\b", lambda found: "@" + names[found[1]], text)


def in_order(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    """Messages by the time Slack gave them: the parts of a ts compared as numbers."""
    return sorted(messages, key=lambda message: ts_order(message.ts))


def ts_order(ts: str) -> tuple[int, int]:
    """A key that sorts ts in the order Slack gave them."""
    seconds, _, fraction = ts.partition(".")
    return int(seconds), int(fraction or 0)
