"""What Claude can do wrong, and what comes of it at each step of a turn."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from slackbot.agent.loop import Limits
from slackbot.apologies import CUT_AT_LIMIT
from slackbot.errors import (
    AnswerEmptyError,
    AnswerRefusedError,
    ClaudeBusyError,
    ClaudeInterruptedError,
    ClaudeMisconfiguredError,
    ClaudeRejectedError,
    ClaudeTooLongError,
    ClaudeUnreachableError,
    ShopMateError,
    TooManyStepsError,
    TurnTimeoutError,
)
from slackbot.playground.claude_faults import (
    ConnectionDropped,
    EndsWithoutStop,
    Fault,
    HtmlPage,
    HttpError,
    InvalidToolJson,
    Stalled,
    StreamError,
    UnknownEvents,
    Where,
)
from slackbot.playground.claude_mind import Body, Reply, TextBlock, text, tool_call
from slackbot.playground.claude_server import Mind

QUESTION = "where are my shirts"
NEXT_QUESTION = "and the other one"
NEXT_ANSWER = "The other one is fine."
WORDS = (
    "Both of your orders left our warehouse in good time and are on their way to you, which is "
    "the good news of the day."
)
ANSWER = (
    "The shirts are with the courier now and come on Thursday between nine and twelve. Somebody "
    "has to be at home to sign for them, a neighbour will do as well, and if nobody is there the "
    "courier comes again on Friday."
)
SHOWN_DELTAS = 25  # of four characters: enough first words to be posted
EVER = 1_000
SMALL_LIMITS = Limits(max_tokens=400, tool_timeout_s=0.2)
CRASHING_ORDER, HANGING_ORDER = "ORD-5000", "ORD-6000"
LOOKUP = tool_call("get_order", order_id="ORD-1001")
WORDS_AND_LOOKUP = Reply((TextBlock(WORDS), *LOOKUP.blocks))


class Step(StrEnum):
    """Where in a turn the fault strikes."""

    FIRST = "first request"
    AFTER_TOOL = "request after a tool"
    BELOW_WORDS = "request below words that are shown"
    IN_WORDS = "in the middle of words that are shown"


BEFORE: Mapping[Step, tuple[Reply, ...]] = {
    Step.FIRST: (),
    Step.AFTER_TOOL: (LOOKUP,),
    Step.BELOW_WORDS: (WORDS_AND_LOOKUP,),
    Step.IN_WORDS: (),
}
REQUESTS = frozenset({Step.FIRST, Step.AFTER_TOOL, Step.BELOW_WORDS})
FIRST_ONLY = frozenset({Step.FIRST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """Which request a fault strikes, after how much of it, and when."""

    where: Where
    after_deltas: int
    once: asyncio.Event | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeFault:
    """A row of the table.

    Claude answers `replies`, one a request, and while its words are shown `in_words`. `requests`
    is how many requests it comes to, None: one for each reply. The answer gets through as the words
    of all replies, or as `said`, with `note`; or there is an apology for `error`.
    """

    name: str
    strike: Callable[[Blow], Fault] | None = None
    replies: tuple[Reply, ...] = (text(ANSWER),)
    in_words: tuple[Reply, ...] = (text(ANSWER),)
    after_deltas: int = 2
    in_words_after: int = SHOWN_DELTAS
    requests: int | None = None
    error: ShopMateError | None = None
    said: str | None = None
    note: str = ""
    ending: str = "complete"
    limits: Limits = SMALL_LIMITS
    variables: Mapping[str, str] = field(default_factory=dict)
    steps: frozenset[Step] = frozenset(Step)
    empty: Mapping[Step, str] = field(default_factory=dict)


def steps_taken(body: Body) -> int:
    """How many requests of the running turn came before this one."""
    plain = [index for index, message in enumerate(body["messages"]) if _is_plain(message)]
    return sum(message["role"] == "assistant" for message in body["messages"][plain[-1] :])


def is_first_turn(body: Body) -> bool:
    """Whether the request is about the first question, not the next one."""
    words = [str(message["content"]) for message in body["messages"] if _is_plain(message)]
    return QUESTION in words[-1]


def _is_plain(message: Mapping[str, Any]) -> bool:
    return bool(message["role"] == "user" and message["content"][0]["type"] == "text")


def play(replies: Sequence[Reply]) -> Mind:
    """A Claude that takes one reply for each step of the first turn."""

    def mind(body: Body) -> Reply:
        return replies[steps_taken(body)] if is_first_turn(body) else text(NEXT_ANSWER)

    return mind


def at_step(number: int) -> Where:
    """The requests of the first turn's step `number`, from 0, tries and retries."""
    return lambda body: is_first_turn(body) and steps_taken(body) == number


def _http(
    name: str, status: int, kind: str, *, times: int = 1, gets: ShopMateError | None, requests: int
) -> ClaudeFault:
    return ClaudeFault(
        name=name,
        strike=lambda blow: HttpError(
            status, kind, retry_after_ms=1, times=times, where=blow.where
        ),
        requests=requests,
        error=gets,
        steps=REQUESTS,
        empty={Step.IN_WORDS: "a status comes before the first word"},
    )


