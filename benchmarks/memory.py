"""How much memory the bot takes, and how much more after a day's work."""

from benchmarks.report import Figure, at_most, number
from benchmarks.stage import (
    INSTANT,
    INSTANT_SETUP,
    KNOWN_ORDER_ID,
    Bench,
    Stage,
    get_to_know,
    open_stage,
)

AT_ONCE = 20
CHANNELS = 100


async def run(bench: Bench) -> list[Figure]:
    """Resident memory after a few turns, and its growth."""
    few = bench.choose(full=20, quick=20, tiny=4)
    more = bench.choose(full=500, quick=200, tiny=4)
    async with open_stage(bench, INSTANT) as stage:
        channels = stage.add_channels(CHANNELS)
        began_mb = stage.rss_mb()
        await get_to_know(stage, stage.slack.support.id)
        await _ask(stage, channels, turns=few)
        few_mb = stage.rss_mb()
        await _ask(stage, channels, turns=more)
        more_mb = stage.rss_mb()
    setup = f"{AT_ONCE} at once in {CHANNELS} channels, one tool call, 400 characters"
    setup = f"{setup}; {INSTANT_SETUP}, pacer on"
    return [
        at_most(
            135,
            "MB",
            name=f"RSS after {few} turns",
            setup=setup,
            value=few_mb,
            details=f"{number(began_mb)} MB when connected",
        ),
        at_most(10, "MB", name=f"its growth over {more} more", setup=setup, value=more_mb - few_mb),
    ]


async def _ask(stage: Stage, channels: list[str], *, turns: int) -> None:
    await stage.ask_many(
        lambda index: stage.ask(channels[index % len(channels)], order_id=KNOWN_ORDER_ID),
        questions=turns,
        at_once=min(AT_ONCE, turns),
    )
