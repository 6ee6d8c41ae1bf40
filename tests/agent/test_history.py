import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slackbot.agent.history import (
    CHARS_PER_TOKEN,
    FIXED_TOKENS,
    WITHHELD,
    CacheTtl,
    build_messages,
    choose_history_from,
    choose_ttl,
    mark_cache,
)
from slackbot.agent.loop import Agent, Outcome, Task
from slackbot.agent.tools.base import ToolContext
from slackbot.agent.tools.orders import GetOrder
from slackbot.claude.client import Claude, open_claude
from slackbot.domain.conversation import ConversationKey
from slackbot.domain.orders import SAMPLE_ORDERS, Order
from slackbot.domain.rights import AllOrders, Denial, NoOrders, OwnOrders, Rights
from slackbot.domain.turns import HistoryMessage, PastTurn
from slackbot.playground.claude_cache import list_breakpoints
from slackbot.playground.claude_mind import text, tool_call
from slackbot.playground.claude_server import LocalClaude

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BUDGET = 10_000
OWN = OwnOrders("U1", "jo@example.com")
NONE = NoOrders(Denial.GUEST_IN_CHANNEL)
ALL_TTLS: list[CacheTtl | None] = ["5m", "1h", None]


def said(role: str, words: str) -> HistoryMessage:
    return HistoryMessage(role, [{"type": "text", "text": words}])


def ask(words: str) -> list[Mapping[str, Any]]:
    return [{"type": "text", "text": words}]


def build_turn(
    number: int = 1,
    *,
    tokens: int = 1_000,
    rights: Rights | None = None,
    messages: Sequence[HistoryMessage] | None = None,
    finished_at: datetime | None = NOW,
) -> PastTurn:
    plain = (said("user", f"question {number}"), said("assistant", f"answer {number}"))
    return PastTurn(
        number=number,
        rights=rights or AllOrders(),
        chars=tokens * CHARS_PER_TOKEN,
        finished_at=finished_at,
        messages=tuple(messages or plain),
    )


def build_tool_turn(number: int, *, rights: Rights) -> PastTurn:
    use = {"type": "tool_use", "id": f"toolu_{number}", "name": "get_order", "input": {}}
    result = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": "RM1 shipped"}
    return build_turn(
        number,
        rights=rights,
        messages=[
            said("user", f"question {number}"),
            HistoryMessage("assistant", [{"type": "text", "text": "It was shipped."}, use]),
            HistoryMessage("user", [result]),
            said("assistant", "RM1 has been shipped."),
        ],
    )


