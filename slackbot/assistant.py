"""The use case: load the conversation, run the turn, save the answer, deliver it."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, repeat
from time import monotonic
from typing import Protocol

from slackbot import apologies
from slackbot.agent.history import (
    build_messages,
    choose_history_from,
    choose_ttl,
)
from slackbot.agent.loop import Agent, Task
from slackbot.agent.prompts import build_preamble, build_told
from slackbot.agent.tools.base import ToolContext
from slackbot.domain.answers import Draft, TurnEvent
from slackbot.domain.conversation import ConversationKey, Place
from slackbot.domain.messages import HeardMessage, MessageKind, StoredMessage
from slackbot.domain.people import Person
from slackbot.domain.rights import OwnOrders, Rights, least_rights
from slackbot.domain.turns import (
    MAX_ATTEMPTS,
    Ending,
    HistoryMessage,
    PastTurn,
    StepUsage,
    Turn,
    TurnState,
)
from slackbot.errors import (
    AnswerEmptyError,
    AnswerError,
    ClaudeError,
    SlackError,
    StoreError,
    TurnPostponedError,
    TurnSupersededError,
    UndeliverableError,
)
from slackbot.logs import turn_logged
from slackbot.shop.access import rights_in
from slackbot.store.base import Answer, BegunTurn, Conversation, NewTurn, TurnLog
from slackbot.turns import Control

log = logging.getLogger(__name__)

LATE_AFTER = timedelta(hours=1)
TWIN_GRACE_S = 0.7  # an app_mention comes without its files; the same message with them follows
RETRY_PAUSES_S = (1.0, 5.0, 30.0)
LAST_RETRY_PAUSE_S = 60.0
MAX_BEGINNINGS = 5  # a message edited again and again while its turn begins


class Reply(Protocol):
    """One answer in Slack, which may grow until it is delivered."""

    @property
    def is_posted(self) -> bool:
        """Whether any of it was, or may have been, posted."""
        ...

    def grow(self, text: str) -> None:
        """Has `text`, the answer so far, shown when Slack's limits allow."""
        ...

    async def stop_growing(self) -> None:
        """Returns once nothing more is shown before `deliver` or `postpone`."""
        ...

    def set_status(self, status: str) -> None:
        """Has people told what ShopMate is doing, while they wait for the answer."""
        ...

    async def deliver(self, text: str) -> None:
        """Returns once all of `text`, and nothing else, is in Slack.

        Raises:
            UndeliverableError: Slack will not have it, now or later.
            SlackError: Slack could not be reached for a long time.
        """
        ...

    async def postpone(self, note: str) -> None:
        """Ends what is shown with `note`, as far as that can be done quickly."""
        ...


class Replies(Protocol):
    """Where answers go."""

    def open_reply(self, turn: Turn) -> AbstractAsyncContextManager[Reply]:
        """The answer of `turn`, with what an earlier attempt posted of it."""
        ...


class People(Protocol):
    """Who people are."""

    async def fetch_people(
        self, user_ids: Collection[str], *, fresh: bool = False
    ) -> Mapping[str, Person | None]:
        """Everybody by id; None for whom Slack does not say. `fresh` asks Slack anew."""
        ...


class Threads(Protocol):
    """What was said in Slack before ShopMate was there."""

    async def fetch_thread(self, key: ConversationKey, place: Place) -> Sequence[HeardMessage]:
        """The last messages people wrote in the thread, oldest first.

        Raises:
            SlackError: they cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A turn to run: fresh, or left over from an earlier process."""

    begun: BegunTurn
    past: tuple[PastTurn, ...]
    canned: str | None = None


