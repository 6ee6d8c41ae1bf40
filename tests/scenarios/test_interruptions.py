import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slackbot import apologies
from slackbot.claude.client import Claude, StepPiece, StepRequest, open_claude
from slackbot.errors import StoreError
from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_mind import Body, Reply, TextBlock, text
from slackbot.playground.claude_server import LocalClaude, open_local_claude
from slackbot.playground.slack_calls import ApiCall
from slackbot.playground.slack_faults import Held, RateLimited
from slackbot.playground.slack_server import LocalSlack
from slackbot.store.sqlite import open_sqlite_store
from tests.scenarios.faults_of_claude import LOOKUP, steps_taken
from tests.scenarios.harness import answers, running_bot, shown_text, wait_for_answer
from tests.scenarios.overheard import all_acknowledged, newest_texts

GROWN = 50  # deltas until there is more than enough to post
TWO_MESSAGES = 3_000
ALWAYS = 1_000_000
ASIDE = "Let me ask <!channel> & <@U0LOCAL0002>."

OpenStore = Callable[[Path], AbstractAsyncContextManager[Any]]


class Failing:
    """What a method of the store does instead: it fails, `times` times."""

    def __init__(self, *, times: int) -> None:
        self._left = times
        self.reached = asyncio.Event()

    async def __call__(
        self, method: Callable[..., Awaitable[Any]], *args: Any, **named: Any
    ) -> Any:
        self.reached.set()
        if self._left:
            self._left -= 1
            raise StoreError("database or disk is full")
        return await method(*args, **named)


class Holding:
    """What a method of the store does instead: its first call waits for `release`."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(
        self, method: Callable[..., Awaitable[Any]], *args: Any, **named: Any
    ) -> Any:
        if not self.reached.is_set():
            self.reached.set()
            await self.release.wait()
        return await method(*args, **named)


class OddStore:
    """The store, one method of which is odd."""

    def __init__(self, store: Any, name: str, oddity: Failing | Holding) -> None:
        self._store = store
        self._name = name
        self._oddity = oddity

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return partial(self._oddity, method) if name == self._name else method


def store_with(name: str, oddity: Failing | Holding) -> OpenStore:
    @asynccontextmanager
    async def open_store(path: Path) -> AsyncIterator[OddStore]:
        async with open_sqlite_store(path) as store:
            yield OddStore(store, name, oddity)

    return open_store


class LingeringClaude:
    """Claude, whose streams take until `release` to close."""

    def __init__(self, claude: Claude, *, closing: asyncio.Event, release: asyncio.Event) -> None:
        self._claude = claude
        self._closing = closing
        self._release = release

    async def stream_step(self, request: StepRequest) -> AsyncGenerator[StepPiece, None]:
        try:
            async with aclosing(self._claude.stream_step(request)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._closing.set()
            await self._release.wait()


class ReleaseOnLog(logging.Handler):
    """Sets `release` when the bot logs `event`."""

    def __init__(self, event: str, release: asyncio.Event) -> None:
        super().__init__()
        self._event = event
        self._release = release

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == self._event:
            self._release.set()


async def hurried_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds / 200)


def ask(slack: LocalSlack, words: str, *, channel: str = "", thread_ts: str | None = None) -> str:
    """The ts of a mention by alex, in #support unless said otherwise."""
    mention = f"<@{slack.bot_user_id}> {words}"
    return slack.say(slack.alex.id, channel or slack.support.id, mention, thread_ts=thread_ts)


def said(slack: LocalSlack, ts: str) -> list[str]:
    """What people read of ShopMate in a thread of #support."""
    return [shown_text(message) for message in answers(slack, slack.support.id, ts)]


def calls_of(slack: LocalSlack, method: str) -> list[ApiCall]:
    return [call for call in slack.calls if call.method == method]


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(query).fetchall()


def has_tool_results(body: Body) -> bool:
    return steps_taken(body) == 1


def load_costs(database: Path) -> list[Any]:
    """The state of each turn, and how many requests of it are accounted for."""
    return rows(
        database,
        "select state, count(usage.id) from turns left join usage on turn_id = turns.id"
        " and cost_usd > 0 group by turns.id order by turns.id",
    )


async def test_an_edit_of_a_question_left_over_by_a_restart_costs_no_question_its_answer(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    before, after = Stalled(), Stalled()
    claude.add(before)
    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_DRAIN_S="0"):
        ts = ask(slack, "say exactly: old")
        await before.reached.wait()
    claude.add(after)

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        await after.reached.wait()
        slack.edit(slack.support.id, ts, f"<@{slack.bot_user_id}> say exactly: new")
        await wait_for_answer(slack, slack.support.id, ts)
        ask(slack, "say exactly: next", thread_ts=ts)
        await wait_for_answer(slack, slack.support.id, ts, count=2)

    assert said(slack, ts) == ["new", "next"]


