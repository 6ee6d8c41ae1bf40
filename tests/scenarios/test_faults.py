"""Whatever Claude and Slack do wrong, at whatever step of a turn: one table of faults and steps.

Each cell is run, or says why there is nothing to run. Each that is run ends in a complete answer, a
complete answer with its note, an apology, or a turn on record as undeliverable; and the next
message is answered as if nothing had been.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slackbot.agent.tools.escalate import HANDED_OVER, NOT_CONNECTED
from slackbot.apologies import INVITE_ME, apologise
from slackbot.claude.client import open_claude
from slackbot.playground.claude_faults import Fault, Stalled, StreamError
from slackbot.playground.claude_mind import Reply, TextBlock
from slackbot.playground.claude_server import LocalClaude, open_local_claude
from slackbot.playground.slack_faults import Held, Refused
from slackbot.playground.slack_server import LocalSlack
from slackbot.slack.markdown import finished, split
from slackbot.store.sqlite import open_sqlite_store
from tests.scenarios.faults_of_claude import (
    BEFORE,
    CLAUDE_FAULTS,
    CRASHING_ORDER,
    HANGING_ORDER,
    INTERRUPTED,
    NEXT_ANSWER,
    NEXT_QUESTION,
    QUESTION,
    SHOWN_DELTAS,
    Blow,
    ClaudeFault,
    Step,
    at_step,
    is_first_turn,
    play,
)
from tests.scenarios.faults_of_slack import (
    ESCALATES,
    SLACK_CALLS,
    SLACK_FAULTS,
    Hits,
    Hold,
    Outcome,
    Place,
    SlackCall,
    build_fault,
)
from tests.scenarios.harness import (
    all_pings,
    answers,
    hasty_sleep,
    running_bot,
    shown_text,
    wait_for_answer,
)

PATIENCE_S = 9

CLAUDE_CELLS = [
    pytest.param(fault, step, id=f"{fault.name}: {step}")
    for fault in CLAUDE_FAULTS
    for step in Step
    if step in fault.steps
]
SLACK_CELLS = [
    pytest.param(call, fault, id=f"{call.name}: {fault}")
    for call in SLACK_CALLS
    for fault in SLACK_FAULTS
    if isinstance(call.cells[fault], Outcome)
]


class OddOrders:
    """The store, with one order that crashes a lookup and one that makes it hang."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find_order(self, order_id: str) -> Any:
        if order_id == CRASHING_ORDER:
            raise ZeroDivisionError("a secret of ours")
        if order_id == HANGING_ORDER:
            await asyncio.Event().wait()
        return await self._store.find_order(order_id)


@asynccontextmanager
async def open_odd_store(path: Path) -> AsyncIterator[Any]:
    async with open_sqlite_store(path) as store:
        yield OddOrders(store)


OPTIONS = {
    "open_store": open_odd_store,
    "open_claude": partial(open_claude, retry_after_cap_s=0.01),
    "sleep": hasty_sleep,
}


@pytest.mark.parametrize(("fault", "step"), CLAUDE_CELLS)
async def test_whatever_claude_does_there_is_one_answer_or_one_apology_and_the_next_answer(
    slack: LocalSlack, tmp_path: Path, fault: ClaudeFault, step: Step
) -> None:
    is_shown = asyncio.Event()
    database = tmp_path / "shop.db"
    options = {**OPTIONS, "limits": fault.limits}
    claude_plays = open_local_claude(mind=play(replies_at(fault, step)))
    async with asyncio.timeout(PATIENCE_S), claude_plays as claude:
        for one in build_faults(fault, step, is_shown):
            claude.add(one)
        async with running_bot(slack, claude, database, options, **fault.variables):
            ts = slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> {QUESTION}")
            await claude.wait_for_request()
            if step in {Step.BELOW_WORDS, Step.IN_WORDS}:
                await slack.wait_until(lambda: bool(answers(slack, slack.support.id, ts)))
                is_shown.set()
            slack.say(slack.alex.id, slack.support.id, NEXT_QUESTION, thread_ts=ts)
            await next_is_answered(slack)

    expected = apologise(fault.error) if fault.error else expected_answer(fault, step)
    assert said_by(slack) == [expected, NEXT_ANSWER]
    assert count_requests(claude) == len(BEFORE[step]) + (fault.requests or len(fault.replies))
    assert load_turns(database) == [
        ("done", "apology" if fault.error else fault.ending),
        ("done", "complete"),
    ]
    assert not slack.status_of(slack.support.id, ts)
    assert all_pings(slack) == []


def replies_at(fault: ClaudeFault, step: Step) -> list[Reply]:
    own = fault.in_words if step is Step.IN_WORDS else fault.replies
    return [*BEFORE[step], *own]


