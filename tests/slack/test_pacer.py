import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from itertools import combinations, pairwise
from typing import Any

import pytest

from slackbot.errors import SlackRateLimitedError
from slackbot.slack.limits import (
    EDITS_PER_MINUTE,
    MAX_EDIT_BURST,
    MAX_EDITS_IN_FLIGHT,
    MAX_POST_BURST,
)
from slackbot.slack.pacer import POST_RATE_CUT, EditPacer, PacedMessage, PostPacer
from tests.virtual_time import clock, run

RATE = EDITS_PER_MINUTE / 60
PAUSE_S = 1 / RATE  # between two edits once the budget is spent

Granted = list[tuple[float, str]]


class Edits:
    """People of one workspace who want to edit; `granted` says who did, and when."""

    def __init__(self, *, is_paced: bool = True) -> None:
        self.pacer = EditPacer(clock, is_paced=is_paced)
        self.granted: Granted = []

    async def spend(self) -> None:
        """Waits until the budget is full, then uses all of it up."""
        await asyncio.sleep(60)
        for _ in range(MAX_EDIT_BURST):
            await self.final("spent")
        self.granted.clear()

    async def final(self, name: str, *, order: int = 0, retry_after_s: float | None = None) -> None:
        message = PacedMessage(((order, 0), "0"))
        await self.pacer.admit_final_edit(message)
        self._note(name)
        self.pacer.note_edit(message, retry_after_s=retry_after_s)

    async def edit(self, name: str, message: PacedMessage) -> None:
        await self.pacer.admit_edit(message)
        self._note(name)
        self.pacer.note_edit(message)

    async def unfinished(self, name: str, *, order: int = 0) -> None:
        await self.pacer.admit_unfinished(PacedMessage(((order, 0), "0")))
        self._note(name)

    def _note(self, name: str) -> None:
        self.granted.append((round(clock(), 2), name))


def run_at_once(*wanting: Awaitable[None]) -> Coroutine[Any, Any, None]:
    async def run_all() -> None:
        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            for one in wanting:
                group.create_task(_await(one))

    return run_all()


async def _await(one: Awaitable[None]) -> None:
    await one


def names(granted: Granted) -> list[str]:
    return [name for _, name in granted]


def times(granted: Granted) -> list[float]:
    return [at for at, _ in granted]


