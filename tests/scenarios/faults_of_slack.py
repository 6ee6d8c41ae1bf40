"""What Slack can do wrong, and what comes of it for each call a turn makes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum, auto
from typing import Any, TypeAlias

from slackbot.playground.claude_mind import Reply, text, tool_call
from slackbot.playground.slack_calls import ApiCall
from slackbot.playground.slack_faults import (
    ArgumentsPredicate,
    Dropped,
    Fault,
    RateLimited,
    Refused,
    ServerBroken,
    Slow,
)
from slackbot.playground.slack_server import LocalSlack
from tests.scenarios.faults_of_claude import (
    ANSWER,
    EVER,
    LOOKUP,
    NEXT_ANSWER,
    SHOWN_DELTAS,
    WORDS_AND_LOOKUP,
)

SHORT = "They come on Thursday."
PARAGRAPH = "A paragraph of plain words about cotton, which goes on for a while and then stops."
LONG = "\n\n".join([PARAGRAPH] * 144)  # more than one message holds

Build: TypeAlias = Callable[[str, ArgumentsPredicate], Fault]

# The rows: what passes, and what Slack says for good.
PASSING: Mapping[str, Build] = {
    "429": lambda method, where: RateLimited(method=method, retry_after_s=0.05, where=where),
    "500": lambda method, where: ServerBroken(method=method, status=500, where=where),
    "503": lambda method, where: ServerBroken(method=method, where=where),
    "dropped before": lambda method, where: Dropped(method=method, done=False, where=where),
    "dropped after": lambda method, where: Dropped(method=method, done=True, where=where),
    "slow": lambda method, where: Slow(method=method, seconds=0.3, where=where),
}
REFUSALS = (
    "account_inactive",
    "channel_not_found",
    "invalid_auth",
    "invalid_blocks",
    "is_archived",
    "message_not_found",
    "missing_scope",
    "msg_too_long",
    "not_in_channel",
)
LASTING, TOO_SLOW = "503 for ever", "slower than 15 s"
SLACK_FAULTS = (*PASSING, LASTING, TOO_SLOW, *REFUSALS)


def build_fault(name: str, call: "SlackCall", where: ArgumentsPredicate) -> Fault:
    """The fault called `name`: `call.times` if it passes, else for ever."""
    if name == LASTING:
        return ServerBroken(method=call.method, times=EVER, where=where)
    if build := PASSING.get(name):
        # aiohttp itself makes a read once more when the connection breaks.
        tries = 2 if call.times > 1 and name.startswith("dropped") else 1
        return replace(build(call.method, where), times=call.times * tries)
    return Refused(method=call.method, error=name, times=EVER, where=where)


class Hits:
    """Which calls a fault strikes: those of one column, and never one for the next message."""

    def __init__(self, call: "SlackCall", fault: str) -> None:
        self._call = call
        self._is_about_blocks = fault in {"invalid_blocks", "msg_too_long"}
        self._to_skip = call.skip
        self.has_struck = False

    def __call__(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the call with these arguments is struck."""
        if NEXT_ANSWER in str(arguments) or not self._call.where(arguments):
            return False
        if self._is_about_blocks and "blocks" not in arguments:
            return False
        self._to_skip -= 1
        self.has_struck = self._to_skip < 0
        return self.has_struck


class Outcome(StrEnum):
    """What comes of a cell."""

    COMPLETE = auto()
    IN_PLAIN_TEXT = auto()
    UNDELIVERABLE = auto()
    INVITATION = auto()
    TWICE = auto()
    NOBODY_TOLD = auto()
    LEFTOVER = auto()


