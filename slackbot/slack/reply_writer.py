"""One answer that grows in Slack: posted, edited at the pacer's pace, completed for certain.

Only one thing happens to an answer at a time: `show_growth` shows more and more of it, until
`deliver` takes over and brings every message to its final text.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from slackbot import apologies
from slackbot.domain.answers import FIRST_WORDS_CHARS
from slackbot.domain.messages import ts_order
from slackbot.domain.turns import Turn
from slackbot.errors import (
    SlackAuthError,
    SlackError,
    SlackRateLimitedError,
    SlackRefusedError,
    SlackUnreachableError,
    TurnSupersededError,
    UndeliverableError,
)
from slackbot.slack.calls import FIRST_RETRY_S, LAST_RETRY_S, MAX_TRIES, SlackCalls, insist
from slackbot.slack.markdown import finished, heal, presentable, split
from slackbot.slack.pacer import EditPacer, PacedMessage
from slackbot.slack.plain_text import fallback, plain_parts
from slackbot.slack.poster import Poster, PostTarget
from slackbot.slack.waiting import WaitingSign
from slackbot.store.base import PostLog
from slackbot.tasks import open_tasks

log = logging.getLogger(__name__)

Content: TypeAlias = Mapping[str, Any]

CLOSING_TIME_S = 5.0
INVITATION = "invitation"
# What is wrong with the blocks, not with the message.
_BLOCKS_REFUSED = frozenset(
    {
        "block_mismatch",
        "invalid_blocks",
        "invalid_blocks_format",
        "markdown_text_conflict",
        "msg_blocks_too_long",
        "msg_too_long",
    }
)
_GONE = frozenset({"cant_update_message", "edit_window_closed", "message_not_found"})
_NOT_A_MEMBER = frozenset({"channel_not_found", "not_in_channel"})


@dataclass(slots=True)
class _Message:
    """One Slack message of the answer. `shown` is None where an earlier process showed it."""

    part: int
    paced: PacedMessage
    ts: str | None = None
    is_intended: bool = False
    is_reposted: bool = False
    owes_final: bool = False
    shown: Content | None = None


class SlackReply:
    """The answer of one turn. See `assistant.Reply` for what its callers may rely on."""

    def __init__(
        self,
        turn: Turn,
        *,
        calls: SlackCalls,
        poster: Poster,
        pacer: EditPacer,
        posts: PostLog,
        sign: WaitingSign,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._turn = turn
        self._calls = calls
        self._poster = poster
        self._pacer = pacer
        self._posts = posts
        self._sign = sign
        self._clock = clock
        self._sleep = sleep
        self._target = PostTarget(
            turn_id=turn.id,
            channel=turn.conversation.channel,
            thread_ts=turn.conversation.thread_ts,
            oldest=turn.asked_ts,
        )
        self._messages: list[_Message] = []
        for post in turn.posts:
            message = self._message(post.part)
            message.ts, message.is_intended = post.ts, True
            message.owes_final = True
            pacer.owe()
        self._text = ""
        self._has_more = asyncio.Event()
        self._is_completing = False
        self._pause: asyncio.Timeout | None = None
        self._is_at_rest = asyncio.Event()
        self._is_at_rest.set()

    @property
    def is_posted(self) -> bool:
        """Whether any of it was, or may have been, posted."""
        return any(message.is_intended for message in self._messages)

    def grow(self, text: str) -> None:
        """Has `text`, the answer so far, shown when Slack's limits allow."""
        if text and text != self._text:
            self._text = text
            self._has_more.set()

    def set_status(self, status: str) -> None:
        """Has people told what ShopMate is doing."""
        self._sign.set_status(status)

    async def show_growth(self) -> None:
        """Shows more of the answer whenever there is more, until it is completed."""
        self._is_at_rest.clear()
        try:
            while not self._is_completing:
                if await self._waits_through(self._has_more.wait()):
                    self._has_more.clear()
                    await self._show_more()
        except (SlackError, TurnSupersededError) as error:
            # Completing tries again, and decides what can't be helped.
            log.warning("growth.ended", extra={"reason": str(error)})
        finally:
            self._is_at_rest.set()

    async def deliver(self, text: str) -> None:
        """Returns once all of `text`, and nothing else, is in Slack.

        Raises:
            UndeliverableError: Slack will not have it, now or later.
            SlackUnreachableError: Slack could not be reached for a long time.
        """
        await self.stop_growing()
        try:
            await self._complete_somehow(text)
        except SlackAuthError:
            raise  # with another token it can be delivered
        except SlackRefusedError as error:
            await self._ask_for_invitation(error)
            raise UndeliverableError(error.reason) from error
        await self._sign.clear()

    async def stop_growing(self) -> None:
        """Returns once nothing more is shown before `deliver` or `postpone`."""
        self._is_completing = True
        if self._pause is not None:
            self._pause.reschedule(0)
            self._pause = None
        await self._is_at_rest.wait()

    async def postpone(self, note: str) -> None:
        """Ends what is shown with `note`, as far as that can be done quickly."""
        with suppress(TimeoutError, SlackError):
            async with asyncio.timeout(CLOSING_TIME_S):
                await self.stop_growing()
                shown = [message for message in self._messages if message.ts]
                if shown:
                    last_part = split(self._text)[shown[-1].part :][:1]
                    text = "\n\n".join([*map(heal, last_part), note])
                    await self._edit(shown[-1], _build_finished(text))

    def release(self) -> None:
        """Gives back whatever it still owes the pacer."""
        for message in self._messages:
            self._settle(message)

    # While it grows

    async def _show_more(self) -> None:
        *complete, growing = split(self._text)
        for part, text in enumerate(complete):
            await self._complete_part(part, _build_finished(text))
        message = self._message(len(complete))
        content = _build_unfinished(growing)
        if content is None or content == message.shown:
            return
        if not message.is_intended:
            if _is_worth_a_post(content):
                await self._post_unfinished(message)
        elif message.ts is not None:
            await self._edit_unfinished(message)

    async def _post_unfinished(self, message: _Message) -> None:
        is_admitted = await self._waits_through(self._admit(message))
        content = self._newest(message)
        if not is_admitted or content is None or self._is_completing:
            self._settle(message)
            return
        await self._post(message, content, is_admitted=True)

    async def _admit(self, message: _Message) -> None:
        await self._pacer.admit_unfinished(message.paced)
        message.owes_final = True
        await self._poster.admit(self._target, str(message.part))

    async def _edit_unfinished(self, message: _Message) -> None:
        if not await self._waits_through(self._pacer.admit_edit(message.paced)):
            return
        content = self._newest(message)
        if content is None or self._is_completing:
            self._pacer.give_back_edit()
            return
        with suppress(SlackRateLimitedError, SlackUnreachableError):  # the next one shows more
            await self._make_edit(message, content)

    def _newest(self, message: _Message) -> Content | None:
        """What `message` should show by now; None if it is not the growing one any more."""
        parts = split(self._text)
        if message.part != len(parts) - 1:
            self._has_more.set()
            return None
        return _build_unfinished(parts[-1])

    async def _waits_through(self, waiting: Coroutine[Any, Any, object]) -> bool:
        """Waits to the end; False if it gave up because the answer is to be completed now."""
        try:
            async with asyncio.timeout(0 if self._is_completing else None) as self._pause:
                await waiting
        except TimeoutError:
            return False
        finally:
            self._pause = None
        return True

    # When it is complete

    async def _complete_somehow(self, text: str) -> None:
        try:
            await self._complete([_build_finished(part) for part in split(text)])
        except SlackRefusedError as error:
            if error.reason not in _BLOCKS_REFUSED:
                raise
            log.warning("blocks.refused", extra={"reason": error.reason})
            await self._complete([_build_plain(part) for part in plain_parts(text)])

    async def _complete(self, parts: list[Content]) -> None:
        for part, content in enumerate(parts):
            await self._complete_part(part, content)
        for message in self._messages[len(parts) :]:
            await self._delete(message)
        del self._messages[len(parts) :]

    async def _complete_part(self, part: int, content: Content) -> None:
        message = self._message(part)
        pause_s = FIRST_RETRY_S
        for _ in range(MAX_TRIES):
            if message.ts is None:
                await self._post(message, content)
            if message.shown == content:
                self._settle(message)
                return
            try:
                await self._edit(message, content)
            except SlackRateLimitedError:
                continue  # the pacer waits
            except SlackUnreachableError:
                await self._sleep(pause_s)
                pause_s = min(LAST_RETRY_S, pause_s * 2)
            except SlackRefusedError as error:
                await self._forget_gone(message, error)
        raise SlackUnreachableError("chat.update", f"no answer to {MAX_TRIES} tries")

    async def _post(
        self, message: _Message, content: Content, *, is_admitted: bool = False
    ) -> None:
        began_at = self._clock()
        was_intended, message.is_intended = message.is_intended, True
        try:
            posted = await self._poster.post(
                self._target,
                str(message.part),
                content=content,
                is_intended=was_intended,
                is_admitted=is_admitted,
            )
        except SlackRefusedError:
            message.is_intended = False  # it is nowhere, and need not be looked for
            raise
        message.ts = posted.ts
        message.shown = content if posted.is_new else None
        message.paced.shown_at = self._clock()
        if posted.is_new:  # one that was found came before the status of now
            self._sign.note_post(began_at)

    async def _edit(self, message: _Message, content: Content) -> None:
        await self._pacer.admit_final_edit(message.paced)
        await self._make_edit(message, content)

    async def _make_edit(self, message: _Message, content: Content) -> None:
        retry_after_s = None
        message.shown = None  # whatever happens to the call, it may have been done
        try:
            await self._calls.update(channel=self._target.channel, ts=message.ts, **content)
        except SlackRateLimitedError as error:
            retry_after_s = error.retry_after_s
            raise
        else:
            message.shown = content
        finally:
            self._pacer.note_edit(message.paced, retry_after_s=retry_after_s)

    async def _forget_gone(self, message: _Message, error: SlackRefusedError) -> None:
        """Somebody deleted it: it is posted once more, and not again."""
        if error.reason not in _GONE or message.is_reposted:
            raise error
        if error.reason != "message_not_found":  # it is still there, and cannot be completed
            await self._delete_from_slack(message.ts)
        await self._posts.forget_post(self._turn.id, str(message.part))
        self._settle(message)
        message.ts, message.shown = None, None
        message.is_intended, message.is_reposted = False, True

    async def _delete(self, message: _Message) -> None:
        """Takes a surplus message away, which an earlier attempt posted."""
        self._settle(message)
        ts = message.ts or await self._poster.find(self._target, str(message.part))
        await self._delete_from_slack(ts)
        await self._posts.forget_post(self._turn.id, str(message.part))

    async def _delete_from_slack(self, ts: str | None) -> None:
        if ts is None:
            return
        try:
            await insist(lambda: self._calls.delete(self._target.channel, ts), sleep=self._sleep)
        except SlackRefusedError as error:
            log.info("message.not_deleted", extra={"reason": error.reason})

    async def _ask_for_invitation(self, error: SlackRefusedError) -> None:
        """Where ShopMate is no member, whoever asked is told so in a DM; once."""
        if error.reason not in _NOT_A_MEMBER or self._turn.place.is_dm:
            return
        note = apologies.INVITE_ME.format(channel=f"<#{self._target.channel}>")
        is_intended, ts = await self._posts.load_post(self._turn.id, INVITATION)
        if ts is not None:
            return
        try:
            channel = await insist(lambda: self._calls.open_dm(self._turn.asker), sleep=self._sleep)
            target = PostTarget(
                turn_id=self._turn.id, channel=channel, thread_ts=None, oldest=self._target.oldest
            )
            await self._poster.post(
                target, INVITATION, content={"text": note}, is_intended=is_intended
            )
        except SlackError as refusal:
            log.warning("invitation.failed", extra={"reason": str(refusal)})

    def _message(self, part: int) -> _Message:
        while len(self._messages) <= part:
            number = len(self._messages)
            paced = PacedMessage(order=(ts_order(self._turn.asked_ts), f"{number:03}"))
            self._messages.append(_Message(part=number, paced=paced))
        return self._messages[part]

    def _settle(self, message: _Message) -> None:
        if message.owes_final:
            message.owes_final = False
            self._pacer.settle()