async def fall_asleep() -> None:
    """Lets everybody run until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


# Edits


def test_final_edits_go_before_growth_and_in_their_order() -> None:
    async def main() -> Granted:
        edits = Edits()
        await edits.spend()
        await run_at_once(
            edits.edit("growth", PacedMessage(((0, 0), "0"))),
            edits.final("second", order=2),
            edits.final("first", order=1),
        )
        return edits.granted

    granted = run(main)

    assert names(granted) == ["first", "second", "growth"]


def test_of_growing_messages_the_stalest_goes_first() -> None:
    async def main() -> Granted:
        edits = Edits()
        await edits.spend()
        await run_at_once(
            *[
                edits.edit(f"shown at {shown_at}", PacedMessage(((0, 0), "0"), shown_at=shown_at))
                for shown_at in (30.0, 10.0, 20.0)
            ]
        )
        return edits.granted

    granted = run(main)

    assert names(granted) == ["shown at 10.0", "shown at 20.0", "shown at 30.0"]
    assert times(granted)[0] > 60


def test_a_message_is_edited_once_a_second_at_first_and_then_every_three() -> None:
    async def main() -> Granted:
        edits = Edits()
        await asyncio.sleep(60)
        message = PacedMessage(((0, 0), "0"), shown_at=clock())
        for _ in range(8):
            await edits.edit("growth", message)
        return edits.granted

    granted = run(main)

    gaps = [round(later - at, 1) for at, later in pairwise([60.0, *times(granted)])]
    assert gaps == [1, 1, 1, 1, 1, 3, 3, 3]


def test_unfinished_messages_are_admitted_only_while_their_finals_are_payable() -> None:
    async def main() -> Granted:
        edits = Edits()
        await run_at_once(*[edits.unfinished(str(order), order=order) for order in (0, 2, 1)])
        return edits.granted

    granted = run(main)

    assert names(granted) == ["0", "1", "2"]
    for owed, at in enumerate(times(granted), start=1):
        assert min(MAX_EDIT_BURST, at * RATE) + 2 * RATE >= owed - 0.01
    assert times(granted)[0] == 0
    assert times(granted)[2] > 1


def test_more_unfinished_messages_than_can_ever_be_paid_wait_until_one_is_settled() -> None:
    async def main() -> tuple[int, Granted]:
        edits = Edits()
        async with asyncio.TaskGroup() as group:
            for order in range(20):
                group.create_task(edits.unfinished(str(order), order=order))
            await asyncio.sleep(120)
            admitted = len(edits.granted)
            edits.granted.clear()
            for _ in range(20):
                edits.pacer.settle()
                await asyncio.sleep(0.01)
        return admitted, edits.granted

    admitted, after = run(main)

    assert admitted == int(MAX_EDIT_BURST + 2 * RATE)
    assert len(after) == 20 - admitted
    assert times(after)[0] == 120


def test_while_finals_are_owed_growth_leaves_them_enough_of_the_budget() -> None:
    async def main() -> Granted:
        edits = Edits()
        await edits.unfinished("posted")
        await edits.spend()
        await edits.edit("growth", PacedMessage(((0, 0), "0")))
        return edits.granted

    [(at, _)] = run(main)

    # The edit itself, and half of the one owed: the other half comes in within two seconds.
    assert at == pytest.approx(60 + 1 * PAUSE_S, abs=0.11)


def test_a_waiter_that_is_cancelled_is_forgotten_and_the_next_one_goes() -> None:
    async def main() -> Granted:
        edits = Edits()
        await edits.spend()
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(edits.final("gone", order=0))
            group.create_task(edits.final("next", order=1))
            await fall_asleep()
            gone.cancel()
        return edits.granted

    granted = run(main)

    assert names(granted) == ["next"]
    assert times(granted)[0] == pytest.approx(60 + PAUSE_S, abs=0.11)


def test_an_edit_granted_to_somebody_who_is_cancelled_goes_to_the_next_at_once() -> None:
    async def main() -> Granted:
        edits = Edits()
        await asyncio.sleep(PAUSE_S)
        blocking = PacedMessage(((0, 0), "0"))
        await asyncio.sleep(2 * PAUSE_S)
        await edits.pacer.admit_final_edit(blocking)  # as many as may be under way
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(edits.final("gone", order=0))
            group.create_task(edits.final("next", order=1))
            await fall_asleep()
            edits.pacer.note_edit(blocking)  # grants `gone` an edit, which it never hears of
            gone.cancel()
            await fall_asleep()
        return list(edits.granted)

    granted = run(main)

    assert granted == [(round(3 * PAUSE_S, 2), "next")]


def test_a_post_admitted_to_somebody_who_is_cancelled_owes_nothing() -> None:
    async def main() -> Granted:
        edits = Edits()
        await edits.unfinished("first")
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(edits.unfinished("gone", order=1))
            group.create_task(edits.unfinished("next", order=2))
            await fall_asleep()
            edits.pacer.settle()  # admits `gone`, which never hears of it
            gone.cancel()
        return edits.granted

    granted = run(main)

    assert granted == [(0, "first"), (0, "next")]


def test_no_more_edits_are_under_way_than_a_refusal_may_waste() -> None:
    async def main() -> list[int]:
        edits, under_way, most = Edits(), 0, []
        await asyncio.sleep(60)

        async def final(order: int) -> None:
            nonlocal under_way
            message = PacedMessage(((order, 0), "0"))
            await edits.pacer.admit_final_edit(message)
            under_way += 1
            most.append(under_way)
            await asyncio.sleep(0.3)
            under_way -= 1
            edits.pacer.note_edit(message)

        await run_at_once(*[final(order) for order in range(8)])
        return most

    assert max(run(main)) == MAX_EDITS_IN_FLIGHT


def test_without_pacing_everything_is_granted_at_once() -> None:
    async def main() -> Granted:
        edits = Edits(is_paced=False)
        message = PacedMessage(((0, 0), "0"), shown_at=clock())
        for _ in range(100):
            await edits.unfinished("post")
            await edits.edit("growth", message)
            await edits.final("final", retry_after_s=30)
        return edits.granted

    granted = run(main)

    assert len(granted) == 300
    assert set(times(granted)) == {0}


def test_a_refusal_holds_everybody_and_then_lets_edits_through_one_by_one_and_slower() -> None:
    async def main() -> Granted:
        edits = Edits()
        await asyncio.sleep(60)
        await edits.final("refused", retry_after_s=10)
        await run_at_once(
            *[edits.final(str(order), order=order) for order in range(3)],
            edits.unfinished("post"),
        )
        return edits.granted[1:]

    granted = run(main)

    assert names(granted)[:3] == ["0", "1", "2"]
    slower_s = PAUSE_S / 0.6
    expected = [70, 70 + slower_s, 70 + 2 * slower_s]
    assert times(granted)[:3] == pytest.approx(expected, abs=0.11)
    assert names(granted)[3] == "post"


def test_a_refusal_halves_the_burst() -> None:
    async def main() -> Granted:
        edits = Edits()
        await asyncio.sleep(60)
        await edits.final("refused", retry_after_s=1)
        await asyncio.sleep(50)
        await run_at_once(*[edits.final(str(order), order=order) for order in range(8)])
        return edits.granted[1:]

    granted = run(main)

    assert [at for at in times(granted) if at == 111 or at == 110] == [110] * (MAX_EDIT_BURST // 2)


class Crowd(Edits):
    """Many answers that grow, give up and are refused, as `chance` will have it."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.finished: list[int] = []
        self._chance = chance

    async def answer(self, number: int) -> None:
        message, chance = PacedMessage(((number, 0), "0")), self._chance
        await asyncio.sleep(chance.uniform(0, 20))
        is_posted = await self._wait_for(self.pacer.admit_unfinished(message), at_most_s=30)
        for _ in range(chance.randrange(6) if is_posted else 0):
            if await self._wait_for(self.pacer.admit_edit(message), at_most_s=5):
                await self._make_edit(message)
        while is_posted:
            await self.pacer.admit_final_edit(message)
            if await self._make_edit(message):
                self.pacer.settle()
                break
        self.finished.append(number)

    async def _wait_for(self, waiting: Awaitable[None], *, at_most_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._chance.uniform(0.1, at_most_s)):
                await waiting
                return True
        return False

    async def _make_edit(self, message: PacedMessage) -> bool:
        self._note("edit")
        await asyncio.sleep(self._chance.uniform(0.01, 0.4))
        retry_after_s = self._chance.uniform(1, 5) if self._chance.random() < 0.03 else None
        self.pacer.note_edit(message, retry_after_s=retry_after_s)
        return retry_after_s is None


