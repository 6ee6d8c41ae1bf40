"""Whether a turn gets slower with the years: a full database against a fresh one."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report import Figure, at_most, median, spread
from benchmarks.stage import (
    INSTANT,
    INSTANT_SETUP,
    KNOWN_ORDER_ID,
    Asked,
    Bench,
    Stage,
    get_to_know,
    open_stage,
)
from slackbot.domain.conversation import ChannelKind, ConversationKey, Place
from slackbot.domain.messages import HeardMessage
from slackbot.domain.rights import AllOrders
from slackbot.domain.turns import Ending, HistoryMessage, StepUsage, TurnState
from slackbot.store.base import Answer, NewTurn, ToldMessage
from slackbot.store.sqlite import SqliteStore, open_sqlite_store

TURNS_A_THREAD = 10
THREADS_AT_ONCE = 100  # what waits together is committed together
CHANNELS = 20
FIRST_TURN_AT = datetime(2026, 1, 5, 9, tzinfo=UTC)
TEAM = "T0LOCAL0001"
QUESTION = "Hello! Where is ORD-1001? It was meant for my sister's birthday, and that is on Friday."
ORDER = '{"order_id":"ORD-1001","status":"shipped","item":"Sunset Gradient Tee (M, Orange)"}'
ANSWER = "It is on its way, and should be with you by the second of April. " * 6


async def run(bench: Bench) -> list[Figure]:
    """The median turn of a bot with a full database ÷ that of one with a fresh database."""
    threads = bench.choose(full=1_000, quick=200, tiny=5)
    turns = bench.choose(full=200, quick=60, tiny=4)
    off = {"SHOPMATE_PACER": "off"}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="shopmate-bench-")))
        await fill(folder / "full.db", threads=threads)
        size_mb = (folder / "full.db").stat().st_size / 1_000_000
        full = await stack.enter_async_context(
            open_stage(bench, INSTANT, variables=off, database=folder / "full.db")
        )
        fresh = await stack.enter_async_context(
            open_stage(bench, INSTANT, variables=off, database=folder / "fresh.db")
        )
        full_s, fresh_s = await _measure(full, fresh, turns=turns)
    return [
        at_most(
            1.1,
            "x",
            name="turn with a full ÷ a fresh database",
            setup=f"{turns} turns each, in turns, half of them a thread's second, one tool call; "
            f"{threads * TURNS_A_THREAD:,} turns in {threads:,} threads ({size_mb:.0f} MB); "
            f"{INSTANT_SETUP}, pacer off",
            value=median(full_s) / median(fresh_s),
            details=f"ms: {spread(full_s, factor=1_000)}",
            against=f"fresh: {spread(fresh_s, factor=1_000)}",
        )
    ]


async def _measure(full: Stage, fresh: Stage, *, turns: int) -> tuple[list[float], list[float]]:
    """The turns' latencies in seconds, one of each by turns: noise meets both."""
    for stage in (full, fresh):
        await get_to_know(stage, stage.slack.support.id)
    taken: dict[Stage, list[float]] = {full: [], fresh: []}
    last: dict[Stage, Asked] = {}
    for index in range(turns):
        for stage in (full, fresh) if index % 4 < 2 else (fresh, full):
            thread_ts = last[stage].thread_ts if index % 2 else None
            asked = stage.ask(stage.slack.support.id, thread_ts=thread_ts, order_id=KNOWN_ORDER_ID)
            await stage.wait(asked)
            taken[stage].append(stage.whole_at(asked) - asked.asked_at)
            last[stage] = asked
    return taken[full], taken[fresh]


async def fill(path: Path, *, threads: int) -> None:
    """Makes the database `path` one of a bot that has long been at work."""
    async with open_sqlite_store(path) as store:
        for first in range(0, threads, THREADS_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for number in range(first, min(first + THREADS_AT_ONCE, threads)):
                    group.create_task(_talk(store, number), name=f"thread {number}")


async def _talk(store: SqliteStore, number: int) -> None:
    begun_at = FIRST_TURN_AT + timedelta(minutes=7 * number)
    stamps = [_ts(begun_at + timedelta(seconds=30 * turn)) for turn in range(TURNS_A_THREAD)]
    for turn, ts in enumerate(stamps):
        thread_ts = stamps[0] if turn else None
        heard = HeardMessage(
            team=TEAM,
            channel=f"C0FULL{number % CHANNELS:04d}",
            ts=ts,
            thread_ts=thread_ts,
            author="U0LOCAL0002",
            author_team=TEAM,
            place=Place(ChannelKind.CHANNEL, is_shared=False),
            text=QUESTION,
            mentions_shopmate=True,
        )
        recorded = await store.record_message(heard)
        if recorded.conversation is not None:
            await _answer(store, recorded.conversation, thread_ts)


async def _answer(store: SqliteStore, key: ConversationKey, thread_ts: str | None) -> None:
    if thread_ts:  # its first message is a question of ShopMate's, there is nothing to read
        await store.record_context(key, [])
    conversation = await store.load_conversation(key)
    told = [
        ToldMessage(message=message, prefix="Alex Morgan: ", text=message.text)
        for message in conversation.waiting
    ]
    new = NewTurn(
        conversation=key,
        preamble="[Monday 05 January 2026, 09:00 UTC, in a channel]",
        told=told,
        rights=AllOrders(),
        history_from=1,
    )
    begun = await store.begin_turn(new)
    if begun is None:
        raise ValueError(f"the turn of {key} did not begin")
    await store.intend_post(begun.turn.id, "0")
    await store.save_post(begun.turn.id, "0", begun.turn.asked_ts)
    await store.save_answer(begun.turn.id, _build_answer(begun.turn.id))
    await store.close_turn(begun.turn.id, TurnState.DONE)


def _build_answer(turn_id: int) -> Answer:
    use_id = f"toolu_{turn_id:024d}"
    use = {"type": "tool_use", "id": use_id, "name": "get_order", "input": {"order_id": "ORD-1001"}}
    result = {"type": "tool_result", "tool_use_id": use_id, "content": ORDER}
    usage = StepUsage(
        model="claude-sonnet-4-6",
        input_tokens=30,
        cache_write_5m_tokens=200,
        cache_write_1h_tokens=0,
        cache_read_tokens=3_000,
        output_tokens=80,
        cost_usd=0.003,
    )
    return Answer(
        text=ANSWER,
        ending=Ending.COMPLETE,
        messages=[
            HistoryMessage("assistant", [use]),
            HistoryMessage("user", [result]),
            HistoryMessage("assistant", [{"type": "text", "text": ANSWER}]),
        ],
        usage=[usage, usage],
    )


def _ts(at: datetime) -> str:
    return f"{at.timestamp():.6f}"
