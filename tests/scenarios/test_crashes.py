import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slackbot import apologies
from slackbot.playground.bot_process import bot_environment, start_bot
from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_faults import Held
from slackbot.playground.slack_limits import SlackLimits
from slackbot.playground.slack_server import LocalSlack, open_local_slack
from tests.scenarios.processes import Place, Question, Stage, running_nursery

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]

DM = Place(is_dm=True)
THREAD = Place(is_dm=False)
FIRST_MESSAGES = [DM, THREAD]
PLACES = [
    DM,
    THREAD,
    Place(is_dm=False, part="1"),
    pytest.param(Place(is_dm=True, part="1"), marks=pytest.mark.slow),
]
EXTREMES = [DM, Place(is_dm=False, part="1")]

ORDER_1001 = (
    "Your order ORD-1001, Sunset Gradient Tee (M, Orange), has been shipped. It should be with "
    "you by 2 Apr. You can follow it here: https://track.royalmail.com/tracking/RM493827651GB"
)
ORDERS = f"""{ORDER_1001}

Your order ORD-1002, Wave Print Crop Tee (S, Slate), is being prepared. It should be with you by \
4 Apr.

Your order ORD-1003, Midnight Pocket Tee (L, Black), has been delivered. You can follow it here: \
https://track.royalmail.com/tracking/RM381726495GB"""
KILLS = 20


