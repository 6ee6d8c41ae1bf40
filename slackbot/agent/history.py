"""What Claude is given of earlier turns: within a budget, within the rights, and cached."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from slackbot.domain.rights import Rights, covers
from slackbot.domain.turns import ContentBlock, HistoryMessage, PastTurn

CHARS_PER_TOKEN = 3  # of JSON; English text has about four, so this counts too much, not too little
FIXED_TOKENS = 2_000  # system prompt, tools, and room for a turn's own tool results
WITHHELD = "(I answered this; the answer is not shown here.)"

CacheTtl: TypeAlias = Literal["5m", "1h"]
# A cache entry lives five minutes or an hour from its last use; a margin for the turn itself.
SHORT_GAP = timedelta(minutes=4, seconds=30)
LONG_GAP = timedelta(minutes=55)


def choose_history_from(
    past: Sequence[PastTurn], content: Sequence[ContentBlock], budget_tokens: int
) -> int:
    """The number of the first turn to keep: all of `past`, or about half a budget of it.

    Cutting to half, not to the budget, keeps the beginning the same for many turns, so that it
    stays cached. A cut is always at the beginning of a turn: plain words of people.
    """
    first = past[0].number if past else 1
    sizes = [turn.chars // CHARS_PER_TOKEN for turn in past]
    new_tokens = FIXED_TOKENS + sum(len(block["text"]) for block in content) // CHARS_PER_TOKEN
    if new_tokens + sum(sizes) <= budget_tokens:
        return first
    kept_tokens = new_tokens
    for turn, size in zip(reversed(past), reversed(sizes), strict=True):
        kept_tokens += size
        if kept_tokens > budget_tokens // 2:
            return turn.number + 1
    return first


def choose_ttl(past: Sequence[PastTurn], now: datetime) -> CacheTtl | None:
    """How long what is sent now should stay cached; None if it will be gone before it is read.

    People keep their pace: the next turn is expected after as long as this one came after the
    last. Writing costs 1.25 or 2 times the price, reading a tenth: an entry that is never read is
    money lost.
    """
    last_at = past[-1].finished_at if past else None
    if last_at is None or now - last_at <= SHORT_GAP:
        return "5m"
    return "1h" if now - last_at <= LONG_GAP else None


def build_messages(
    past: Sequence[PastTurn], rights: Rights, content: Sequence[ContentBlock]
) -> list[HistoryMessage]:
    """The messages a turn begins with: earlier turns as far as `rights` reach, then its own.

    Of a turn that could see more, only the people's own words are given.
    """
    told: list[HistoryMessage] = []
    for turn in past:
        told.extend(turn.messages if covers(rights, turn.rights) else _withhold(turn))
    return [*told, HistoryMessage("user", content)]


def mark_cache(
    messages: Sequence[HistoryMessage], *, turn_begins: int, ttl: CacheTtl | None
) -> list[Mapping[str, Any]]:
    """Messages as the API wants them, cached up to the end of the previous turn and to the end.

    `turn_begins` is the index of the running turn's first message.
    """
    ends = {turn_begins - 1, len(messages) - 1} if ttl else set()
    return [
        {"role": message.role, "content": _mark_last(message.content, ttl)}
        if ttl and index in ends
        else {"role": message.role, "content": list(message.content)}
        for index, message in enumerate(messages)
    ]


def cache_control(ttl: CacheTtl) -> Mapping[str, str]:
    """A breakpoint of the prompt cache."""
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def _mark_last(content: Sequence[ContentBlock], ttl: CacheTtl) -> list[ContentBlock]:
    return [*content[:-1], {**content[-1], "cache_control": cache_control(ttl)}]


def _withhold(turn: PastTurn) -> list[HistoryMessage]:
    words = turn.messages[0]
    return [words, HistoryMessage("assistant", [{"type": "text", "text": WITHHELD}])]
