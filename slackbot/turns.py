"""Many conversations at once, one turn at a time in each."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from slackbot.domain.conversation import ConversationKey

log = logging.getLogger(__name__)

MAX_TURNS_AT_ONCE = 200


class Control:
    """How a conversation's running turn hears that it should end early.

    An interruption may have been meant for the turn before: whoever is interrupted looks in the
    store what became of his own, and goes on after `resume` if nothing did.
    """

    def __init__(self) -> None:
        self.is_shutting_down = False
        self._is_interrupted = False
        self._scope: asyncio.Timeout | None = None

    def interrupt(self) -> None:
        """Ends what runs inside `interruptible`, now or as soon as it begins."""
        if self._scope is not None and not self._is_interrupted:
            self._scope.reschedule(0)
        self._is_interrupted = True

    def shut_down(self) -> None:
        """Interrupts for good: the process is about to end."""
        self.is_shutting_down = True
        self.interrupt()

    def resume(self) -> None:
        """The interruption has been dealt with."""
        self._is_interrupted = self.is_shutting_down

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Leaves the body where it stands when interrupted."""
        try:
            # A timeout without a deadline is a scope that can be cancelled from outside.
            async with asyncio.timeout(0 if self._is_interrupted else None) as self._scope:
                yield
        except TimeoutError:
            if not self._is_interrupted:
                raise
        finally:
            self._scope = None


class _Conversation:
    def __init__(self) -> None:
        self.is_woken = True
        self.control = Control()
        self.task: asyncio.Task[None] | None = None


class TurnRunner:
    """Runs `run_turn` for every conversation that was woken, as tasks of `group`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        run_turn: Callable[[ConversationKey, Control], Awaitable[None]],
        *,
        max_turns: int = MAX_TURNS_AT_ONCE,
    ) -> None:
        self._group = group
        self._run_turn = run_turn
        self._slots = asyncio.Semaphore(max_turns)
        self._active: dict[ConversationKey, _Conversation] = {}
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_draining = False

    def wake(self, key: ConversationKey) -> None:
        """Has what waits in the conversation answered, after the turn that runs there."""
        if self._is_draining:
            return  # it is recorded, and answered after the next start
        if active := self._active.get(key):
            active.is_woken = True
            return
        active = self._active[key] = _Conversation()
        self._is_idle.clear()
        active.task = self._group.create_task(self._run(key, active), name=f"turns of {key}")

    def interrupt(self, key: ConversationKey) -> None:
        """Has the turn that runs in the conversation, if one does, look what became of it."""
        if active := self._active.get(key):
            active.control.interrupt()

    async def drain(self, timeout_s: float) -> None:
        """Lets running turns finish for `timeout_s` seconds, then interrupts the others."""
        self._is_draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()
        except TimeoutError:
            log.warning("turns.interrupted", extra={"turns": len(self._active)})
            for active in self._active.values():
                active.control.shut_down()

    async def close(self, timeout_s: float) -> None:
        """Waits `timeout_s` seconds for interrupted turns to end, then cancels them."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()
        except TimeoutError:
            log.warning("turns.cancelled", extra={"turns": len(self._active)})
            for active in self._active.values():
                if active.task is not None:
                    active.task.cancel()

    async def _run(self, key: ConversationKey, active: _Conversation) -> None:
        try:
            while active.is_woken:
                active.is_woken = False
                async with self._slots:
                    if self._is_draining:
                        return
                    await self._run_turn(key, active.control)
        finally:
            del self._active[key]
            if not self._active:
                self._is_idle.set()