@pytest.mark.parametrize("seed", range(12))
def test_nobody_is_forgotten_whatever_happens_and_the_limit_is_kept(seed: int) -> None:
    async def main() -> tuple[float, Crowd]:
        crowd = Crowd(random.Random(seed))
        await run_at_once(*[crowd.answer(number) for number in range(60)])
        return clock(), crowd

    ended_at, crowd = run(main)

    assert ended_at < 200
    assert sorted(crowd.finished) == list(range(60))
    at = times(crowd.granted)
    for first, last in combinations(range(len(at)), 2):
        assert last - first + 1 <= MAX_EDIT_BURST + (at[last] - at[first]) * RATE + 1


# Posts


class Posts:
    """People of one workspace who want to post."""

    def __init__(self, *, is_paced: bool = True) -> None:
        self.pacer = PostPacer(clock, is_paced=is_paced)
        self.granted: Granted = []

    async def post(
        self, name: str, *, order: int, channel: str = "C1", retry_after_s: float | None = None
    ) -> None:
        await self.pacer.admit_post(channel, ((order, 0), "0"))
        self.granted.append((round(clock(), 2), name))
        if retry_after_s is not None:
            self.pacer.note_refusal(channel, retry_after_s)

    async def spend(self) -> None:
        for _ in range(MAX_POST_BURST):
            await self.post("spent", order=0)
        self.granted.clear()