def kept_tokens(past: Sequence[PastTurn], history_from: int) -> int:
    return sum(turn.chars // CHARS_PER_TOKEN for turn in past if turn.number >= history_from)


# The budget


def test_a_first_turn_has_no_history_to_cut() -> None:
    assert choose_history_from([], ask("hello"), BUDGET) == 1


def test_within_the_budget_everything_is_kept() -> None:
    past = [build_turn(number, tokens=1_000) for number in range(3, 11)]

    assert FIXED_TOKENS + kept_tokens(past, 3) == BUDGET
    assert choose_history_from(past, ask(""), BUDGET) == 3
    assert choose_history_from(past, ask("abc"), BUDGET) > 3


def test_over_the_budget_about_half_of_it_is_kept_of_the_newest_turns() -> None:
    past = [build_turn(number, tokens=500) for number in range(1, 41)]

    first = choose_history_from(past, ask("and?"), BUDGET)

    assert 1 < first <= 40
    assert FIXED_TOKENS + 1 + kept_tokens(past, first) <= BUDGET // 2
    assert FIXED_TOKENS + 1 + kept_tokens(past, first - 1) > BUDGET // 2


def test_a_newest_turn_larger_than_the_budget_is_not_kept() -> None:
    past = [build_turn(1, tokens=100), build_turn(2, tokens=2 * BUDGET)]

    assert choose_history_from(past, ask("and?"), BUDGET) == 3


def test_a_question_larger_than_the_budget_stands_alone() -> None:
    past = [build_turn(1, tokens=100)]

    assert choose_history_from(past, ask("x" * 3 * BUDGET), BUDGET) == 2


def test_after_a_cut_the_beginning_stays_the_same_for_many_turns() -> None:
    past: list[PastTurn] = []
    beginnings = []
    history_from = 1
    for number in range(1, 101):
        kept = [turn for turn in past if turn.number >= history_from]
        history_from = choose_history_from(kept, ask("and?"), BUDGET)
        beginnings.append(history_from)
        past.append(build_turn(number, tokens=250))

    runs = [len(list(run)) for _, run in itertools.groupby(beginnings)]
    assert beginnings == sorted(beginnings)
    # A cut gives half the budget back: 5,000 tokens, 20 turns of 250.
    assert set(runs[1:-1]) <= {20, 21}


# How long it is cached


@pytest.mark.parametrize(
    ("gap", "ttl"),
    [
        (timedelta(0), "5m"),
        (timedelta(minutes=4, seconds=30), "5m"),
        (timedelta(minutes=4, seconds=31), "1h"),
        (timedelta(minutes=55), "1h"),
        (timedelta(minutes=56), None),
        (timedelta(days=3), None),
    ],
)
def test_a_cache_lives_as_long_as_the_next_question_is_expected_to_take(
    gap: timedelta, ttl: CacheTtl | None
) -> None:
    assert choose_ttl([build_turn(), build_turn(2, finished_at=NOW - gap)], NOW) == ttl


def test_without_a_pace_to_go_by_it_is_cached_for_five_minutes() -> None:
    assert choose_ttl([], NOW) == "5m"
    assert choose_ttl([build_turn(finished_at=None)], NOW) == "5m"


# What a turn may not see


@pytest.mark.parametrize(
    ("rights", "needed", "is_shown"),
    [
        (AllOrders(), AllOrders(), True),
        (AllOrders(), OWN, True),
        (AllOrders(), NONE, True),
        (OWN, OWN, True),
        (OWN, NONE, True),
        (NONE, NONE, True),
        (OWN, AllOrders(), False),
        (OWN, OwnOrders("U2", "sam@example.com"), False),
        (OWN, OwnOrders("U1", "old@example.com"), False),
        (OWN, OwnOrders("U2", "jo@example.com"), False),
        (NONE, AllOrders(), False),
        (NONE, OWN, False),
    ],
)
def test_of_a_turn_that_could_see_more_only_peoples_own_words_are_given(
    rights: Rights, needed: Rights, is_shown: bool
) -> None:
    past = build_tool_turn(1, rights=needed)

    told = build_messages([past], rights, ask("and?"))

    if is_shown:
        assert told == [*past.messages, HistoryMessage("user", ask("and?"))]
    else:
        assert told == [
            past.messages[0],
            said("assistant", WITHHELD),
            HistoryMessage("user", ask("and?")),
        ]
        assert "RM1" not in json.dumps([message.content for message in told])


# What Claude is sent


class Orders:
    async def find_order(self, order_id: str) -> Order | None:
        return next((order for order in SAMPLE_ORDERS if order.order_id == order_id), None)


@pytest.fixture
async def client(claude: LocalClaude) -> AsyncIterator[Claude]:
    async with open_claude(api_key=claude.api_key, base_url=claude.url) as opened:
        yield opened


def build_context(index: int) -> ToolContext:
    async def fetch_rights() -> Rights:
        return AllOrders()

    return ToolContext(
        turn_id=1,
        use_index=index,
        conversation=ConversationKey("T1", "C1", "1700000000.000100"),
        asker="U1",
        asked_ts="1700000000.000100",
        fetch_rights=fetch_rights,
    )


async def run_turn(
    client: Claude, messages: Sequence[HistoryMessage], ttl: CacheTtl | None = "5m"
) -> Outcome:
    agent = Agent(claude=client, tools=[GetOrder(Orders())], model="claude-sonnet-4-6")
    task = Task(messages=messages, ttl=ttl, context_for=build_context)
    return await agent.run(task, emit=lambda _: None, count=lambda _: None)


def marked_messages(body: Mapping[str, Any]) -> list[int]:
    """The messages with a breakpoint, each of them at the very end of its message."""
    marked = []
    for index, message in enumerate(body["messages"]):
        *before, last = message["content"]
        assert not any("cache_control" in block for block in before)
        if "cache_control" in last:
            marked.append(index)
    return marked


@pytest.mark.parametrize("ttl", ALL_TTLS)
async def test_the_prefix_the_previous_turn_and_the_moving_end_are_cached_in_every_step(
    claude: LocalClaude, client: Claude, ttl: CacheTtl | None
) -> None:
    past = [build_tool_turn(1, rights=AllOrders()), build_turn(2)]
    claude.script(*[tool_call("get_order", order_id="ORD-1001")] * 3, text("It is on its way."))

    await run_turn(client, build_messages(past, AllOrders(), ask("and?")), ttl)

    bodies = [request.body for request in claude.requests]
    assert [request.error for request in claude.requests] == [None] * 4
    for step, body in enumerate(bodies):
        assert body["system"][-1]["cache_control"]["type"] == "ephemeral"
        end = len(body["messages"]) - 1
        assert end == 6 + 2 * step
        assert marked_messages(body) == ([5, end] if ttl else [])
        assert list_breakpoints(body) == ([ttl] * 3 if ttl else ["5m"])


async def test_a_first_turn_caches_the_prefix_and_its_end(
    claude: LocalClaude, client: Claude
) -> None:
    await run_turn(client, build_messages([], AllOrders(), ask("hello")))

    [request] = claude.requests
    assert marked_messages(request.body) == [0]
    assert list_breakpoints(request.body) == ["5m", "5m"]


async def test_the_next_turn_reads_from_the_cache_what_the_last_one_wrote(
    claude: LocalClaude, client: Claude
) -> None:
    long = said("user", "Tell me about cotton. " * 400)
    outcome = await run_turn(client, [long])
    first = build_turn(1, messages=[long, *outcome.messages])

    await run_turn(client, build_messages([first], AllOrders(), ask("and linen?")))

    wrote, read = (request.usage or {} for request in claude.requests)
    assert wrote["cache_creation_input_tokens"] > 2_000
    assert read["cache_read_input_tokens"] >= wrote["cache_creation_input_tokens"]
    assert read["input_tokens"] < 50


@pytest.mark.parametrize(
    "past",
    [
        [build_turn(1, messages=[said("user", "stopped before a word")])],
        [build_tool_turn(1, rights=AllOrders()), build_tool_turn(2, rights=OWN)],
        [build_tool_turn(1, rights=NONE), build_turn(2), build_tool_turn(3, rights=OWN)],
        [build_turn(1, messages=build_tool_turn(1, rights=OWN).messages[:3], rights=OWN)],
    ],
    ids=["nothing said", "withheld and shown", "mixed", "ends with a tool result"],
)
@pytest.mark.parametrize("rights", [AllOrders(), OWN, NONE], ids=["all", "own", "none"])
@pytest.mark.parametrize("ttl", ALL_TTLS)
async def test_every_history_is_one_that_claude_accepts(
    claude: LocalClaude,
    client: Claude,
    past: list[PastTurn],
    rights: Rights,
    ttl: CacheTtl | None,
) -> None:
    messages = build_messages(past, rights, ask("and?"))

    await run_turn(client, messages, ttl)

    [request] = claude.requests
    assert request.error is None
    assert [message.role for message in messages][:: len(messages) - 1] == ["user", "user"]


async def test_what_a_turn_leaves_in_the_history_alternates_and_answers_every_tool_use(
    claude: LocalClaude, client: Claude
) -> None:
    claude.script(tool_call("get_order", order_id="ORD-1001"), text("It is on its way."))
    question = said("user", "where is it?")

    outcome = await run_turn(client, [question])
    turn = build_turn(1, messages=[question, *outcome.messages])
    await run_turn(client, build_messages([turn], AllOrders(), ask("thanks")))

    assert [message.role for message in turn.messages] == ["user", "assistant"] * 2
    [use] = turn.messages[1].content
    [result] = turn.messages[2].content
    assert use["id"] == result["tool_use_id"]
    assert claude.requests[-1].error is None


def test_marking_leaves_the_history_itself_as_it_is() -> None:
    messages = build_messages([build_turn()], AllOrders(), ask("and?"))
    before = json.dumps([message.content for message in messages])

    mark_cache(messages, turn_begins=2, ttl="1h")

    assert json.dumps([message.content for message in messages]) == before
