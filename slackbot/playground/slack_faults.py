"""Ways in which a call to Slack can go wrong, to be injected by tests."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

ArgumentsPredicate: TypeAlias = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimited:
    """HTTP 429 with `Retry-After`; the method stays refused for that time."""

    method: str
    retry_after_s: float
    times: int = 1
    where: ArgumentsPredicate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """HTTP 200, `ok: false`."""

    method: str
    error: str
    times: int = 1
    where: ArgumentsPredicate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBroken:
    """An HTML page instead of an answer; nothing took effect."""

    method: str
    status: int = 503
    times: int = 1
    where: ArgumentsPredicate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """The connection breaks before the effect, or with `done` after it: done, but no answer."""

    method: str
    done: bool
    times: int = 1
    where: ArgumentsPredicate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The call waits for `release`, before its effect or between effect and answer."""

    method: str
    before: bool = True
    times: int = 1
    where: ArgumentsPredicate | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self) -> None:
        """Says that the call is here, and waits until the test lets it go."""
        self.reached.set()
        await self.release.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """The call takes `seconds` longer."""

    method: str
    seconds: float
    times: int = 1
    where: ArgumentsPredicate | None = None


Fault: TypeAlias = RateLimited | Refused | ServerBroken | Dropped | Held | Slow


class Faults:
    """The faults still to come, in the order they were added."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, *faults: Fault) -> None:
        """Each takes place at the next calls that match, `times` times."""
        self._waiting += [(fault, fault.times) for fault in faults]

    def clear(self) -> None:
        """No more faults; calls that are held stay held."""
        self._waiting.clear()

    def take(self, method: str, arguments: Mapping[str, Any]) -> Fault | None:
        """The first fault that fits this call, used up by one; None if there is none."""
        for index, (fault, left) in enumerate(self._waiting):
            if fault.method not in ("*", method):
                continue
            if fault.where is not None and not fault.where(arguments):
                continue
            if left > 1:
                self._waiting[index] = (fault, left - 1)
            else:
                del self._waiting[index]
            return fault
        return None