def build_faults(fault: ClaudeFault, step: Step, is_shown: asyncio.Event) -> list[Fault]:
    """The fault, and whatever holds Claude until its words are shown."""
    held = Stalled(after_deltas=SHOWN_DELTAS, release=is_shown, where=at_step(0))
    if fault.strike is None:
        return [held] if step in {Step.BELOW_WORDS, Step.IN_WORDS} else []
    in_words = step is Step.IN_WORDS
    blow = Blow(
        where=at_step(len(BEFORE[step])),
        after_deltas=fault.in_words_after if in_words else fault.after_deltas,
        once=is_shown if in_words else None,
    )
    return [fault.strike(blow), *([held] if step is Step.BELOW_WORDS else [])]


def expected_answer(fault: ClaudeFault, step: Step) -> str:
    own = fault.in_words if step is Step.IN_WORDS else fault.replies
    said = [fault.said] if fault.said else words_of(*own)
    return "\n\n".join([*words_of(*BEFORE[step]), *said, *([fault.note] if fault.note else [])])


def words_of(*replies: Reply) -> list[str]:
    blocks = [block for reply in replies for block in reply.blocks]
    return [block.text for block in blocks if isinstance(block, TextBlock)]


def said_by(slack: LocalSlack) -> list[str]:
    """All that ShopMate's messages show in the end, wherever they are."""
    return [
        shown_text(message)
        for message in slack.all_messages
        if message.user == slack.bot_user_id and not message.is_deleted
    ]


async def next_is_answered(slack: LocalSlack) -> None:
    await slack.wait_until(lambda: any(NEXT_ANSWER in said for said in said_by(slack)))


def count_requests(claude: LocalClaude) -> int:
    return sum(is_first_turn(request.body) for request in claude.requests)


def load_turns(database: Path) -> list[tuple[str, str]]:
    """State and ending of every turn, in order."""
    with sqlite3.connect(database) as connection:
        return connection.execute("select state, ending from turns order by id").fetchall()


@pytest.mark.parametrize(("call", "fault"), SLACK_CELLS)
async def test_whatever_slack_does_there_is_one_whole_answer_or_none_can_be_and_the_next_answer(
    slack: LocalSlack, tmp_path: Path, call: SlackCall, fault: str
) -> None:
    database = tmp_path / "shop.db"
    variables = {"SHOPMATE_TEAM_CHANNEL": slack.copy.id}
    if fault == "429" and call.method in {"chat.postMessage", "chat.update"}:
        variables["SHOPMATE_PACER"] = "on"
    hits = Hits(call, fault)
    deletion = Held(method=call.method, where=hits)
    is_real_deletion = fault == "message_not_found" and call.method in {
        "chat.update",
        "chat.delete",
    }
    slack.faults.add(*call.before)
    slack.faults.add(deletion if is_real_deletion else build_fault(fault, call, hits))
    claude_plays = open_local_claude(mind=play(call.replies))
    async with asyncio.timeout(PATIENCE_S), claude_plays as claude:
        holds = [(hold, asyncio.Event()) for hold in call.holds]
        for hold, release in holds:
            claude.add(build_hold(hold, release))
        async with running_bot(slack, claude, database, OPTIONS, **variables):
            asked = ask(slack, call.place)
            await claude.wait_for_request()
            async with asyncio.TaskGroup() as group:
                if is_real_deletion:
                    group.create_task(delete_when_reached(slack, deletion), name="deletion")
                for hold, release in holds:
                    await slack.wait_until(partial(hold.until, slack))
                    release.set()
            ask_next(slack, call.place, asked)
            await next_is_answered(slack)

    outcome = call.cells[fault]
    assert isinstance(outcome, Outcome)
    assert hits.has_struck
    check_outcome(slack, call, outcome, asked)
    states = [state for state, _ in load_turns(database)]
    is_lost = outcome in {Outcome.UNDELIVERABLE, Outcome.INVITATION}
    assert states == ["undeliverable" if is_lost else "done", "done"]
    if call.replies == ESCALATES:
        check_escalation(slack, claude, outcome)
    else:
        assert all_pings(slack) == []


@dataclass(frozen=True, slots=True)
class Asked:
    """Where the question is, and of which thread the answer is part."""

    channel: str
    ts: str
    thread_ts: str | None


def ask(slack: LocalSlack, place: Place) -> Asked:
    mention = f"<@{slack.bot_user_id}> {QUESTION}"
    match place:
        case Place.DM:
            channel = slack.open_dm(slack.jo.id).id
            return Asked(channel, slack.say(slack.jo.id, channel, QUESTION), None)
        case Place.PEOPLES_THREAD:
            channel = slack.support.id
            root = slack.say(slack.sam.id, channel, "the parcels are late today")
            return Asked(channel, slack.say(slack.alex.id, channel, mention, thread_ts=root), root)
        case Place.THREAD | Place.OUTSIDE:
            channel = slack.support.id if place is Place.THREAD else slack.random.id
            ts = slack.say(slack.alex.id, channel, mention)
            return Asked(channel, ts, ts)


