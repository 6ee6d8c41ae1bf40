import asyncio
from collections.abc import AsyncIterator

import pytest

from slackbot.domain.conversation import ConversationKey
from slackbot.turns import Control, TurnRunner

ONE = ConversationKey("T0LOCAL0001", "C0LOCAL0001", "1.000001")
TWO = ConversationKey("T0LOCAL0001", "C0LOCAL0001", "1.000002")


class Stage:
    """Turns that run until they are let go or interrupted."""

    def __init__(self) -> None:
        self.begun: list[ConversationKey] = []
        self.ended: list[tuple[ConversationKey, str]] = []
        self.running = 0
        self.most_at_once = 0
        self.curtain = asyncio.Event()
        self._changed = asyncio.Condition()

    async def run_turn(self, key: ConversationKey, control: Control) -> None:
        self.begun.append(key)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await self._tell()
            end = "interrupted"
            async with control.interruptible():
                await self.curtain.wait()
                end = "finished"
            control.resume()
        finally:
            self.running -= 1
        self.ended.append((key, "shut down" if control.is_shutting_down else end))
        await self._tell()

    async def wait_for_beginnings(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.begun) >= count)

    async def wait_for_endings(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.ended) >= count)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    assert stage.running == 0


async def test_a_conversation_has_one_turn_at_a_time(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        await stage.wait_for_beginnings(1)
        turns.wake(ONE)
        turns.wake(ONE)
        stage.curtain.set()

    assert stage.most_at_once == 1


async def test_what_is_woken_during_a_turn_runs_once_more_after_it(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        await stage.wait_for_beginnings(1)
        turns.wake(ONE)
        turns.wake(ONE)
        stage.curtain.set()

    assert stage.begun == [ONE, ONE]


async def test_a_conversation_that_came_to_rest_can_be_woken_again(stage: Stage) -> None:
    stage.curtain.set()
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        await stage.wait_for_endings(1)
        turns.wake(ONE)

    assert stage.begun == [ONE, ONE]


async def test_conversations_run_side_by_side_up_to_the_limit(stage: Stage) -> None:
    keys = [ConversationKey("T0LOCAL0001", "C0LOCAL0001", f"1.{n:06d}") for n in range(50)]
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn, max_turns=20)
        for key in keys:
            turns.wake(key)
        await stage.wait_for_beginnings(20)
        stage.curtain.set()

    assert stage.most_at_once == 20
    assert sorted(stage.begun, key=str) == sorted(keys, key=str)


async def test_a_turn_that_fails_is_not_silently_lost() -> None:
    async def run_turn(_: ConversationKey, __: Control) -> None:
        raise ValueError("a bug")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            TurnRunner(group, run_turn).wake(ONE)

    assert caught.group_contains(ValueError, match="a bug")


async def test_an_interruption_ends_what_runs_inside() -> None:
    control = Control()
    async with asyncio.TaskGroup() as group:
        entered = asyncio.Event()

        async def run() -> None:
            async with control.interruptible():
                entered.set()
                await asyncio.Event().wait()

        group.create_task(run())
        await entered.wait()
        control.interrupt()
        control.interrupt()  # while the first one is on its way


async def test_an_interruption_before_it_leaves_nothing_to_run() -> None:
    control = Control()
    control.interrupt()
    reached: list[str] = []

    async with control.interruptible():
        reached.append("before the first wait")
        await asyncio.sleep(0)
        reached.append("after it")

    assert reached == ["before the first wait"]


async def test_an_interruption_after_it_disturbs_nobody() -> None:
    control = Control()
    async with control.interruptible():
        pass
    control.interrupt()

    await asyncio.sleep(0)


async def test_an_interruption_that_was_dealt_with_is_over_a_shutdown_never() -> None:
    control = Control()
    reached: list[str] = []
    control.interrupt()
    control.resume()
    async with control.interruptible():
        await asyncio.sleep(0)
        reached.append("resumed")
    control.shut_down()
    control.resume()
    async with control.interruptible():
        await asyncio.sleep(0)
        reached.append("shut down")

    assert reached == ["resumed"]


async def test_a_timeout_of_the_turns_own_is_no_interruption() -> None:
    control = Control()

    with pytest.raises(TimeoutError):
        async with control.interruptible():
            raise TimeoutError


async def test_only_the_named_conversation_is_interrupted(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        turns.wake(TWO)
        await stage.wait_for_beginnings(2)
        turns.interrupt(ONE)
        await stage.wait_for_endings(1)
        stage.curtain.set()

    assert stage.ended == [(ONE, "interrupted"), (TWO, "finished")]


async def test_an_interruption_does_not_reach_the_turn_after_it(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        await stage.wait_for_beginnings(1)
        turns.interrupt(ONE)
        turns.wake(ONE)
        await stage.wait_for_beginnings(2)
        stage.curtain.set()

    assert stage.ended == [(ONE, "interrupted"), (ONE, "finished")]


async def test_interrupting_a_conversation_at_rest_does_nothing(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.interrupt(ONE)

    assert stage.begun == []


async def test_draining_lets_running_turns_finish(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        await stage.wait_for_beginnings(1)
        group.create_task(turns.drain(5))
        await asyncio.sleep(0)
        stage.curtain.set()

    assert stage.ended == [(ONE, "finished")]


async def test_draining_without_turns_ends_at_once(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group, asyncio.timeout(0.1):
        await TurnRunner(group, stage.run_turn).drain(60)


async def test_what_is_not_finished_after_the_drain_time_is_interrupted(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        turns.wake(TWO)
        await stage.wait_for_beginnings(2)
        await turns.drain(0.01)

    assert stage.ended == [(ONE, "shut down"), (TWO, "shut down")]


async def test_a_conversation_woken_while_draining_is_left_for_the_next_start(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn)
        turns.wake(ONE)
        await stage.wait_for_beginnings(1)
        turns.wake(ONE)
        group.create_task(turns.drain(5))
        await asyncio.sleep(0)
        turns.wake(TWO)
        stage.curtain.set()

    assert stage.begun == [ONE]


async def test_a_turn_that_waits_for_its_slot_does_not_begin_while_draining(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, stage.run_turn, max_turns=1)
        turns.wake(ONE)
        turns.wake(TWO)
        await stage.wait_for_beginnings(1)
        group.create_task(turns.drain(5))
        await asyncio.sleep(0)
        stage.curtain.set()

    assert stage.begun == [ONE]


async def test_a_turn_that_does_not_heed_the_interruption_is_cancelled_at_the_end() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def run_turn(_: ConversationKey, __: Control) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.TaskGroup() as group:
        turns = TurnRunner(group, run_turn)
        turns.wake(ONE)
        await begun.wait()
        await turns.drain(0.01)
        await turns.close(0.01)

    assert ended.is_set()
