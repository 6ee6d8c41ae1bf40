"""Twenty mentions at once in one channel: everybody in turn, nobody later than need be."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.report import Figure, at_most, spread
from benchmarks.stage import REAL_SETUP, Asked, Bench, Stage, get_to_know, open_stage

POST_BURST = 3
POSTS_PER_S = 1.0
FIRST_WORDS_TOKENS = 20  # 80 characters: a first post has at least so much


async def run(bench: Bench) -> list[Figure]:
    """The order of the answers' posts, and their lateness by the ideal schedule."""
    at_once = bench.choose(full=20, quick=20, tiny=3)
    world = bench.real_world
    async with open_stage(bench, world) as stage:
        await get_to_know(stage, stage.slack.copy.id)
        # Idle for a while: a bot that has just been started has saved up no edits.
        await asyncio.sleep(bench.choose(full=10, quick=10, tiny=0))
        people = (stage.slack.alex.id, stage.slack.sam.id)
        channel = stage.slack.support.id
        asked = [stage.ask(channel, user=people[index % 2]) for index in range(at_once)]
        await stage.wait(*asked)
        posts = [stage.answers(one)[0].ts for one in asked]
        late_s = _lateness_s(stage, asked, first_words_s=world.token_s(FIRST_WORDS_TOKENS))
        refused = stage.slack.rate_limited.total()
    setup = f"{at_once} mentions at once, 1 post/s, burst 3; {REAL_SETUP}"
    return [
        at_most(
            0,
            "out of order",
            name="20 in one channel: order of posts",
            setup=setup,
            value=sum(one > other for one, other in pairwise(posts)),
            details=f"{refused} 429s",
        ),
        at_most(
            1,
            "s late",
            name="20 in one channel: the latest post",
            setup=f"{setup}; against 3 at once, then one a second, from Claude's 80th character on",
            value=max(late_s),
            details=spread(late_s),
        ),
    ]


def _lateness_s(stage: Stage, asked: Sequence[Asked], *, first_words_s: float) -> list[float]:
    """How much later each answer was posted than the limit on posts alone would allow."""
    late: list[float] = []
    slot = 0.0  # when a bucket without burst would let the next post pass
    for one in asked:
        ready_at = stage.requests(one)[0].arrived_at + first_words_s
        allowed_at = max(ready_at, slot - (POST_BURST - 1) / POSTS_PER_S)
        slot = max(slot, allowed_at) + 1 / POSTS_PER_S
        late.append(stage.first_words_at(one) - allowed_at)
    return late