async def test_a_stop_for_a_question_that_had_not_begun_does_not_silence_the_next(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    held = Held(method="users.info")
    slack.faults.add(held)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack, "hello")
        await held.reached.wait()
        slack.say(slack.alex.id, slack.support.id, "stop", thread_ts=ts)
        await all_acknowledged(slack)
        ask(slack, "say exactly: second", thread_ts=ts)
        await all_acknowledged(slack)

        held.release.set()
        await wait_for_answer(slack, slack.support.id, ts)

    assert said(slack, ts) == ["second"]


async def test_an_answer_stopped_while_it_waits_to_be_shown_leaves_nothing_half_written(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    others, ours, closing_turn = Stalled(after_deltas=GROWN), Stalled(after_deltas=GROWN), Holding()
    options = {"open_store": store_with("close_turn", closing_turn)}
    database, copy = tmp_path / "shop.db", slack.copy.id
    async with running_bot(slack, claude, database, options, SHOPMATE_PACER="on"):
        claude.add(others)  # its final edit is all the pacer has
        other_ts = ask(slack, "write 60 words", channel=copy)
        await wait_for_answer(slack, copy, other_ts)
        claude.add(ours)
        ts = ask(slack, "write 60 words")
        await ours.reached.wait()
        slack.say(slack.alex.id, slack.support.id, "stop", thread_ts=ts)
        await closing_turn.reached.wait()

        others.release.set()  # now the pacer would admit ours
        await wait_for_answer(slack, copy, other_ts, holding="Line 6")
        ask(slack, "say exactly: done", channel=copy, thread_ts=other_ts)
        await wait_for_answer(slack, copy, other_ts, count=2, holding="done")
        closing_turn.release.set()
        ours.release.set()

    # On a slow machine it may have been shown before the stop was heard.
    assert all(words.endswith(apologies.STOPPED) for words in said(slack, ts))
    assert rows(database, "select ending from turns where id = 2") == [("stopped",)]


@pytest.mark.parametrize(
    ("failures", "first"), [(2, "one"), (4, apologies.TOO_MANY_ATTEMPTS)], ids=["twice", "for long"]
)
async def test_a_store_that_fails_delays_answers_but_neither_loses_nor_swaps_them(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, failures: int, first: str
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    failing = Failing(times=failures)
    options = {"open_store": store_with("save_answer", failing), "sleep": hurried_sleep}
    async with running_bot(slack, claude, tmp_path / "shop.db", options):
        ts = ask(slack, "say exactly: one")
        await stalled.reached.wait()
        ask(slack, "say exactly: two", thread_ts=ts)
        await all_acknowledged(slack)

        stalled.release.set()
        await wait_for_answer(slack, slack.support.id, ts, count=2)
        ask(slack, "say exactly: three", thread_ts=ts)
        await wait_for_answer(slack, slack.support.id, ts, count=3)

    assert said(slack, ts) == [first, "two", "three"]


async def test_a_question_edited_before_its_written_answer_is_posted_is_answered_once_anew(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    database, failing, holding = tmp_path / "shop.db", Failing(times=ALWAYS), Holding()
    options = {"open_store": store_with("intend_post", failing)}
    async with running_bot(slack, claude, database, options, SHOPMATE_DRAIN_S="0"):
        ts = ask(slack, "say exactly: old")
        await failing.reached.wait()
    left = rows(database, "select state, final_text from turns")

    async with running_bot(
        slack, claude, database, {"open_store": store_with("intend_post", holding)}
    ):
        await holding.reached.wait()
        slack.edit(slack.support.id, ts, f"<@{slack.bot_user_id}> say exactly: new")
        await all_acknowledged(slack)
        holding.release.set()
        await wait_for_answer(slack, slack.support.id, ts)

    assert left == [("written", "old")]
    assert said(slack, ts) == ["new"]
    assert [newest_texts(request.body) for request in claude.requests] == [
        ["alex: say exactly: old"],
        ["alex: say exactly: new"],
    ]


async def test_the_invitation_is_sent_once_over_a_crash_before_its_turn_is_closed(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    database, failing = tmp_path / "shop.db", Failing(times=ALWAYS)
    options = {"open_store": store_with("close_turn", failing)}
    async with running_bot(slack, claude, database, options, SHOPMATE_DRAIN_S="0"):
        ask(slack, "hello", channel=slack.random.id)
        await failing.reached.wait()
    invited, left = len(answers(slack, slack.open_dm(slack.alex.id).id)), len(slack.calls)

    async with running_bot(slack, claude, database):
        await slack.wait_for("chat.postMessage", after=left)

    assert invited == 1
    assert len(answers(slack, slack.open_dm(slack.alex.id).id)) == 1
    assert rows(database, "select state from turns") == [("undeliverable",)]


async def test_a_limited_deletion_is_waited_out_without_another_edit_of_the_answer(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    database = tmp_path / "shop.db"
    stalled = Stalled(after_deltas=TWO_MESSAGES)
    claude.add(stalled)
    async with running_bot(slack, claude, database, SHOPMATE_DRAIN_S="0"):
        ts = ask(slack, "write 2,500 words")
        await wait_for_answer(slack, slack.support.id, ts, count=2)
    slack.faults.add(RateLimited(method="chat.delete", retry_after_s=1))
    edits = len(calls_of(slack, "chat.update"))

    async with (
        open_local_claude(mind=lambda _: text("Short.")) as brief_claude,
        running_bot(slack, brief_claude, database),
    ):
        await slack.wait_for("chat.delete", where=lambda call: call.error is None)

    assert said(slack, ts) == ["Short."]
    assert [call.error for call in calls_of(slack, "chat.delete")] == ["ratelimited", None]
    assert len(calls_of(slack, "chat.update")) - edits == 1


async def test_a_bot_that_is_stopped_while_an_answer_is_being_stopped_ends_cleanly(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    database, is_closing, release = tmp_path / "shop.db", asyncio.Event(), asyncio.Event()
    stalled = Stalled(after_deltas=GROWN)
    claude.add(stalled)

    @asynccontextmanager
    async def open_lingering(**how: Any) -> AsyncIterator[LingeringClaude]:
        async with open_claude(**how) as client:
            yield LingeringClaude(client, closing=is_closing, release=release)

    handler = ReleaseOnLog("turns.interrupted", release)
    logging.getLogger("slackbot.turns").addHandler(handler)
    try:
        async with running_bot(
            slack, claude, database, {"open_claude": open_lingering}, SHOPMATE_DRAIN_S="0"
        ):
            ts = ask(slack, "write 60 words")
            await wait_for_answer(slack, slack.support.id, ts)
            slack.say(slack.alex.id, slack.support.id, "stop", thread_ts=ts)
            await is_closing.wait()
    finally:
        logging.getLogger("slackbot.turns").removeHandler(handler)
        stalled.release.set()

    [answer] = said(slack, ts)
    assert answer.endswith(apologies.STOPPED)
    assert rows(database, "select state, ending from turns") == [("done", "stopped")]


async def test_what_a_superseded_turn_cost_is_kept(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    database, stalled = tmp_path / "shop.db", Stalled(where=has_tool_results)
    claude.add(stalled)
    async with running_bot(slack, claude, database):
        ts = ask(slack, "where is ORD-1001?")
        await stalled.reached.wait()
        slack.edit(slack.support.id, ts, f"<@{slack.bot_user_id}> say exactly: new")
        await wait_for_answer(slack, slack.support.id, ts)

    assert load_costs(database) == [("superseded", 1), ("done", 1)]


async def test_what_a_postponed_turn_cost_is_kept(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    database, stalled = tmp_path / "shop.db", Stalled(where=has_tool_results)
    claude.add(stalled)

    async with running_bot(slack, claude, database, SHOPMATE_DRAIN_S="0"):
        ask(slack, "where is ORD-1001?")
        await stalled.reached.wait()

    assert load_costs(database) == [("running", 1)]


async def test_a_status_in_claudes_words_can_notify_nobody(
    slack: LocalSlack, tmp_path: Path
) -> None:
    stalled = Stalled(where=has_tool_results)
    aside = Reply((TextBlock(ASIDE), *LOOKUP.blocks))

    def mind(body: Body) -> Reply:
        return text("It is on its way.") if has_tool_results(body) else aside

    async with open_local_claude(mind=mind) as claude:
        claude.add(stalled)
        async with running_bot(slack, claude, tmp_path / "shop.db"):
            ts = ask(slack, "where is ORD-1001?")
            await slack.wait_until(lambda: "ask" in slack.status_of(slack.support.id, ts))
            stalled.release.set()
            await wait_for_answer(slack, slack.support.id, ts)

    statuses = [call.arguments["status"] for call in calls_of(slack, "assistant.threads.setStatus")]
    assert any("ask" in status for status in statuses)
    assert not any("<" in status for status in statuses)