def _broken(
    name: str, fault: Callable[..., Fault], **changes: Any
) -> tuple[ClaudeFault, ClaudeFault]:
    """A stream that breaks once, or twice: the step is begun anew once, not again."""

    def strike(blow: Blow, *, times: int) -> Fault:
        return fault(after_deltas=blow.after_deltas, once=blow.once, where=blow.where, times=times)

    replies = changes.get("replies", (text(ANSWER),))
    return (
        ClaudeFault(
            name=f"{name}, once",
            strike=partial(strike, times=1),
            requests=1 + len(replies),
            **changes,
        ),
        ClaudeFault(
            name=f"{name}, twice",
            strike=partial(strike, times=2),
            requests=2,
            error=ClaudeInterruptedError("x"),
            **changes,
        ),
    )


def _invalid_json(times: int) -> Callable[[Blow], Fault]:
    return lambda blow: InvalidToolJson(times=times, where=blow.where)


def _said(name: str, *replies: Reply, **changes: Any) -> ClaudeFault:
    return ClaudeFault(name=name, replies=replies, in_words=replies, **changes)


BUSY = ClaudeBusyError("x")
UNREACHABLE = ClaudeUnreachableError("x")
INTERRUPTED = ClaudeInterruptedError("x")
MISCONFIGURED = ClaudeMisconfiguredError("x")
REJECTED = ClaudeRejectedError("x")
EMPTY = AnswerEmptyError("x")
_HAS_NO_WORDS: Mapping[str, Any] = {
    "steps": REQUESTS,
    "empty": {Step.IN_WORDS: "it says no words of its own"},
}
_PAUSES = {
    Step.AFTER_TOOL: "the SDK pauses for 7 s between five tries; the first request shows it",
    Step.BELOW_WORDS: "the SDK pauses for 7 s between five tries; the first request shows it",
    Step.IN_WORDS: "no header was sent yet",
}
_HAS_NO_WORDS_YET: Mapping[str, Any] = {
    "steps": frozenset({Step.FIRST, Step.AFTER_TOOL}),
    "empty": dict.fromkeys([Step.BELOW_WORDS, Step.IN_WORDS], "the row below"),
}
_HAS_WORDS: Mapping[str, Any] = {
    "steps": frozenset({Step.BELOW_WORDS, Step.IN_WORDS}),
    "empty": dict.fromkeys([Step.FIRST, Step.AFTER_TOOL], "the row above"),
}
_ENDLESS_LOOKUP = tool_call("get_order", order_id="ORD-" + "1" * 4_000)
_HALVES = ANSWER[:120].strip(), ANSWER[120:].strip()

