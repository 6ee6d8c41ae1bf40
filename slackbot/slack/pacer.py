"""Who may post and edit when, so that Slack never has to say no.

Slack limits edits per workspace, for all answers in flight together, and a 429 holds the whole
method; posts are limited per channel. A message that is shown unfinished owes one more edit, its
final. The pacer admits what is unfinished only while it could pay all of these within two seconds,
and otherwise leaves an answer to wait until it is complete.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from slackbot.slack.limits import (
    EDITS_PER_MINUTE,
    MAX_EDIT_BURST,
    MAX_EDITS_IN_FLIGHT,
    MAX_POST_BURST,
    POSTS_PER_SECOND,
)

FINALS_WITHIN_S = 2.0
QUICK_EDITS = 5  # the first ones of a message come quickly, then readers follow anyway
QUICK_INTERVAL_S = 1.0
CALM_INTERVAL_S = 3.0
RATE_CUT = 0.6
POST_RATE_CUT = 0.9  # one a second is documented: a refusal there says little about the rate
BURST_CUT = 0.5
BURST_TIME_S = 5.0
MIN_RATE = 0.1  # a second: a final edit never waits longer than Slack asks and ten seconds
RECOVERY_S = 60.0  # without a refusal: a tenth of the rate and one of the burst come back
RECOVERY_SHARE = 0.1
LOOK_AGAIN_S = 0.1
MIN_WAIT_S = 0.001


# Who asked first: the ts of the question, its parts as numbers, then the part of the answer.
Order: TypeAlias = tuple[tuple[int, int], str]
# A post may be under way a little longer than the one before: a tenth of a second in hand.
PACED_BURST = MAX_POST_BURST - 0.1


@dataclass(slots=True)
class Budget:
    """A token bucket that learns from refusals: calls, and calls a second."""

    rate: float
    burst: float
    tokens: float
    at: float
    rate_cut: float = RATE_CUT
    held_until: float = 0.0
    changed_at: float = 0.0
    accepted_at: deque[float] = field(default_factory=partial(deque, maxlen=MAX_EDIT_BURST))
    full_rate: float = field(init=False)
    full_burst: float = field(init=False)

    def __post_init__(self) -> None:
        self.full_rate, self.full_burst = self.rate, self.burst
        self.changed_at = self.at

    def refill(self, now: float) -> None:
        """Adds what has come in since the last time, and recovers slowly."""
        while now - max(self.changed_at, self.held_until) >= RECOVERY_S and not self._is_full:
            self.changed_at = max(self.changed_at, self.held_until) + RECOVERY_S
            self.rate = min(self.full_rate, self.rate + RECOVERY_SHARE * self.full_rate)
            self.burst = min(self.full_burst, self.burst + 1)
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = max(now, self.at)

    def _taken_lately(self, now: float) -> float:
        """How many calls Slack has taken in a row; no lesson where it took none at all."""
        if not self.accepted_at:
            return self.burst
        return sum(now - at <= BURST_TIME_S for at in self.accepted_at)

    @property
    def _is_full(self) -> bool:
        return self.rate == self.full_rate and self.burst == self.full_burst

    def may_take(self, now: float) -> bool:
        """Whether one more call is within the budget."""
        return now >= self.held_until and self.tokens >= 1

    def wait_s(self, now: float) -> float:
        """Seconds until `may_take`, if nobody takes before."""
        return max(self.held_until - now, (1 - self.tokens) / self.rate, 0.0)

    def accept(self, now: float) -> None:
        """Slack said yes: what it took in a row says what burst it allows."""
        self.accepted_at.append(now)

    def refuse(self, now: float, retry_after_s: float) -> None:
        """Slack said no: assume less from now on, and wait as long as it asks."""
        if now >= self.held_until:  # several refusals at once are one lesson
            self.rate = max(MIN_RATE, self.rate * self.rate_cut)
            self.burst = max(1.0, min(self.burst * BURST_CUT, self._taken_lately(now)))
            self.changed_at = now
        self.held_until = max(self.held_until, now + retry_after_s)
        self.tokens = 0.0
        # What comes in while the method is held is not spent before it is over.
        self.at = max(self.at, self.held_until - 1 / self.rate)


@dataclass(eq=False, slots=True)
class PacedMessage:
    """One message of ShopMate's as the pacer sees it: when it was edited, and how often."""

    order: Order
    edits: int = 0
    shown_at: float = 0.0

    @property
    def due_at(self) -> float:
        """When its next intermediate edit is worth making."""
        return self.shown_at + (QUICK_INTERVAL_S if self.edits < QUICK_EDITS else CALM_INTERVAL_S)


