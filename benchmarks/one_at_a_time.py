"""What one person waits for: Claude's request, the first words, the rest after the last byte."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure, at_most, median, number, spread
from benchmarks.stage import (
    ANSWER_CHARS,
    KNOWN_ORDER_ID,
    REAL_SETUP,
    Asked,
    Bench,
    Stage,
    get_to_know,
    open_stage,
)

NAIVE_BOT = str(Path(__file__).with_name("naive_bot.py"))
_MS = 1_000


async def run(bench: Bench) -> list[Figure]:
    """The waits of one person in one thread, and those a naive bot would have caused."""
    async with asyncio.TaskGroup() as group:
        edits = group.create_task(_measure_naive(bench, edit_every_s=1), name="naive: edits")
        whole = group.create_task(_measure_naive(bench, edit_every_s=0), name="naive: whole")
    naive_s, whole_s = edits.result(), whole.result()
    async with open_stage(bench, bench.real_world) as stage:
        plain, with_tool = await _ask_alone(stage, bench)
        setup = f"known person and thread, {ANSWER_CHARS} characters; {REAL_SETUP}"
        to_request = [stage.requests(asked)[0].arrived_at - asked.asked_at for asked in plain]
        plain_s = _first_words_s(stage, plain)
        tool_s = _first_words_s(stage, with_tool)
        rest = [
            stage.whole_at(asked) - (stage.requests(asked)[-1].finished_at or 0.0)
            for asked in (*plain, *with_tool)
        ]
    return [
        at_most(
            25,
            "ms",
            name="heard → request at Claude",
            setup=setup,
            value=median(to_request) * _MS,
            details=spread(to_request, factor=_MS),
        ),
        at_most(
            0.9,
            "s",
            name="heard → first words, no tool",
            setup=setup,
            value=median(plain_s),
            details=spread(plain_s),
            against=f"naive bot, edits each second: {number(naive_s)} s "
            f"({number(naive_s / median(plain_s))}x); shows it whole: {number(whole_s)} s "
            f"({number(whole_s / median(plain_s))}x)",
        ),
        at_most(
            1.7,
            "s",
            name="heard → first words, one tool call",
            setup=setup,
            value=median(tool_s),
            details=spread(tool_s),
        ),
        at_most(
            100,
            "ms",
            name="last byte → whole answer, one at a time",
            setup=setup,
            value=median(rest) * _MS,
            details=spread(rest, factor=_MS),
        ),
    ]


async def _ask_alone(stage: Stage, bench: Bench) -> tuple[list[Asked], list[Asked]]:
    """Questions of one person in one thread: without and with a tool call."""
    thread_ts = (await get_to_know(stage, stage.slack.support.id)).thread_ts
    plain: list[Asked] = []
    with_tool: list[Asked] = []
    for index in range(bench.choose(full=20, quick=6, tiny=2)):
        kind, order_id = (with_tool, KNOWN_ORDER_ID) if index % 2 else (plain, None)
        await asyncio.sleep(bench.reading_s)
        asked = stage.ask(stage.slack.support.id, thread_ts=thread_ts, order_id=order_id)
        await stage.wait(asked)
        kind.append(asked)
    return plain, with_tool


async def _measure_naive(bench: Bench, *, edit_every_s: float) -> float:
    """The median wait for the first words of a naive bot, in seconds."""
    variables = {"EDIT_EVERY_S": str(edit_every_s)}
    async with open_stage(
        bench, bench.real_world, variables=variables, command=(NAIVE_BOT,)
    ) as stage:
        first = stage.ask(stage.slack.support.id)
        await stage.wait(first)
        asked: list[Asked] = []
        for _ in range(bench.choose(full=5, quick=3, tiny=1)):
            await asyncio.sleep(bench.reading_s)
            asked.append(stage.ask(stage.slack.support.id, thread_ts=first.thread_ts))
            await stage.wait(asked[-1])
        return median(_first_words_s(stage, asked))


def _first_words_s(stage: Stage, asked: Sequence[Asked]) -> list[float]:
    return [stage.first_words_at(one) - one.asked_at for one in asked]