class SlackReplies:
    """Opens the answers of turns. See `assistant.Replies`."""

    def __init__(
        self,
        *,
        calls: SlackCalls,
        poster: Poster,
        pacer: EditPacer,
        posts: PostLog,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._calls = calls
        self._poster = poster
        self._pacer = pacer
        self._posts = posts
        self._clock = clock
        self._sleep = sleep

    @asynccontextmanager
    async def open_reply(self, turn: Turn) -> AsyncIterator[SlackReply]:
        """The answer of `turn`, with what an earlier attempt posted of it."""
        sign = WaitingSign(
            turn, calls=self._calls, posts=self._posts, clock=self._clock, sleep=self._sleep
        )
        reply = SlackReply(
            turn,
            calls=self._calls,
            poster=self._poster,
            pacer=self._pacer,
            posts=self._posts,
            sign=sign,
            clock=self._clock,
            sleep=self._sleep,
        )
        try:
            async with open_tasks() as group:
                tasks = [
                    group.create_task(reply.show_growth(), name=f"growth of turn {turn.id}"),
                    group.create_task(sign.show(), name=f"sign of turn {turn.id}"),
                ]
                yield reply
                for task in tasks:
                    task.cancel()
        finally:
            reply.release()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_TIME_S):
                    await sign.clear()


def _build_finished(text: str) -> Content:
    return _build_markdown(finished(text), fallback(text))


def _build_unfinished(text: str) -> Content | None:
    shown = presentable(text)
    return _build_markdown(shown, fallback(heal(text))) if shown else None


def _is_worth_a_post(content: Content) -> bool:
    """Whether these are enough first words: much of what was said may be a link, still hidden."""
    return len(content["blocks"][0]["text"]) >= FIRST_WORDS_CHARS


def _build_markdown(shown: str, plain: str) -> Content:
    # An edit resets `parse` to a default that finds names and channels in plain words.
    return {
        "blocks": [{"type": "markdown", "text": shown}],
        "text": plain or "…",
        "parse": "none",
    }


def _build_plain(text: str) -> Content:
    return {"text": text, "parse": "none"}