@dataclass(eq=False, slots=True)
class _Waiter:
    message: PacedMessage
    granted: asyncio.Future[None]


class EditPacer:
    """Hands out the edits of one workspace. Everything waiting here can be cancelled."""

    def __init__(self, clock: Callable[[], float], *, is_paced: bool = True) -> None:
        self._clock = clock
        self._is_paced = is_paced
        self._budget = Budget(
            rate=EDITS_PER_MINUTE / 60, burst=MAX_EDIT_BURST, tokens=0.0, at=clock()
        )
        self._finals: list[_Waiter] = []
        self._growing: list[_Waiter] = []
        self._unfinished: list[_Waiter] = []
        self._owed = 0
        self._in_flight = 0
        self._timer: asyncio.TimerHandle | None = None

    async def admit_unfinished(self, message: PacedMessage) -> None:
        """Returns when `message` may be posted unfinished; from then on it owes its final edit.

        Every message admitted is settled once, by `settle`.
        """
        await self._wait(self._unfinished, message)

    def owe(self) -> None:
        """A message is shown unfinished already, by an earlier process: it owes its final edit."""
        self._owed += 1

    def settle(self) -> None:
        """A message that owed its final edit owes it no more."""
        self._owed -= 1
        self._pump()

    async def admit_final_edit(self, message: PacedMessage) -> None:
        """Returns when the edit that completes `message` may be made; before all others.

        Every edit admitted is reported once, by `note_edit`.
        """
        await self._wait(self._finals, message)

    async def admit_edit(self, message: PacedMessage) -> None:
        """Returns when an edit may show more of `message`: when there are edits to spare.

        Every edit admitted is reported once, by `note_edit`.
        """
        await self._wait(self._growing, message)

    def note_edit(self, message: PacedMessage, *, retry_after_s: float | None = None) -> None:
        """An edit is over; with `retry_after_s` if Slack said to wait that long."""
        now = self._clock()
        message.edits += 1
        message.shown_at = now
        self._in_flight -= 1
        if retry_after_s is None:
            self._budget.accept(now)
        else:
            self._budget.refuse(now, retry_after_s)
        self._pump()

    def give_back_edit(self) -> None:
        """An edit that was admitted is not made."""
        self._in_flight -= 1
        self._budget.tokens += 1
        self._pump()

    async def _wait(self, queue: list[_Waiter], message: PacedMessage) -> None:
        waiter = _Waiter(message, asyncio.get_running_loop().create_future())
        queue.append(waiter)
        self._pump()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            self._give_back(queue, waiter)
            raise

    def _give_back(self, queue: list[_Waiter], waiter: _Waiter) -> None:
        if waiter in queue:
            queue.remove(waiter)
            self._pump()
        elif queue is self._unfinished:
            self.settle()
        else:
            self.give_back_edit()

    def _pump(self) -> None:
        """Grants whatever may go now, and comes back when more may."""
        now = self._clock()
        self._budget.refill(now)
        for final in _in_line(self._finals, by=lambda message: message.order):
            if self._may_edit(now):
                self._grant_edit(self._finals, final)
        for growing in _in_line(self._growing, by=lambda message: message.shown_at):
            if self._is_due(growing.message, now) and self._may_grow(now, spent=1, owed=0):
                self._grant_edit(self._growing, growing)
        for unfinished in _in_line(self._unfinished, by=lambda message: message.order):
            if self._may_grow(now, spent=0, owed=1):
                self._owed += 1
                _grant(self._unfinished, unfinished)
        self._set_timer(now)

    def _is_due(self, message: PacedMessage, now: float) -> bool:
        return not self._is_paced or message.due_at <= now

    def _may_edit(self, now: float) -> bool:
        if not self._is_paced:
            return True
        return self._in_flight < MAX_EDITS_IN_FLIGHT and self._budget.may_take(now)

    def _may_grow(self, now: float, *, spent: int, owed: int) -> bool:
        """Whether all finals could still be paid soon after `spent` edits and `owed` more."""
        if not self._is_paced:
            return True
        if self._finals or now < self._budget.held_until or (spent and not self._may_edit(now)):
            return False
        payable = self._budget.tokens - spent + FINALS_WITHIN_S * self._budget.rate
        return payable >= self._owed + owed

    def _grant_edit(self, queue: list[_Waiter], waiter: _Waiter) -> None:
        self._budget.tokens -= 1
        self._in_flight += 1
        _grant(queue, waiter)

    def _set_timer(self, now: float) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        waits = [waiter.message.due_at - now for waiter in self._growing]
        if self._finals or self._growing or self._unfinished:
            # Growth may need more than one edit in the budget: it looks again as they come in.
            waits.append(max(self._budget.wait_s(now), LOOK_AGAIN_S))
        if waits := [wait for wait in waits if wait > 0]:
            wait_s = max(min(waits), MIN_WAIT_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._pump)


