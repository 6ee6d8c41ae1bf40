"""What people see while nothing of the answer can be shown: a status, or 👀."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from slackbot.domain.turns import Turn
from slackbot.errors import SlackError, SlackRefusedError, StoreError
from slackbot.slack.calls import SlackCalls
from slackbot.slack.limits import STATUS_RENEWAL_S
from slackbot.slack.plain_text import fallback
from slackbot.store.base import PostLog

log = logging.getLogger(__name__)

FIRST_STATUS = "is thinking…"
MAX_STATUS_CHARS = 100
REACTION = "eyes"
REACTION_AFTER_S = 0.8
CLEARING_TIME_S = 5.0  # what shows that people wait must not make them wait


class WaitingSign:
    """Shows that a turn is under way, until the answer shows it better.

    A thread gets a status. At the top level of a DM a status may be invisible, so there, and where
    Slack refuses the status, the question gets a reaction once people have waited a moment.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        calls: SlackCalls,
        posts: PostLog,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._turn = turn
        self._calls = calls
        self._posts = posts
        self._clock = clock
        self._sleep = sleep
        self._status = FIRST_STATUS
        self._changed = asyncio.Event()
        self._is_status_refused = False
        self._status_at: float | None = None  # when Slack had the last status; inf: under way
        self._has_reaction = turn.has_reaction
        self._one_call = asyncio.Lock()  # what is taken away must not arrive afterwards
        self._is_over = False
        self.is_posted = False

    def set_status(self, status: str) -> None:
        """Shows `status` from now on."""
        status = fallback(status)[:MAX_STATUS_CHARS]
        if status != self._status:
            self._status = status
            self._changed.set()

    def note_post(self, began_at: float) -> None:
        """The answer has a message now: in a thread, Slack clears an earlier status with it."""
        self.is_posted = True
        in_thread = self._turn.conversation.thread_ts is not None
        if in_thread and self._status_at is not None and self._status_at < began_at:
            self._status_at = None

    async def show(self) -> None:
        """Shows the status, renews it, and adds the reaction when its time has come."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._react_late(), name="reaction")
            while not self._is_status_refused:
                async with self._one_call:
                    await self._send_status(self._status)
                self._changed.clear()
                try:
                    async with asyncio.timeout(STATUS_RENEWAL_S):
                        await self._changed.wait()
                except TimeoutError:
                    if self.is_posted:
                        return

    async def clear(self) -> None:
        """Takes away what is still shown, for good; best effort."""
        self._is_over = True
        for clear in (self._clear_status, self._remove_reaction):
            try:
                async with asyncio.timeout(CLEARING_TIME_S), self._one_call:
                    await clear()
            except (SlackError, StoreError, TimeoutError) as error:
                log.warning("waiting.not_cleared", extra={"reason": str(error)})

    @property
    def _status_ts(self) -> str:
        return self._turn.conversation.thread_ts or self._turn.asked_ts

    async def _send_status(self, status: str) -> None:
        if self._is_over:
            return
        self._status_at = math.inf
        try:
            await self._calls.set_status(self._turn.conversation.channel, self._status_ts, status)
        except SlackRefusedError as error:
            log.info("status.refused", extra={"reason": error.reason})
            self._is_status_refused = True
            self._status_at = None
        except SlackError as error:
            log.info("status.failed", extra={"reason": error.reason})
        else:
            self._status_at = self._clock()

    async def _react_late(self) -> None:
        await self._sleep(REACTION_AFTER_S)
        async with self._one_call:
            await self._react()

    async def _react(self) -> None:
        is_flat = self._turn.conversation.thread_ts is None
        is_needed = is_flat or self._is_status_refused
        if self._is_over or self.is_posted or self._has_reaction or not is_needed:
            return
        try:
            await self._posts.save_reaction(self._turn.id, is_there=True)
            self._has_reaction = True
            await self._calls.add_reaction(
                self._turn.conversation.channel, self._turn.asked_ts, REACTION
            )
        except (SlackError, StoreError) as error:
            log.info("reaction.failed", extra={"reason": str(error)})

    async def _clear_status(self) -> None:
        if self._status_at is not None:
            await self._calls.set_status(self._turn.conversation.channel, self._status_ts, "")
            self._status_at = None

    async def _remove_reaction(self) -> None:
        if not self._has_reaction:
            return
        try:
            await self._calls.remove_reaction(
                self._turn.conversation.channel, self._turn.asked_ts, REACTION
            )
        except SlackRefusedError as error:  # it was never there, or is gone
            log.info("reaction.not_removed", extra={"reason": error.reason})
        await self._posts.save_reaction(self._turn.id, is_there=False)
        self._has_reaction = False
