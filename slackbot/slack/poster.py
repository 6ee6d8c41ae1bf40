"""One post, once: intended, posted, recorded; looked for wherever its outcome is unknown."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slackbot.domain.messages import ts_order
from slackbot.errors import (
    SlackRateLimitedError,
    SlackRefusedError,
    SlackUnreachableError,
)
from slackbot.slack.calls import FIRST_RETRY_S, LAST_RETRY_S, MAX_TRIES, SlackCalls, insist
from slackbot.slack.pacer import PostPacer
from slackbot.store.base import PostLog

log = logging.getLogger(__name__)

EVENT_TYPE = "shopmate_post"
LOOK_AGAIN_S = 3.0  # what Slack accepted may take a moment to be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class PostTarget:
    """Where a turn posts. `oldest` is a ts that every post of the turn comes after."""

    turn_id: int
    channel: str
    thread_ts: str | None
    oldest: str


@dataclass(frozen=True, slots=True)
class Posted:
    """A message in Slack; `is_new` if it was posted now, with the content of now."""

    ts: str
    is_new: bool


class Poster:
    """Posts whatever a turn posts, each part once, whatever fails on the way."""

    def __init__(
        self,
        *,
        calls: SlackCalls,
        posts: PostLog,
        pacer: PostPacer,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._calls = calls
        self._posts = posts
        self._pacer = pacer
        self._sleep = sleep

    async def admit(self, target: PostTarget, part: str) -> None:
        """Returns when `part` may be posted, in the order in which people asked."""
        await self._pacer.admit_post(target.channel, (ts_order(target.oldest), part.zfill(3)))

    async def post(
        self,
        target: PostTarget,
        part: str,
        *,
        content: Mapping[str, Any],
        is_intended: bool = False,
        is_admitted: bool = False,
    ) -> Posted:
        """The message that has `part`, posted now or by an earlier attempt.

        With `is_intended` an earlier attempt may have posted it, with another content; with
        `is_admitted` the caller has waited for `admit`.

        Raises:
            SlackRefusedError: Slack will not have it; there is no intention on record any more.
            SlackError: Slack could not be reached for a long time.
            TurnSupersededError: the turn was taken back.
        """
        if is_intended:
            ts = await self.find(target, part)
            if ts is not None:
                await self._posts.save_post(target.turn_id, part, ts)
                return Posted(ts, is_new=False)
        pause_s = FIRST_RETRY_S
        for number in range(MAX_TRIES):
            if number or not is_admitted:
                await self.admit(target, part)
            try:
                ts = await self._post_once(target, part, content)
            except SlackRateLimitedError as error:
                self._pacer.note_refusal(target.channel, error.retry_after_s)
                continue
            except SlackUnreachableError as error:
                log.warning("post.unknown", extra={"part": part, "reason": error.reason})
                found = await self.find(target, part)
                if found is None:
                    await self._sleep(pause_s)
                    pause_s = min(LAST_RETRY_S, pause_s * 2)
                    continue
                ts = found
            await self._posts.save_post(target.turn_id, part, ts)
            return Posted(ts, is_new=True)
        raise SlackUnreachableError("chat.postMessage", f"no answer to {MAX_TRIES} tries")

    async def _post_once(self, target: PostTarget, part: str, content: Mapping[str, Any]) -> str:
        await self._posts.intend_post(target.turn_id, part)
        thread = {"thread_ts": target.thread_ts} if target.thread_ts else {}
        try:
            return await self._calls.post(
                channel=target.channel,
                **thread,
                **content,
                unfurl_links=False,
                unfurl_media=False,
                metadata=_build_metadata(target, part),
            )
        except SlackRefusedError:
            await self._posts.forget_post(target.turn_id, part)
            raise

    async def find(self, target: PostTarget, part: str) -> str | None:
        """The ts of the message that has `part`, looked for twice; None if it is not there.

        Raises:
            SlackError: Slack could not be asked for a long time.
        """
        ts = await self._look(target, part)
        if ts is None:
            await self._sleep(LOOK_AGAIN_S)
            ts = await self._look(target, part)
        return ts

    async def _look(self, target: PostTarget, part: str) -> str | None:
        def fetch() -> Awaitable[list[Mapping[str, Any]]]:
            return self._calls.fetch_messages(
                target.channel, target.thread_ts, oldest=target.oldest
            )

        try:
            # Not to know is not to find nothing: who posts again then has posted twice.
            messages = await insist(fetch, sleep=self._sleep)
        except SlackRefusedError as error:  # it can't be known: rather twice than never
            log.warning("post.not_looked_for", extra={"part": part, "reason": error.reason})
            return None
        wanted = _build_metadata(target, part)
        found = (message["ts"] for message in messages if message.get("metadata") == wanted)
        return next(found, None)


def _build_metadata(target: PostTarget, part: str) -> Mapping[str, Any]:
    payload = {"turn": str(target.turn_id), "part": part, "asked": target.oldest}
    return {"event_type": EVENT_TYPE, "event_payload": payload}