class Assistant:
    """Answers what waits in a conversation, one turn at a time."""

    def __init__(
        self,
        *,
        log_of_turns: TurnLog,
        agent: Agent,
        replies: Replies,
        people: People,
        threads: Threads,
        trusted_teams: Collection[str],
        history_tokens: int,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._turns = log_of_turns
        self._agent = agent
        self._replies = replies
        self._people = people
        self._threads = threads
        self._trusted_teams = trusted_teams
        self._history_tokens = history_tokens
        self._now = now
        self._sleep = sleep
        self._left_over: dict[ConversationKey, list[Turn]] = {}

    async def recover(self) -> list[ConversationKey]:
        """The conversations an earlier process left with something to do."""
        for turn in await self._turns.unfinished_turns():
            self._left_over.setdefault(turn.conversation, []).append(turn)
        waiting = await self._turns.waiting_conversations()
        return list(dict.fromkeys([*self._left_over, *waiting]))

    async def run_turn(self, key: ConversationKey, control: Control) -> None:
        """Finishes what was left over in the conversation, then answers what waits there.

        What fails for a reason of our own, a full disk or a bug, is tried again after a pause, for
        as long as the process runs; a turn's attempts are counted, and the last one apologises.
        """
        left_over = self._left_over.pop(key, [])
        for pause_s in chain(RETRY_PAUSES_S, repeat(LAST_RETRY_PAUSE_S)):
            try:
                await self._run_next(key, left_over, control)
                return
            except Exception:  # one conversation's bug is not the others' end
                log.exception("turn.crashed", extra={"conversation": key.root})
            async with control.interruptible():
                await self._sleep(pause_s)
            if control.is_shutting_down:
                return
            control.resume()
            left_over = await self._find_left_over(key)

    async def _run_next(
        self, key: ConversationKey, left_over: Sequence[Turn], control: Control
    ) -> None:
        for turn in left_over:
            try:
                await self._take_up(turn, control)
            except TurnSupersededError:
                log.info("turn.superseded", extra={"turn": turn.id})
        work = await self._begin(key)
        if work is not None:
            await self._run(work, control)

    async def _find_left_over(self, key: ConversationKey) -> list[Turn]:
        try:
            unfinished = await self._turns.unfinished_turns()
        except StoreError:
            log.exception("store.failed")
            return []
        return [turn for turn in unfinished if turn.conversation == key]

    async def _begin(self, key: ConversationKey) -> _Work | None:
        has_waited = has_read = False
        tries = 0
        while tries < MAX_BEGINNINGS:
            conversation = await self._turns.load_conversation(key)
            questions = [m for m in conversation.waiting if m.kind is MessageKind.QUESTION]
            if not questions:
                return None
            if not has_waited and all(message.is_bare for message in questions):
                has_waited = True
                await self._sleep(TWIN_GRACE_S)
                continue
            if conversation.needs_context and not has_read:
                has_read = True
                await self._read_context(conversation)
                continue
            tries += 1
            work = await self._begin_turn(conversation, questions)
            if work is not None:
                return work
        raise StoreError(f"conversation {key.root!r}: its messages change all the time")

    async def _begin_turn(
        self, conversation: Conversation, questions: Sequence[StoredMessage]
    ) -> _Work | None:
        waiting = conversation.waiting
        people = await self._people.fetch_people({user for m in waiting for user in _named(m)})
        told = build_told(waiting, _names(people), conversation.place)
        authors = [people[message.author] for message in waiting]
        preamble = build_preamble(self._now(), conversation.place)
        content = [one.block for one in told]
        new = NewTurn(
            conversation=conversation.key,
            preamble=preamble,
            told=told,
            rights=rights_in(conversation.place, authors, self._trusted_teams),
            history_from=choose_history_from(conversation.past, content, self._history_tokens),
        )
        begun = await self._turns.begin_turn(new)
        if begun is None:
            return None
        past = tuple(turn for turn in conversation.past if turn.number >= new.history_from)
        return _Work(begun=begun, past=past, canned=_canned_answer(questions))

    async def _read_context(self, conversation: Conversation) -> None:
        try:
            messages = await self._threads.fetch_thread(conversation.key, conversation.place)
        except SlackError as error:  # an answer without the context is better than none
            log.warning("context.unread", extra={"reason": error.reason})
            return  # the next turn tries again
        await self._turns.record_context(conversation.key, messages)

    async def _take_up(self, turn: Turn, control: Control) -> None:
        log.info("turn.resumed", extra={"turn": turn.id, "state": turn.state})
        if turn.state is TurnState.WRITTEN:
            await self._deliver_again(turn)
            return
        begun = await self._turns.resume_turn(turn.id)
        conversation = await self._turns.load_conversation(turn.conversation)
        canned = None
        if begun.turn.is_stopped:
            control.interrupt()
        elif begun.turn.attempts > MAX_ATTEMPTS:
            canned = apologies.TOO_MANY_ATTEMPTS
        await self._run(_Work(begun=begun, past=conversation.past, canned=canned), control)

    async def _deliver_again(self, turn: Turn) -> None:
        text = turn.final_text or ""
        # Where some of it was posted, people may have had it all in time.
        if text and not turn.posts and not text.startswith(apologies.LATE):
            text = self._opening(turn) + text
        with turn_logged(thread_ts=turn.conversation.thread_ts, turn_id=turn.id):
            async with self._replies.open_reply(turn) as reply:
                await self._deliver(turn, reply, text)

    async def _run(self, work: _Work, control: Control) -> None:
        turn = work.begun.turn
        started = monotonic()
        usage: list[StepUsage] = []
        with turn_logged(thread_ts=turn.conversation.thread_ts, turn_id=turn.id):
            async with self._replies.open_reply(turn) as reply:
                try:
                    answer = await self._write(work, reply, control, usage)
                    await self._turns.save_answer(turn.id, answer)
                except (TurnSupersededError, TurnPostponedError) as error:
                    log.info("turn.left", extra={"reason": str(error)})
                    await self._turns.save_usage(turn.id, usage)
                    return
                await self._deliver(turn, reply, answer.text)
                _log_finished(answer, monotonic() - started)

    async def _write(
        self, work: _Work, reply: Reply, control: Control, usage: list[StepUsage]
    ) -> Answer:
        """The answer, a sentence of apology, or what there was when it was stopped.

        Raises:
            TurnSupersededError: the turn was taken back.
            TurnPostponedError: the process ends before the answer is there.
        """
        opening = self._opening(work.begun.turn)
        if work.canned:
            return _build_answer(opening + work.canned, Ending.COMPLETE, usage)
        while True:
            draft = Draft(opening=opening)
            try:
                async with control.interruptible():
                    return await self._ask(work, draft, reply, usage)
            except (ClaudeError, AnswerError) as error:
                log.warning("turn.apologised", extra={"reason": str(error)})
                return _build_answer(apologies.apologise(error), Ending.APOLOGY, usage)
            except Exception:  # whatever it is, the person who asked gets an answer
                log.exception("turn.crashed")
                return _build_answer(apologies.UNKNOWN, Ending.APOLOGY, usage)
            stopped = await self._meet_interruption(work.begun.turn, draft, reply, control, usage)
            if stopped is not None:
                return stopped

    async def _meet_interruption(
        self, turn: Turn, draft: Draft, reply: Reply, control: Control, usage: list[StepUsage]
    ) -> Answer | None:
        """What is left to say of a turn that was interrupted; None if it was not meant for it."""
        kept = await self._turns.load_turn(turn.id)
        if kept.state is TurnState.SUPERSEDED:
            raise TurnSupersededError(turn.id)
        if kept.is_stopped:
            control.resume()
            await reply.stop_growing()
            said = f"{draft.shown}\n\n{apologies.STOPPED}".strip() if reply.is_posted else ""
            return _build_answer(said, Ending.STOPPED, usage)
        if control.is_shutting_down:
            await reply.postpone(apologies.POSTPONED)
            raise TurnPostponedError(turn.id)
        control.resume()
        return None

    def _opening(self, turn: Turn) -> str:
        is_late = self._now() - turn.heard_at > LATE_AFTER
        return apologies.LATE if is_late else ""

    async def _ask(self, work: _Work, draft: Draft, reply: Reply, usage: list[StepUsage]) -> Answer:
        turn = work.begun.turn

        def emit(event: TurnEvent) -> None:
            draft.add(event)
            reply.grow(draft.shown)
            if draft.status:
                reply.set_status(draft.status)

        task = Task(
            messages=build_messages(work.past, turn.rights, work.begun.content),
            ttl=choose_ttl(work.past, self._now()),
            context_for=lambda index: self._tool_context(turn, index),
        )
        outcome = await self._agent.run(task, emit=emit, count=usage.append)
        if not draft.text:
            raise AnswerEmptyError("Claude ended its turn without a word")
        cut = outcome.ending is Ending.TRUNCATED
        text = f"{draft.text}\n\n{apologies.CUT_AT_LIMIT}" if cut else draft.text
        return Answer(text=text, ending=outcome.ending, messages=outcome.messages, usage=usage)

    async def _deliver(self, turn: Turn, reply: Reply, text: str) -> None:
        try:
            if text:
                await reply.deliver(text)
        except UndeliverableError as error:
            log.warning("turn.undeliverable", extra={"reason": error.reason})
            await self._turns.close_turn(turn.id, TurnState.UNDELIVERABLE)
        else:
            await self._turns.close_turn(turn.id, TurnState.DONE)

    def _tool_context(self, turn: Turn, use_index: int) -> ToolContext:
        async def fetch_rights() -> Rights:
            is_customer = isinstance(turn.rights, OwnOrders)
            people = await self._people.fetch_people({turn.asker}, fresh=is_customer)
            now = rights_in(turn.place, people.values(), self._trusted_teams)
            return least_rights([turn.rights, now])

        return ToolContext(
            turn_id=turn.id,
            use_index=use_index,
            conversation=turn.conversation,
            asker=turn.asker,
            asked_ts=turn.asked_ts,
            fetch_rights=fetch_rights,
        )


def _build_answer(text: str, ending: Ending, usage: Sequence[StepUsage]) -> Answer:
    said = [HistoryMessage("assistant", [{"type": "text", "text": text}])] if text else []
    return Answer(text=text, ending=ending, messages=said, usage=usage)


def _canned_answer(questions: Sequence[StoredMessage]) -> str | None:
    """What needs no Claude: nothing but files, or nothing at all."""
    if any(message.text.strip() for message in questions):
        return None
    has_files = any(message.file_count for message in questions)
    return apologies.FILES_ONLY if has_files else apologies.GREETING


def _named(message: StoredMessage) -> set[str]:
    return {message.author, *message.mentions}


def _names(people: Mapping[str, Person | None]) -> dict[str, str]:
    return {user: person.name if person else "Somebody" for user, person in people.items()}


def _log_finished(answer: Answer, duration_s: float) -> None:
    log.info(
        "turn.finished",
        extra={
            "ending": answer.ending,
            "steps": len(answer.usage),
            "duration_s": round(duration_s, 3),
            "input_tokens": answer.input_tokens,
            "output_tokens": sum(step.output_tokens for step in answer.usage),
            "cost_usd": round(sum(step.cost_usd for step in answer.usage), 6),
        },
    )