def ask_next(slack: LocalSlack, place: Place, asked: Asked) -> None:
    if place is Place.DM:
        slack.say(slack.jo.id, asked.channel, NEXT_QUESTION)
    elif place is Place.OUTSIDE:
        mention = f"<@{slack.bot_user_id}> {NEXT_QUESTION}"
        slack.say(slack.alex.id, slack.support.id, mention)
    else:
        slack.say(slack.alex.id, asked.channel, NEXT_QUESTION, thread_ts=asked.thread_ts)


def build_hold(hold: Hold, release: asyncio.Event) -> Fault:
    where = at_step(hold.step)
    if hold.breaks_twice:
        return StreamError(after_deltas=hold.after_deltas, once=release, times=2, where=where)
    return Stalled(after_deltas=hold.after_deltas, release=release, where=where)


async def delete_when_reached(slack: LocalSlack, held: Held) -> None:
    """Somebody deletes the message that ShopMate is about to change."""
    await held.reached.wait()
    last = [m for m in slack.all_messages if m.user == slack.bot_user_id][-1]
    slack.delete(last.channel, last.ts)
    held.release.set()


def check_outcome(slack: LocalSlack, call: SlackCall, outcome: Outcome, asked: Asked) -> None:
    shown = [
        shown_text(message)
        for message in answers(slack, asked.channel, asked.thread_ts)
        if shown_text(message) != NEXT_ANSWER
    ]
    invitations = answers(slack, slack.open_dm(slack.alex.id).id)
    whole = expected_messages(call)
    match outcome:
        case Outcome.COMPLETE | Outcome.LEFTOVER | Outcome.NOBODY_TOLD:
            assert shown[: len(whole)] == whole
            assert len(shown) == len(whole) or outcome is Outcome.LEFTOVER
        case Outcome.IN_PLAIN_TEXT:
            assert " ".join(shown).split() == " ".join(whole).split()
        case Outcome.TWICE:
            assert shown == whole * 2
        case _:
            assert all("".join(whole).startswith(part[:-1]) for part in shown)
    invitation = INVITE_ME.format(channel=f"<#{asked.channel}>")
    is_invited = outcome is Outcome.INVITATION
    assert [message.text for message in invitations] == ([invitation] if is_invited else [])
    if outcome is not Outcome.LEFTOVER:
        assert not slack.status_of(asked.channel, asked.thread_ts or asked.ts)
        assert not reactions_on(slack, asked)


def check_escalation(slack: LocalSlack, claude: LocalClaude, outcome: Outcome) -> None:
    """The team is told once, and Claude is told the truth about it."""
    (result,) = [
        block
        for request in claude.requests[:2]
        for block in request.body["messages"][-1]["content"]
        if block["type"] == "tool_result"
    ]
    is_told = outcome is Outcome.COMPLETE
    assert len(answers(slack, slack.copy.id)) == is_told
    assert result["content"] == (HANDED_OVER if is_told else NOT_CONNECTED)


def expected_messages(call: SlackCall) -> list[str]:
    if call.method == "chat.delete":
        return [apologise(INTERRUPTED)]
    said = call.said or "\n\n".join(words_of(*call.replies))
    return [finished(part) for part in split(said)]


def reactions_on(slack: LocalSlack, asked: Asked) -> list[str]:
    (question,) = [m for m in slack.messages(asked.channel) if m.ts == asked.ts]
    return list(question.reactions)


def test_every_cell_of_the_table_is_run_or_says_why_it_is_empty() -> None:
    run, empty = 0, []
    for fault in CLAUDE_FAULTS:
        assert fault.steps ^ set(fault.empty) == set(Step), fault.name
        run += len(fault.steps)
        empty += [f"Claude, {fault.name}: {step}: {why}" for step, why in fault.empty.items()]
    for call in SLACK_CALLS:
        assert set(call.cells) == set(SLACK_FAULTS), call.name
        run += sum(isinstance(cell, Outcome) for cell in call.cells.values())
        empty += [
            f"Slack, {call.name}: {fault}: {why}"
            for fault, why in call.cells.items()
            if not isinstance(why, Outcome)
        ]

    print("", *empty, f"{run} cells run, {len(empty)} empty", sep="\n")  # noqa: T201 - the table
    assert run == len(CLAUDE_CELLS) + len(SLACK_CELLS)
    assert all(empty)


async def test_an_answer_waits_for_a_token_that_works(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    slack.faults.add(Refused(method="chat.postMessage", error="token_revoked", times=3))
    async with running_bot(slack, claude, tmp_path / "shop.db", OPTIONS):
        ts = slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> count to 5")
        await wait_for_answer(slack, slack.support.id, ts, holding="5")

    assert len(answers(slack, slack.support.id)) == 1