class Place(StrEnum):
    """Where the question is asked."""

    THREAD = auto()
    DM = auto()
    PEOPLES_THREAD = auto()
    OUTSIDE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Claude stops in the middle of a step until Slack was called, with whatever success."""

    step: int
    after_deltas: int
    until: Callable[[LocalSlack], bool]
    breaks_twice: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackCall:
    """A column: one call of a turn, and the turn that makes it for certain.

    `cells` has the outcome of each row, or why there is nothing to run.
    """

    name: str
    method: str
    cells: Mapping[str, Outcome | str]
    place: Place = Place.THREAD
    replies: Sequence[Reply] = (text(SHORT),)
    said: str | None = SHORT
    holds: Sequence[Hold] = ()
    where: ArgumentsPredicate = lambda arguments: True
    skip: int = 0
    times: int = 1
    before: Sequence[Fault] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def was_called(
    method: str, *, times: int = 1, where: Callable[[ApiCall], bool] = lambda call: True
) -> Callable[[LocalSlack], bool]:
    return lambda slack: sum(call.method == method and where(call) for call in slack.calls) >= times


def is_part(part: str) -> ArgumentsPredicate:
    """Posts of this part of an answer."""
    return lambda arguments: (
        (arguments.get("metadata") or {}).get("event_payload", {}).get("part") == part
    )


def _all(rows: Sequence[str], cell: Outcome | str) -> dict[str, Outcome | str]:
    return dict.fromkeys(rows, cell)


_NO_BLOCKS = _all(["invalid_blocks", "msg_too_long"], "it sends no blocks")
_NO_CHANNEL = _all(["channel_not_found", "is_archived", "not_in_channel"], "it names no channel")
_NO_MESSAGE = _all(["message_not_found"], "it names no message")
_MAY_READ = _all(["is_archived"], "an archived channel can be read")
_TOO_SLOW = {TOO_SLOW: "no answer in time is a lost one: as 'dropped after'"}
_INSISTS = {
    **_TOO_SLOW,
    LASTING: "it is tried for a quarter of an hour: tests/slack/test_poster.py",
}
_PASSES = _all(list(PASSING), Outcome.COMPLETE) | _INSISTS
_IS_BEST_EFFORT = _all(SLACK_FAULTS, Outcome.COMPLETE) | _NO_BLOCKS | _TOO_SLOW
_POST: dict[str, Outcome | str] = {
    **_PASSES,
    **_all(REFUSALS, Outcome.UNDELIVERABLE),
    "invalid_auth": "it waits for another token: test_an_answer_waits_for_a_token_that_works",
    **_all(["invalid_blocks", "msg_too_long"], Outcome.IN_PLAIN_TEXT),
    **_all(["channel_not_found", "not_in_channel"], Outcome.INVITATION),
    **_NO_MESSAGE,
}
_EDIT: dict[str, Outcome | str] = {**_POST, "message_not_found": Outcome.COMPLETE}
_LOOK: dict[str, Outcome | str] = {
    **_PASSES,
    # Nobody can say any more whether it is there: rather twice than never.
    **_all(REFUSALS, Outcome.TWICE),
    **_NO_BLOCKS,
    **_NO_MESSAGE,
    **_MAY_READ,
}
_TEAM_POST = {
    **_PASSES,
    **_all(REFUSALS, Outcome.NOBODY_TOLD),
    **_NO_MESSAGE,
    **_NO_BLOCKS,
}
_POSTED = was_called("chat.postMessage")
_LOST_POST = (Dropped(method="chat.postMessage", done=True),)
_GROWING = Hold(step=0, after_deltas=SHOWN_DELTAS, until=_POSTED)
ESCALATES = (tool_call("escalate", summary="She wants a refund for ORD-1001."), text(SHORT))

SLACK_CALLS: Sequence[SlackCall] = (
    SlackCall(
        name="users.info as the turn begins",
        method="users.info",
        cells=_IS_BEST_EFFORT | _NO_CHANNEL | _NO_MESSAGE,
    ),
    SlackCall(
        name="users.info in a guest's lookup",
        method="users.info",
        cells=_IS_BEST_EFFORT | _NO_CHANNEL | _NO_MESSAGE,
        place=Place.DM,
        replies=(LOOKUP, text(SHORT)),
        skip=1,
    ),
    SlackCall(
        name="assistant.threads.setStatus",
        method="assistant.threads.setStatus",
        cells=_IS_BEST_EFFORT,
        holds=[Hold(step=0, after_deltas=0, until=was_called("assistant.threads.setStatus"))],
    ),
    SlackCall(
        name="reactions.add",
        method="reactions.add",
        cells=_IS_BEST_EFFORT,
        place=Place.DM,
        holds=[Hold(step=0, after_deltas=0, until=was_called("reactions.add"))],
    ),
    SlackCall(
        name="reactions.remove",
        method="reactions.remove",
        cells=_IS_BEST_EFFORT | _all(["429", LASTING, *REFUSALS], Outcome.LEFTOVER) | _NO_BLOCKS,
        place=Place.DM,
        holds=[Hold(step=0, after_deltas=0, until=was_called("reactions.add"))],
    ),
    SlackCall(
        name="chat.postMessage of a whole answer",
        method="chat.postMessage",
        cells=_POST,
        where=is_part("0"),
    ),
    SlackCall(
        name="chat.postMessage of first words",
        method="chat.postMessage",
        cells=_POST,
        replies=(text(ANSWER),),
        said=ANSWER,
        holds=[_GROWING],
        where=is_part("0"),
    ),
    SlackCall(
        name="chat.postMessage of a continuation",
        method="chat.postMessage",
        cells=_POST,
        replies=(text(LONG),),
        said=LONG,
        where=is_part("1"),
    ),
    SlackCall(
        name="chat.update in between",
        method="chat.update",
        cells=_EDIT,
        replies=(WORDS_AND_LOOKUP, text(ANSWER)),
        said=None,
        holds=[
            _GROWING,
            Hold(step=1, after_deltas=SHOWN_DELTAS, until=was_called("chat.update")),
        ],
    ),
    SlackCall(
        name="chat.update at the end",
        method="chat.update",
        cells=_EDIT,
        replies=(text(ANSWER),),
        said=ANSWER,
        holds=[_GROWING],
        where=lambda arguments: ANSWER[-20:] in str(arguments),
    ),
    SlackCall(
        name="conversations.replies for the context",
        method="conversations.replies",
        cells=_IS_BEST_EFFORT | _NO_MESSAGE | _MAY_READ,
        place=Place.PEOPLES_THREAD,
    ),
    SlackCall(
        name="conversations.replies after a lost answer",
        times=3,
        method="conversations.replies",
        cells=_LOOK,
        before=_LOST_POST,
    ),
    SlackCall(
        name="conversations.history after a lost answer",
        times=3,
        method="conversations.history",
        cells=_LOOK,
        place=Place.DM,
        before=_LOST_POST,
    ),
    SlackCall(
        name="chat.delete of what is too much",
        method="chat.delete",
        cells={
            **_PASSES,
            **_all(REFUSALS, Outcome.LEFTOVER),
            **_NO_BLOCKS,
            "message_not_found": Outcome.COMPLETE,
        },
        replies=(text(LONG),),
        holds=[
            Hold(
                step=0,
                after_deltas=len(LONG) // 4,
                until=was_called("chat.postMessage", times=2),
                breaks_twice=True,
            )
        ],
    ),
    SlackCall(
        name="conversations.open for an invitation",
        method="conversations.open",
        cells={
            **_all(list(PASSING), Outcome.INVITATION),
            **_INSISTS,
            **_all(REFUSALS, Outcome.UNDELIVERABLE),
            **_NO_BLOCKS,
            **_NO_CHANNEL,
            **_NO_MESSAGE,
        },
        place=Place.OUTSIDE,
    ),
    SlackCall(
        name="chat.postMessage of an invitation",
        method="chat.postMessage",
        cells={
            **_all(list(PASSING), Outcome.INVITATION),
            **_INSISTS,
            **_all(REFUSALS, Outcome.UNDELIVERABLE),
            **_NO_MESSAGE,
            **_NO_BLOCKS,
        },
        place=Place.OUTSIDE,
        where=is_part("invitation"),
    ),
    SlackCall(
        name="chat.postMessage of an escalation",
        method="chat.postMessage",
        cells=_TEAM_POST,
        replies=ESCALATES,
        where=is_part("escalation-0"),
    ),
    SlackCall(
        name="chat.getPermalink for an escalation",
        method="chat.getPermalink",
        cells=_IS_BEST_EFFORT | _MAY_READ,
        replies=ESCALATES,
    ),
)
