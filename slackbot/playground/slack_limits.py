"""How often Slack lets a method be called, and how it says no."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket: `burst` calls at once, `per_minute` in the long run."""

    per_minute: float
    burst: int


TIER_2 = RateLimit(per_minute=20, burst=20)
TIER_3 = RateLimit(per_minute=50, burst=20)
TIER_4 = RateLimit(per_minute=100, burst=40)
METHOD_LIMITS: Mapping[
    str, RateLimit
] = {  # docs.slack.dev/apis/web-api/rate-limits; bursts: guesses
    "apps.connections.open": TIER_3,
    "assistant.threads.setStatus": RateLimit(per_minute=600, burst=100),
    "chat.delete": TIER_3,
    "chat.postEphemeral": TIER_4,
    "chat.update": TIER_3,
    "conversations.history": TIER_3,
    "conversations.info": TIER_3,
    "conversations.open": TIER_3,
    "conversations.replies": TIER_3,
    "reactions.add": TIER_3,
    "reactions.remove": TIER_2,
    "team.info": TIER_3,
    "users.info": TIER_4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackLimits:
    """Limits per method, and for posts per channel. A method that is not named has no limit."""

    methods: Mapping[str, RateLimit] = field(default_factory=lambda: METHOD_LIMITS)
    posts_per_channel: RateLimit | None = RateLimit(per_minute=60, burst=3)

    @classmethod
    def none(cls) -> "SlackLimits":
        """No limits at all."""
        return cls(methods={}, posts_per_channel=None)

    def changed(self, **methods: RateLimit) -> "SlackLimits":
        """These limits with other ones for some methods; `chat_update` names `chat.update`."""
        renamed = {name.replace("_", "."): limit for name, limit in methods.items()}
        return SlackLimits(
            methods={**self.methods, **renamed}, posts_per_channel=self.posts_per_channel
        )


@dataclass(slots=True)
class Bucket:
    """The tokens left of one limit, as of `counted_at`."""

    limit: RateLimit
    tokens: float
    counted_at: float

    def take(self, now: float) -> float:
        """0.0 and one token less, or the seconds until there is one."""
        rate = self.limit.per_minute / 60
        self.tokens = min(self.limit.burst, self.tokens + (now - self.counted_at) * rate)
        self.counted_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / rate


class Throttle:
    """The workspace's buckets. Who was refused stays refused until its wait is over."""

    def __init__(self, limits: SlackLimits, monotonic: Callable[[], float]) -> None:
        self.limits = limits
        self._monotonic = monotonic
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._held_until: dict[tuple[str, str], float] = {}

    def take(self, method: str, channel: str) -> float:
        """0.0 if the call may pass, otherwise the whole seconds it has to wait."""
        now = self._monotonic()
        waits = [math.ceil(self._held_until.get((method, ""), 0.0) - now)]
        if limit := self.limits.methods.get(method):
            waits.append(self._take(limit, (method, ""), now))
        if method == "chat.postMessage" and (limit := self.limits.posts_per_channel):
            waits.append(self._take(limit, (method, channel), now))
        return max(0.0, *waits)

    def hold(self, method: str, seconds: float) -> None:
        """Refuses `method` for so long, as a 429 does."""
        self._held_until[method, ""] = self._monotonic() + seconds

    def _take(self, limit: RateLimit, key: tuple[str, str], now: float) -> int:
        held_s = self._held_until.get(key, 0.0) - now
        if held_s > 0:
            return math.ceil(held_s)
        bucket = self._buckets.get(key)
        if bucket is None or bucket.limit is not limit:
            bucket = self._buckets[key] = Bucket(limit, float(limit.burst), now)
        wait_s = math.ceil(bucket.take(now))
        if wait_s:
            self._held_until[key] = now + wait_s
        return wait_s