def posts_part(part: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda arguments: arguments["metadata"]["event_payload"]["part"] == part


@pytest.fixture(scope="session")
def nursery() -> Iterator[int]:
    with running_nursery() as port:
        yield port


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with open_local_slack(
        limits=SlackLimits.none(), ack_timeout_s=0.5, retry_delays_s=(0.05,) * 20
    ) as server:
        yield server


@pytest.fixture
def stage(slack: LocalSlack, claude: LocalClaude, tmp_path: Path, nursery: int) -> Stage:
    return Stage(slack, claude, folder=tmp_path, nursery=nursery)


@pytest.mark.parametrize("place", FIRST_MESSAGES, ids=str)
@pytest.mark.parametrize(
    "point",
    ["before:record_message", "after:record_message", "before:begin_turn", "after:begin_turn"],
)
async def test_a_question_survives_a_crash_on_its_way_to_its_turn(
    stage: Stage, point: str, place: Place
) -> None:
    async with stage.life(CRASH_AT=point) as life:
        question = stage.ask(place)
        await life.end()

    await stage.finish(question)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(
    "point", ["before:intend_post", "after:intend_post", "before:save_post", "after:save_post"]
)
async def test_a_crash_around_a_post_of_a_growing_answer_leaves_one_message(
    stage: Stage, point: str, place: Place
) -> None:
    stage.stall(place)

    async with stage.life(CRASH_AT=point, CRASH_PART=place.part) as life:
        question = stage.ask(place)
        await life.end()

    await stage.finish(question)


@pytest.mark.parametrize("place", FIRST_MESSAGES, ids=str)
@pytest.mark.parametrize(
    "point", ["before:intend_post", "after:intend_post", "before:save_post", "after:save_post"]
)
async def test_a_crash_around_the_post_of_a_written_answer_leaves_one_message(
    stage: Stage, point: str, place: Place
) -> None:
    async with stage.life(CRASH_AT=point) as life:
        question = stage.ask(place, "say exactly: Yes, we do.")
        await life.end()

    await stage.finish(question)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(
    "point", ["before:save_answer", "after:save_answer", "before:close_turn", "after:close_turn"]
)
async def test_a_message_that_has_grown_is_completed_after_a_crash_at_its_end(
    stage: Stage, point: str, place: Place
) -> None:
    stalled = stage.stall(place)

    async with stage.life(CRASH_AT=point) as life:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        stalled.release.set()
        await life.end()

    await stage.finish(question)


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_an_answer_cut_off_in_mid_stream_is_completed_in_the_same_messages(
    stage: Stage, place: Place
) -> None:
    stage.stall(place)

    async with stage.life() as life:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        await life.kill()

    await stage.finish(question)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("is_done", [False, True], ids=["arriving", "done"])
async def test_a_post_that_slack_still_answers_when_the_bot_dies_is_not_made_twice(
    stage: Stage, is_done: bool, place: Place
) -> None:
    held = Held(method="chat.postMessage", before=not is_done, where=posts_part(place.part))
    stage.slack.faults.add(held)
    stage.stall(place)

    async with stage.life() as life:
        question = stage.ask(place)
        await held.reached.wait()
        await life.kill()
    held.release.set()

    await stage.finish(question)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("is_done", [False, True], ids=["arriving", "done"])
async def test_an_edit_that_slack_still_answers_when_the_bot_dies_harms_nothing(
    stage: Stage, is_done: bool, place: Place
) -> None:
    held = Held(method="chat.update", before=not is_done)
    stalled = stage.stall(place)

    async with stage.life() as life:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        stage.slack.faults.add(held)
        stalled.release.set()
        await held.reached.wait()
        await life.kill()
    held.release.set()

    await stage.finish(question)


@pytest.mark.parametrize("place", FIRST_MESSAGES, ids=str)
@pytest.mark.parametrize("point", ["before:find_order", "after:find_order"])
async def test_a_crash_in_a_tool_call_leaves_one_answer(
    stage: Stage, point: str, place: Place
) -> None:
    async with stage.life(CRASH_AT=point) as life:
        question = stage.ask(place, "where is ORD-1001?", parts=[ORDER_1001])
        await life.end()

    await stage.finish(question)


@pytest.mark.parametrize("place", FIRST_MESSAGES, ids=str)
async def test_nothing_is_left_of_the_sign_that_somebody_is_waiting(
    stage: Stage, place: Place
) -> None:
    sign = "reactions.add" if place.is_dm else "assistant.threads.setStatus"
    stage.claude.add(Stalled())

    async with stage.life() as life:
        question = stage.ask(place)
        await stage.slack.wait_for(sign)
        await life.kill()

    await stage.finish(question)


@pytest.mark.parametrize("call", ["1", "2"], ids=["added", "removed"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_around_a_reaction_leaves_none(stage: Stage, when: str, call: str) -> None:
    stalled = Stalled()
    stage.claude.add(stalled)

    async with stage.life(CRASH_AT=f"{when}:save_reaction", CRASH_CALL=call) as life:
        question = stage.ask(DM)
        if call == "2":
            await stage.slack.wait_for("reactions.add")
            stalled.release.set()
        await life.end()

    await stage.finish(question)


@pytest.mark.parametrize("place", EXTREMES, ids=str)
@pytest.mark.parametrize(
    "point", ["after:resume_turn", "before:save_answer", "after:save_answer", "before:close_turn"]
)
async def test_a_second_crash_while_a_turn_is_run_again_changes_nothing(
    stage: Stage, point: str, place: Place
) -> None:
    stage.stall(place)
    async with stage.life() as life:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        await life.kill()

    async with stage.life(CRASH_AT=point) as life:
        await life.end()

    await stage.finish(question)


@pytest.mark.parametrize("place", FIRST_MESSAGES, ids=str)
@pytest.mark.parametrize("first", ["after:intend_post", "before:save_post"])
async def test_a_second_crash_while_a_post_is_looked_for_leaves_one_message(
    stage: Stage, first: str, place: Place
) -> None:
    look = "conversations.history" if place.is_dm else "conversations.replies"
    held = Held(method=look)
    async with stage.life(CRASH_AT=first) as life:
        question = stage.ask(place, "say exactly: Yes, we do.")
        await life.end()

    stage.slack.faults.add(held)
    async with stage.life() as life:
        await held.reached.wait()
        await life.kill()
    held.release.set()

    await stage.finish(question)


@pytest.mark.parametrize("place", FIRST_MESSAGES, ids=str)
@pytest.mark.parametrize("point", ["before:save_post", "after:save_post"])
async def test_a_second_crash_once_a_post_is_found_leaves_one_message(
    stage: Stage, point: str, place: Place
) -> None:
    async with stage.life(CRASH_AT="before:save_post") as life:
        question = stage.ask(place, "say exactly: Yes, we do.")
        await life.end()

    async with stage.life(CRASH_AT=point) as life:
        await life.end()

    await stage.finish(question)


async def test_three_messages_that_wait_behind_a_turn_are_answered_together_after_it(
    stage: Stage,
) -> None:
    stage.stall(DM)
    texts = ["what about ORD-1001?", "and ORD-1002?", "and ORD-1003?"]

    async with stage.life() as life:
        first = stage.ask(DM)
        await stage.wait_until_growing(DM, first)
        answered = [*first.parts, ORDERS]
        waiting = [stage.ask(DM, text, parts=answered) for text in texts]
        await stage.slack.wait_until(lambda: len(stage.slack.acks) == 4)
        await life.kill()

    await stage.finish(replace(first, parts=answered), *waiting)


@pytest.mark.parametrize("place", EXTREMES, ids=str)
async def test_a_turn_that_crashes_three_times_is_closed_with_an_apology(
    stage: Stage, place: Place
) -> None:
    stalls = [stage.stall(place) for _ in range(3)]
    async with stage.life() as life:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        await life.kill()
    for stalled in stalls[1:]:
        async with stage.life() as life:
            await stalled.reached.wait()
            await life.kill()

    await stage.finish(replace(question, parts=[apologies.TOO_MANY_ATTEMPTS]), posts=place.posts)


@pytest.mark.parametrize("point", ["after:record_message", "after:begin_turn", "after:save_answer"])
async def test_an_answer_that_comes_more_than_an_hour_late_begins_with_an_apology(
    stage: Stage, point: str
) -> None:
    async with stage.life(CRASH_AT=point) as life:
        question = stage.ask(THREAD, "say exactly: Yes, we do.")
        await life.end()
    stage.turn_back_clocks(hours=2)

    await stage.finish(question.prefixed(apologies.LATE))


@pytest.mark.parametrize("place", EXTREMES, ids=str)
async def test_an_answer_that_is_completed_an_hour_late_begins_with_an_apology(
    stage: Stage, place: Place
) -> None:
    stage.stall(place)

    async with stage.life() as life:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        await life.kill()
    stage.turn_back_clocks(hours=2)

    await stage.finish(question.prefixed(apologies.LATE))


@pytest.mark.parametrize("place", EXTREMES, ids=str)
async def test_a_polite_stop_lets_the_answer_finish_first(stage: Stage, place: Place) -> None:
    stalled = stage.stall(place)

    async with stage.life(SHOPMATE_DRAIN_S="30") as life, asyncio.TaskGroup() as group:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        group.create_task(life.stop(), name="stop")
        await stage.slack.wait_until(lambda: stage.slack.connected_sockets == 0)
        stalled.release.set()

    stage.check(question)


@pytest.mark.parametrize("place", EXTREMES, ids=str)
async def test_an_answer_that_a_stop_cuts_short_says_so_and_is_completed_later(
    stage: Stage, place: Place
) -> None:
    stage.stall(place)

    async with stage.life(SHOPMATE_DRAIN_S="0") as life:
        question = stage.ask(place)
        await stage.wait_until_growing(place, question)
        await life.stop()
    cut_short = stage.shown(question)

    assert cut_short[-1].endswith(apologies.POSTPONED)
    assert len(cut_short) == len(question.parts)
    await stage.finish(question)


async def test_a_second_process_waits_for_the_drain_time_and_names_who_holds_the_database(
    stage: Stage,
) -> None:
    environ = bot_environment(stage.slack, stage.claude, stage.database, SHOPMATE_DRAIN_S="0.5")

    async with stage.life() as life, start_bot(environ, folder=stage.database.parent) as second:
        exit_code = await second.wait()
        holder = life.pid

    assert exit_code == 2
    assert [f"process {holder} on" in line for line in second.noise] == [True]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_question_has_one_complete_answer_after_twenty_random_kills(
    stage: Stage, seed: int
) -> None:
    chance = random.Random(seed)
    questions: list[Question] = []
    for _ in range(KILLS):
        async with stage.life() as life:
            for _ in range(chance.randint(0, 3)):
                place = chance.choice([THREAD, *EXTREMES[1:]])
                questions.append(stage.ask(place))
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(0.0, 1.5)):
                    await life.end()
            await life.kill()
        stage.forget_attempts()

    await stage.finish(*questions)