CLAUDE_FAULTS: Sequence[ClaudeFault] = (
    _http("429 with retry-after-ms", 429, "rate_limit_error", gets=None, requests=2),
    ClaudeFault(
        name="429 with retry-after 5000",
        strike=lambda blow: HttpError(
            429, "rate_limit_error", retry_after_s=5_000, where=blow.where
        ),
        requests=2,
        steps=REQUESTS,
        empty={Step.IN_WORDS: "a status comes before the first word"},
    ),
    _http("429 for ever", 429, "rate_limit_error", times=EVER, gets=BUSY, requests=5),
    _http("500 once", 500, "api_error", gets=None, requests=2),
    _http("500 for ever", 500, "api_error", times=EVER, gets=UNREACHABLE, requests=5),
    _http("529 once", 529, "overloaded_error", gets=None, requests=2),
    _http("529 for ever", 529, "overloaded_error", times=EVER, gets=BUSY, requests=5),
    _http("400", 400, "invalid_request_error", gets=REJECTED, requests=1),
    _http("401", 401, "authentication_error", gets=MISCONFIGURED, requests=1),
    _http("402", 402, "billing_error", gets=MISCONFIGURED, requests=1),
    _http("403", 403, "permission_error", gets=MISCONFIGURED, requests=1),
    _http("404, no such model", 404, "not_found_error", gets=MISCONFIGURED, requests=1),
    _http("413", 413, "request_too_large", gets=ClaudeTooLongError("x"), requests=1),
    *_broken(
        "error event before the first delta",
        StreamError,
        after_deltas=0,
        steps=REQUESTS,
        empty={Step.IN_WORDS: "there are no words yet"},
    ),
    *_broken("error event in mid-text", StreamError),
    *_broken(
        "error event in a tool use",
        StreamError,
        replies=(LOOKUP, text(ANSWER)),
        in_words=(WORDS_AND_LOOKUP, text(ANSWER)),
        in_words_after=len(WORDS) // 4 + 2,
    ),
    *_broken("connection dropped in mid-stream", ConnectionDropped),
    *_broken("clean end without message_stop", EndsWithoutStop),
    ClaudeFault(
        name="connection dropped before the headers, once",
        strike=lambda blow: ConnectionDropped(where=blow.where),
        requests=2,
        steps=REQUESTS,
        empty={Step.IN_WORDS: "no header was sent yet"},
    ),
    ClaudeFault(
        name="connection dropped before the headers, for ever",
        strike=lambda blow: ConnectionDropped(times=EVER, where=blow.where),
        requests=5,
        error=UNREACHABLE,
        steps=FIRST_ONLY,
        empty=_PAUSES,
    ),
    ClaudeFault(
        name="HTML page with status 200",
        strike=lambda blow: HtmlPage(where=blow.where),
        requests=1,
        error=REJECTED,
        steps=REQUESTS,
        empty={Step.IN_WORDS: "a page comes instead of words"},
    ),
    ClaudeFault(
        name="HTML page with status 502, once",
        strike=lambda blow: HtmlPage(status=502, where=blow.where),
        requests=2,
        steps=REQUESTS,
        empty={Step.IN_WORDS: "a page comes instead of words"},
    ),
    ClaudeFault(
        name="stall",
        strike=lambda blow: Stalled(after_deltas=blow.after_deltas, where=blow.where),
        error=TurnTimeoutError("x"),
        limits=Limits(turn_timeout_s=1.0),
    ),
    ClaudeFault(
        name="invalid tool JSON, once",
        strike=_invalid_json(1),
        replies=(LOOKUP, text(ANSWER)),
        requests=3,
        **_HAS_NO_WORDS,
    ),
    ClaudeFault(
        name="invalid tool JSON, twice",
        strike=_invalid_json(2),
        replies=(LOOKUP, text(ANSWER)),
        requests=2,
        error=INTERRUPTED,
        **_HAS_NO_WORDS,
    ),
    ClaudeFault(
        name="unknown events and pings",
        strike=lambda blow: UnknownEvents(where=blow.where),
        steps=REQUESTS,
        empty={Step.IN_WORDS: "they are between all words, of the first request too"},
    ),
    _said(
        "max_tokens in the text",
        Reply((TextBlock(ANSWER),), "max_tokens"),
        note=CUT_AT_LIMIT,
        ending="truncated",
    ),
    ClaudeFault(
        name="max_tokens in a tool use",
        replies=(_ENDLESS_LOOKUP,),
        error=EMPTY,
        **_HAS_NO_WORDS_YET,
    ),
    ClaudeFault(
        name="max_tokens in a tool use, with words",
        replies=(_ENDLESS_LOOKUP,),
        in_words=(Reply((TextBlock(WORDS), *_ENDLESS_LOOKUP.blocks)),),
        note=CUT_AT_LIMIT,
        ending="truncated",
        **_HAS_WORDS,
    ),
    _said("refusal", Reply((TextBlock(ANSWER),), "refusal"), error=AnswerRefusedError("x")),
    _said(
        "refusal without a word",
        Reply((), "refusal"),
        error=AnswerRefusedError("x"),
        **_HAS_NO_WORDS,
    ),
    _said("empty end_turn", Reply(()), error=EMPTY, **_HAS_NO_WORDS_YET),
    ClaudeFault(
        name="empty end_turn, with words",
        replies=(Reply(()),),
        steps=frozenset({Step.BELOW_WORDS}),
        empty={
            **dict.fromkeys([Step.FIRST, Step.AFTER_TOOL], "the row above"),
            Step.IN_WORDS: "it says no words of its own",
        },
    ),
    _said(
        "pause_turn",
        Reply((TextBlock(_HALVES[0]),), "pause_turn"),
        text(f" {_HALVES[1]}"),
        said=f"{_HALVES[0]} {_HALVES[1]}",
        # The only one of our models that takes a request which ends with Claude's words.
        variables={"SHOPMATE_CHAT_MODEL": "claude-haiku-4-5"},
    ),
    _said(
        "tools after the last step",
        *[LOOKUP] * 8,
        error=TooManyStepsError("x"),
        steps=FIRST_ONLY,
        empty={
            Step.AFTER_TOOL: "it is the same turn, seen from its second request",
            Step.BELOW_WORDS: "the row below",
            Step.IN_WORDS: "it says no words of its own",
        },
    ),
    _said(
        "tools after the last step, with words",
        *[LOOKUP] * 7,
        error=TooManyStepsError("x"),
        steps=frozenset({Step.BELOW_WORDS}),
        empty={
            **dict.fromkeys([Step.FIRST, Step.AFTER_TOOL], "the row above"),
            Step.IN_WORDS: "it says no words of its own",
        },
    ),
    _said("an unknown tool", tool_call("get_weather"), text(ANSWER), **_HAS_NO_WORDS),
    _said(
        "a tool that refuses",
        tool_call("get_order", order_id="ORD-9999"),
        text(ANSWER),
        **_HAS_NO_WORDS,
    ),
    _said(
        "a tool that crashes",
        tool_call("get_order", order_id=CRASHING_ORDER),
        text(ANSWER),
        **_HAS_NO_WORDS,
    ),
    _said(
        "a tool that hangs",
        tool_call("get_order", order_id=HANGING_ORDER),
        text(ANSWER),
        **_HAS_NO_WORDS,
    ),
)