def _in_line(queue: list[_Waiter], *, by: Callable[[PacedMessage], Any]) -> list[_Waiter]:
    """Who waits, the first first. One that has just been cancelled takes itself away."""
    waiting = [waiter for waiter in queue if not waiter.granted.done()]
    return sorted(waiting, key=lambda waiter: by(waiter.message))


def _grant(queue: list[_Waiter], waiter: _Waiter) -> None:
    queue.remove(waiter)
    waiter.granted.set_result(None)


class PostPacer:
    """Hands out the posts of each channel, in the order in which people asked."""

    def __init__(self, clock: Callable[[], float], *, is_paced: bool = True) -> None:
        self._clock = clock
        self._is_paced = is_paced
        self._channels: dict[str, _ChannelPosts] = {}

    async def admit_post(self, channel: str, order: Order) -> None:
        """Returns when a post may be made in `channel`; the least `order` goes first."""
        if self._is_paced:
            await self._posts_of(channel).wait(order)

    def note_refusal(self, channel: str, retry_after_s: float) -> None:
        """Slack said to wait that long before the next post in `channel`."""
        self._posts_of(channel).budget.refuse(self._clock(), retry_after_s)

    def _posts_of(self, channel: str) -> "_ChannelPosts":
        posts = self._channels.get(channel)
        if posts is None:
            self._forget_idle()
            posts = self._channels[channel] = _ChannelPosts(self._clock)
        return posts

    def _forget_idle(self) -> None:
        now = self._clock()
        self._channels = {
            channel: posts for channel, posts in self._channels.items() if not posts.is_idle(now)
        }


class _ChannelPosts:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: list[_Waiter] = []
        self._timer: asyncio.TimerHandle | None = None
        self.budget = Budget(
            rate=POSTS_PER_SECOND,
            burst=PACED_BURST,
            tokens=PACED_BURST,
            at=clock(),
            rate_cut=POST_RATE_CUT,
        )

    def is_idle(self, now: float) -> bool:
        self.budget.refill(now)
        return not self._waiting and self.budget.tokens >= self.budget.burst

    async def wait(self, order: Order) -> None:
        waiter = _Waiter(PacedMessage(order), asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._pump()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self.budget.tokens += 1
            self._pump()
            raise

    def _pump(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        self.budget.refill(now)
        for waiter in _in_line(self._waiting, by=lambda message: message.order):
            if self.budget.may_take(now):
                self.budget.tokens -= 1
                _grant(self._waiting, waiter)
        if self._waiting:
            wait_s = max(self.budget.wait_s(now), MIN_WAIT_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._pump)
