"""What a turn costs the bot in CPU, and how many it gets done in a second."""

import time

from benchmarks.report import Figure, at_least, at_most, number
from benchmarks.stage import (
    INSTANT,
    INSTANT_SETUP,
    KNOWN_ORDER_ID,
    Bench,
    Stage,
    get_to_know,
    open_stage,
)

DELTAS = 60
CHARS = 4 * DELTAS  # the stand-in for Claude sends four characters a delta


async def run(bench: Bench) -> list[Figure]:
    """CPU per turn and turns per second, a hundred channels all asking at once."""
    channels = bench.choose(full=100, quick=100, tiny=5)
    turns = bench.choose(full=1_000, quick=300, tiny=5)
    async with open_stage(bench, INSTANT, variables={"SHOPMATE_PACER": "off"}) as stage:
        await get_to_know(stage, stage.slack.support.id)
        ids = stage.add_channels(channels)
        await _ask(stage, ids, turns=channels)  # the first turn in a channel warms up
        cpu_s, own_cpu_s, began = stage.cpu_s(), time.process_time(), time.monotonic()
        await _ask(stage, ids, turns=turns)
        wall_s = time.monotonic() - began
        cpu_s, own_cpu_s = stage.cpu_s() - cpu_s, time.process_time() - own_cpu_s
    setup = f"{turns} turns in {channels} channels, one tool call, {DELTAS} deltas; {INSTANT_SETUP}"
    return [
        at_most(
            15,
            "ms",
            name="CPU per turn",
            setup=f"{setup}; pacer off",
            value=cpu_s / turns * 1_000,
            details=f"the bot's core {_percent(cpu_s, wall_s)} busy with it",
        ),
        at_least(
            60,
            "/s",
            name="turns per second",
            setup=f"{setup}; pacer off",
            value=turns / wall_s,
            details=f"servers and benchmark: {number(own_cpu_s / turns * 1_000)} ms a turn, "
            f"{_percent(own_cpu_s, wall_s)} of their core",
        ),
    ]


async def _ask(stage: Stage, channels: list[str], *, turns: int) -> None:
    await stage.ask_many(
        lambda index: stage.ask(
            channels[index % len(channels)], chars=CHARS, order_id=KNOWN_ORDER_ID
        ),
        questions=turns,
        at_once=len(channels),
    )


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}"
