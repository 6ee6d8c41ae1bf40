"""Twenty people at once, in twenty channels: how late, how often refused, how many wrong."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

from benchmarks.report import Figure, at_most, percentile, spread
from benchmarks.stage import (
    ANSWER_CHARS,
    REAL_SETUP,
    Bench,
    Stage,
    Verdict,
    get_to_know,
    open_stage,
)
from slackbot.playground.slack_limits import RateLimit, SlackLimits

AT_ONCE = 20
EDITS_PER_MINUTE = 30
BURSTS = (1, 5)
ROUND_S = 10.0  # from one round to the next, and idle before the first
_REFUSED = 429


async def run(bench: Bench) -> list[Figure]:
    """Rounds of twenty questions, with Slack's usual limits and with others."""
    figures = await _run_with_usual_limits(bench)
    async with asyncio.TaskGroup() as group:
        others = [
            group.create_task(_run_with_burst(bench, burst), name=f"burst {burst}")
            for burst in BURSTS[: bench.choose(full=2, quick=2, tiny=1)]
        ]
    return [*figures, *(figure for other in others for figure in other.result())]


async def _run_with_usual_limits(bench: Bench) -> list[Figure]:
    rounds = bench.choose(full=3, quick=2, tiny=1)
    async with open_stage(bench, bench.real_world) as stage:
        await _ask_in_rounds(stage, rounds, at_once=bench.choose(full=20, quick=20, tiny=3))
        rest = [
            stage.whole_at(asked) - (stage.requests(asked)[-1].finished_at or 0.0)
            for asked in stage.asked
            if asked.question.chars == ANSWER_CHARS and asked.done.is_set()
        ]
        setup = f"{rounds} rounds of {AT_ONCE} in {AT_ONCE} channels, 10 s apart; {REAL_SETUP}"
        wrong, refused = _count_wrong(stage), stage.slack.rate_limited
    return [
        at_most(
            1,
            "s p95",
            name="last byte → whole answer, 20 at once",
            setup=setup,
            value=percentile(rest, 95),
            details=spread(rest),
        ),
        at_most(
            0,
            "429s",
            name="20 at once: refused",
            setup=f"{setup}; chat.update 50/min, burst 20",
            value=refused.total(),
            details=_say_refused(refused),
        ),
        _figure_of_wrong("20 at once: wrong, missing, unfinished", setup, wrong),
    ]


async def _run_with_burst(bench: Bench, burst: int) -> list[Figure]:
    rounds = bench.choose(full=6, quick=3, tiny=1)
    limit = RateLimit(per_minute=EDITS_PER_MINUTE, burst=burst)
    world = replace(bench.real_world, limits=SlackLimits().changed(chat_update=limit))
    async with open_stage(bench, world) as stage:
        await _ask_in_rounds(stage, rounds, at_once=bench.choose(full=20, quick=20, tiny=3))
        times = [call.answered_at for call in stage.slack.calls if call.status == _REFUSED]
        refused, wrong = stage.slack.rate_limited, _count_wrong(stage)
    name = f"20 at once, unknown burst of {burst}"
    setup = f"{rounds} such rounds, chat.update {EDITS_PER_MINUTE}/min, burst {burst}"
    return [
        at_most(
            2,
            "429s/min",
            name=f"{name}: refused",
            setup=f"{setup}; the worst minute",
            value=_most_in_a_minute(times),
            details=_say_refused(refused),
        ),
        _figure_of_wrong(f"{name}: wrong, missing, unfinished", setup, wrong),
    ]


async def _ask_in_rounds(stage: Stage, rounds: int, *, at_once: int) -> None:
    channels = stage.add_channels(at_once)
    await get_to_know(stage, stage.slack.support.id)
    for _ in range(rounds):
        if rounds > 1:  # a bot that has been idle dares the most
            await asyncio.sleep(max(0.0, ROUND_S - (time.monotonic() - stage.asked[-1].asked_at)))
        await stage.try_to_wait(*(stage.ask(channel) for channel in channels))


def _count_wrong(stage: Stage) -> Counter[Verdict]:
    return Counter(stage.verdict(asked) for asked in stage.asked)


def _figure_of_wrong(name: str, setup: str, verdicts: Counter[Verdict]) -> Figure:
    asked = verdicts.total()
    wrong = asked - verdicts[Verdict.RIGHT]
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    return at_most(0, "", name=name, setup=setup, value=wrong, details=said)


def _say_refused(refused: Counter[str]) -> str:
    return ", ".join(f"{method} {count}" for method, count in refused.items()) or "none"


def _most_in_a_minute(times: list[float]) -> int:
    return max((sum(at <= other < at + 60 for other in times) for at in times), default=0)