def run_posts(script: Callable[[Posts], Awaitable[None]], *, is_paced: bool = True) -> Granted:
    async def main() -> Granted:
        posts = Posts(is_paced=is_paced)
        await script(posts)
        return posts.granted

    return run(main)


def test_posts_of_a_channel_go_one_a_second_after_a_burst_in_the_order_of_the_questions() -> None:
    async def script(posts: Posts) -> None:
        await posts.spend()
        await run_at_once(*[posts.post(str(order), order=order) for order in (3, 1, 4, 2)])

    assert run_posts(script) == [(1.1, "1"), (2.1, "2"), (3.1, "3"), (4.1, "4")]


def test_a_channel_that_is_busy_delays_no_other_one() -> None:
    async def script(posts: Posts) -> None:
        await posts.spend()
        await run_at_once(posts.post("late", order=1), posts.post("other", order=2, channel="C2"))

    assert run_posts(script) == [(0.1, "other"), (1.1, "late")]


def test_a_cancelled_post_gives_its_place_to_the_next() -> None:
    async def script(posts: Posts) -> None:
        await posts.spend()
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(posts.post("gone", order=1))
            group.create_task(posts.post("next", order=2))
            await fall_asleep()
            gone.cancel()

    assert run_posts(script) == [(1.1, "next")]


def test_a_post_cancelled_as_its_place_comes_gives_the_place_back() -> None:
    async def script(posts: Posts) -> None:
        await posts.spend()
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(posts.post("gone", order=1))
            group.create_task(posts.post("next", order=2))
            await fall_asleep()
            # Set later than the pacer's timer, it fires between the grant and `gone` hearing of it.
            asyncio.get_running_loop().call_later(1.0, gone.cancel)

    [(at, name)] = run_posts(script)

    assert name == "next"
    assert at == pytest.approx(1.1, abs=0.01)


def test_a_refused_post_holds_its_channel_for_as_long_as_slack_asks() -> None:
    async def script(posts: Posts) -> None:
        await posts.post("refused", order=0, retry_after_s=5)
        await run_at_once(
            posts.post("1", order=1),
            posts.post("2", order=2),
            posts.post("other", order=3, channel="C2"),
        )

    granted = run_posts(script)

    assert granted[:3] == [(0, "refused"), (0, "other"), (5, "1")]
    assert granted[3][0] == pytest.approx(5 + 1 / POST_RATE_CUT, abs=0.01)


def test_posts_without_pacing_go_at_once() -> None:
    async def script(posts: Posts) -> None:
        await run_at_once(*[posts.post(str(order), order=order) for order in range(50)])

    assert set(times(run_posts(script, is_paced=False))) == {0}


def test_a_quiet_channel_is_given_its_burst_again() -> None:
    async def script(posts: Posts) -> None:
        await posts.spend()
        await asyncio.sleep(10)
        await posts.post("elsewhere", order=0, channel="C2")  # the pacer forgets quiet channels
        for number in range(MAX_POST_BURST):
            await posts.post(str(number), order=number)

    *at_once, last = times(run_posts(script))

    assert len(set(at_once)) == 1
    assert last - at_once[0] == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(6))
def test_no_post_is_forgotten_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    sent: list[int] = []
    given_up: list[int] = []

    async def main() -> float:
        posts = Posts()

        async def post(number: int) -> None:
            await asyncio.sleep(chance.uniform(0, 20))
            try:
                async with asyncio.timeout(chance.choice([None, None, chance.uniform(0, 3)])):
                    while number not in sent:
                        with suppress(SlackRateLimitedError):
                            refused = 2.0 if chance.random() < 0.05 else None
                            channel = f"C{number % 3}"
                            await posts.post(
                                str(number), order=number, channel=channel, retry_after_s=refused
                            )
                            sent.append(number)
            except TimeoutError:
                given_up.append(number)

        await run_at_once(*[post(number) for number in range(80)])
        return clock()

    assert run(main) < 200
    assert sorted(sent + given_up) == list(range(80))
    assert len(sent) >= 50
