"""The contract of every Store: turns, what they post, what they leave in the history."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from slackbot.domain.messages import MessageKind
from slackbot.domain.rights import AllOrders, Denial, NoOrders, OwnOrders, Rights
from slackbot.domain.turns import Ending, HistoryMessage, PostedMessage, TurnState
from slackbot.errors import TurnSupersededError
from slackbot.store.base import Answer, Escalation, Store
from tests.store.conftest import Opener
from tests.store.factories import (
    BEGINNING,
    CHANNEL,
    IN_CHANNEL,
    JO,
    KIT,
    PREAMBLE,
    TEAM,
    Clock,
    begin,
    build_answer,
    build_new_turn,
    build_usage,
    deleted,
    direct,
    edited,
    finish,
    mentioned,
    people_told,
    said,
    session_of,
    thread_of,
    ts,
    waiting_texts,
)


def select(database: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


async def ask(store: Store, text: str = "Hello", *, at: float = 0) -> None:
    thread = None if at == 0 else 0
    await store.record_message(mentioned(text, at=at, thread=thread))


class TestBeginning:
    async def test_a_conversation_nobody_recorded_is_empty(self, store: Store) -> None:
        conversation = await store.load_conversation(thread_of(0))

        assert (conversation.waiting, conversation.past) == ((), ())
        assert not conversation.needs_context

    async def test_a_turn_knows_its_first_question(self, store: Store, clock: Clock) -> None:
        await store.record_message(mentioned("Hello", at=1, thread=0))
        clock.pass_time(timedelta(seconds=3))
        await store.record_message(said("Me too", at=2, by=KIT, thread=0))
        await store.record_message(mentioned("And mine?", at=4, by=KIT, thread=0))

        turn = await begin(store, thread_of(0), rights=OwnOrders(JO, "jo@example.com"))

        assert (turn.conversation, turn.place) == (thread_of(0), IN_CHANNEL)
        assert (turn.asker, turn.asked_ts, turn.heard_at) == (JO, ts(1), BEGINNING)
        assert (turn.state, turn.attempts) == (TurnState.RUNNING, 1)
        assert turn.rights == OwnOrders(JO, "jo@example.com")
        assert (turn.final_text, turn.posts, turn.has_reaction) == (None, (), False)

    async def test_claude_is_given_the_preamble_and_a_block_for_each_message(
        self, store: Store
    ) -> None:
        await ask(store)
        await store.record_message(said("I know", at=1, by=KIT, thread=0))
        read = await store.load_conversation(thread_of(0))

        begun = await store.begin_turn(build_new_turn(read))

        assert begun is not None
        assert begun.content == [
            {"type": "text", "text": PREAMBLE},
            {"type": "text", "text": "Jo: Hello"},
            {"type": "text", "text": "Kit: I know"},
        ]

    async def test_what_a_turn_took_waits_no_more(self, store: Store) -> None:
        await ask(store)

        await begin(store, thread_of(0))

        assert (await store.load_conversation(thread_of(0))).waiting == ()
        assert await store.waiting_conversations() == []

    async def test_what_came_after_the_reading_waits_for_the_next_turn(self, store: Store) -> None:
        await ask(store)
        read = await store.load_conversation(thread_of(0))
        await ask(store, "And this", at=1)

        begun = await store.begin_turn(build_new_turn(read))

        assert begun is not None
        assert [block["text"] for block in begun.content] == [PREAMBLE, "Jo: Hello"]
        assert waiting_texts(await store.load_conversation(thread_of(0))) == ["And this"]

    @pytest.mark.parametrize("change", ["edit", "deletion", "stop", "turn"])
    async def test_a_turn_with_a_message_that_changed_keeps_nothing(
        self, store: Store, database: Path, change: str
    ) -> None:
        await ask(store)
        new = build_new_turn(await store.load_conversation(thread_of(0)), history_from=9)
        match change:
            case "edit":
                await store.record_edit(edited(mentioned("Hello!")))
            case "deletion":
                await store.record_deletion(deleted(mentioned("Hello")))
            case "stop":
                await store.record_message(said("stop", at=1, thread=0))
            case _:
                await begin(store, thread_of(0))
        tables = "select (select count(*) from turns), (select count(*) from history)"
        before = select(database, tables)

        begun = await store.begin_turn(new)

        assert begun is None
        assert select(database, tables) == before
        assert select(database, "select history_from from conversations") == [(1,)]

    async def test_a_stale_turn_takes_none_of_its_messages(self, store: Store) -> None:
        await ask(store)
        await ask(store, "And this", at=1)
        read = await store.load_conversation(thread_of(0))
        await store.record_edit(edited(mentioned("And that", at=1, thread=0)))

        assert await store.begin_turn(build_new_turn(read)) is None

        conversation = await store.load_conversation(thread_of(0))
        assert waiting_texts(conversation) == ["Hello", "And that"]

    @pytest.mark.parametrize(
        "rights", [AllOrders(), OwnOrders(JO, "jo@example.com"), NoOrders(Denial.SHARED_CHANNEL)]
    )
    async def test_rights_are_kept_with_the_turn(self, store: Store, rights: Rights) -> None:
        await ask(store)
        await finish(store, await begin(store, thread_of(0), rights=rights))

        [past] = (await store.load_conversation(thread_of(0))).past

        assert past.rights == rights


class TestResuming:
    async def test_a_running_turn_goes_on_with_one_attempt_more(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))

        first = await store.resume_turn(turn.id)
        second = await store.resume_turn(turn.id)

        assert (first.turn.attempts, second.turn.attempts) == (2, 3)
        assert [block["text"] for block in second.content] == [PREAMBLE, "Jo: Hello"]

    async def test_a_turn_that_was_taken_back_is_not_resumed(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await store.record_edit(edited(mentioned("Hello!")))

        with pytest.raises(TurnSupersededError):
            await store.resume_turn(turn.id)

    async def test_unfinished_turns_are_those_running_or_written(
        self, open_store: Opener, database: Path, clock: Clock
    ) -> None:
        async with open_store(database, clock) as store:
            turns = {}
            for at, state in enumerate(TurnState):
                await store.record_message(mentioned("Hello", at=at))
                turns[state] = await begin(store, thread_of(at))
            await store.save_answer(turns[TurnState.WRITTEN].id, build_answer("Here it is"))
            await finish(store, turns[TurnState.DONE])
            await store.close_turn(turns[TurnState.UNDELIVERABLE].id, TurnState.UNDELIVERABLE)
            superseded = turns[TurnState.SUPERSEDED]
            at = list(TurnState).index(TurnState.SUPERSEDED)
            await store.record_edit(edited(mentioned("Hello!", at=at)))

        async with open_store(database, clock) as store:
            unfinished = await store.unfinished_turns()

        assert superseded.id not in {turn.id for turn in unfinished}
        assert [(turn.state, turn.final_text) for turn in unfinished] == [
            (TurnState.RUNNING, None),
            (TurnState.WRITTEN, "Here it is"),
        ]

    async def test_conversations_wait_as_long_as_they_have_a_question(self, store: Store) -> None:
        await store.record_message(direct("First"))
        await ask(store, "Second")
        await store.record_message(said("Only context", at=1, by=KIT, thread=0))
        await store.record_message(direct("stop", at=9, thread=8))
        both = await store.waiting_conversations()

        await begin(store, session_of(0))

        assert both == [session_of(0), thread_of(0)]
        assert await store.waiting_conversations() == [thread_of(0)]


class TestAnswers:
    async def test_text_history_and_usage_are_kept(self, store: Store, database: Path) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        use = {"type": "tool_use", "id": "t1", "name": "get_order", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": "shipped"}
        messages = [
            HistoryMessage("assistant", [use]),
            HistoryMessage("user", [result]),
            HistoryMessage("assistant", [{"type": "text", "text": "It is “shipped” 📦"}]),
        ]
        usage = [build_usage(input_tokens=10), build_usage(input_tokens=40)]

        await store.save_answer(
            turn.id,
            Answer(
                text="It is “shipped” 📦", ending=Ending.TRUNCATED, messages=messages, usage=usage
            ),
        )

        [past] = (await store.load_conversation(thread_of(0))).past
        assert list(past.messages[1:]) == messages
        assert select(database, "select state, final_text, ending, input_tokens from turns") == [
            ("written", "It is “shipped” 📦", "truncated", 163)
        ]
        assert select(database, "select turn_id, input_tokens, cost_usd from usage") == [
            (turn.id, 10, 0.25),
            (turn.id, 40, 0.25),
        ]

    async def test_a_written_turn_is_not_written_twice(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await store.save_answer(turn.id, build_answer("First"))

        with pytest.raises(TurnSupersededError):
            await store.save_answer(turn.id, build_answer("Second"))

        [past] = (await store.load_conversation(thread_of(0))).past
        assert past.messages[1:] == (build_answer("First").messages[0],)

    async def test_of_a_superseded_turn_nothing_is_kept(self, store: Store, database: Path) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await store.record_edit(edited(mentioned("Hello!")))

        with pytest.raises(TurnSupersededError) as caught:
            await store.save_answer(turn.id, build_answer("Too late", usage=[build_usage()]))

        assert caught.value.turn_id == turn.id
        assert select(database, "select content from history") == []
        assert select(database, "select model from usage") == []
        assert select(database, "select final_text from turns") == [(None,)]

    async def test_the_end_of_the_last_turn_is_known(self, store: Store, clock: Clock) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        clock.pass_time(timedelta(seconds=8))

        await finish(store, turn)

        conversation = await store.load_conversation(thread_of(0))
        assert conversation.past[-1].finished_at == BEGINNING + timedelta(seconds=8)


class TestHistory:
    async def test_turns_are_in_the_order_of_their_numbers(self, store: Store) -> None:
        for at, text in ((0, "One"), (9, "Two"), (5, "Three")):
            await ask(store, text, at=at)
            await finish(store, await begin(store, thread_of(0)))

        conversation = await store.load_conversation(thread_of(0))

        assert [turn.number for turn in conversation.past] == [1, 2, 3]
        assert people_told(conversation) == [["Jo: One"], ["Jo: Two"], ["Jo: Three"]]

    async def test_turns_that_run_or_were_taken_back_are_not_in_it(self, store: Store) -> None:
        await ask(store)
        await begin(store, thread_of(0))
        running = await store.load_conversation(thread_of(0))
        await store.record_edit(edited(mentioned("Hello!")))
        superseded = await store.load_conversation(thread_of(0))

        assert (running.past, superseded.past) == ((), ())

    async def test_what_was_not_delivered_is_in_it(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await store.save_answer(turn.id, build_answer("Here it is"))

        await store.close_turn(turn.id, TurnState.UNDELIVERABLE)

        assert len((await store.load_conversation(thread_of(0))).past) == 1

    async def test_turns_before_history_from_are_not_given_any_more(self, store: Store) -> None:
        for at, text in enumerate(("One", "Two", "Three")):
            await ask(store, text, at=at)
            await finish(store, await begin(store, thread_of(0), history_from=max(1, at)))

        conversation = await store.load_conversation(thread_of(0))

        assert [turn.number for turn in conversation.past] == [2, 3]

    async def test_what_was_cut_off_does_not_come_back(self, store: Store) -> None:
        await ask(store)
        await finish(store, await begin(store, thread_of(0)))
        await ask(store, "Long", at=1)
        await begin(store, thread_of(0), history_from=2)
        await store.record_edit(edited(mentioned("Longer", at=1, thread=0)))

        await begin(store, thread_of(0), history_from=1)

        assert (await store.load_conversation(thread_of(0))).past == ()

    async def test_the_size_of_a_turn_is_that_of_its_json(
        self, store: Store, database: Path
    ) -> None:
        await ask(store)
        await finish(store, await begin(store, thread_of(0)))

        [past] = (await store.load_conversation(thread_of(0))).past

        assert [(past.chars,)] == select(database, "select sum(length(content)) from history")

    async def test_conversations_do_not_mix(self, store: Store) -> None:
        await ask(store)
        await store.record_message(direct("Secret"))
        await finish(store, await begin(store, session_of(0)))

        conversation = await store.load_conversation(thread_of(0))

        assert conversation.past == ()
        assert waiting_texts(conversation) == ["Hello"]


class TestPosts:
    async def test_a_post_is_intended_then_known_then_forgotten(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        stages = [await store.load_post(turn.id, "0")]

        await store.intend_post(turn.id, "0")
        stages.append(await store.load_post(turn.id, "0"))
        await store.save_post(turn.id, "0", ts(2))
        stages.append(await store.load_post(turn.id, "0"))
        await store.forget_post(turn.id, "0")
        stages.append(await store.load_post(turn.id, "0"))

        assert stages == [(False, None), (True, None), (True, ts(2)), (False, None)]

    async def test_intending_again_keeps_what_was_posted(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await store.intend_post(turn.id, "0")
        await store.save_post(turn.id, "0", ts(2))

        await store.intend_post(turn.id, "0")

        assert await store.load_post(turn.id, "0") == (True, ts(2))

    async def test_a_turn_knows_the_parts_of_its_answer_in_order(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        for part in ("10", "2", "0", "escalation-0"):
            await store.intend_post(turn.id, part)
        await store.save_post(turn.id, "0", ts(2))

        [unfinished] = await store.unfinished_turns()

        assert unfinished.posts == (
            PostedMessage(part=0, ts=ts(2)),
            PostedMessage(part=2, ts=None),
            PostedMessage(part=10, ts=None),
        )

    async def test_after_a_post_was_forgotten_the_turn_may_be_taken_back(
        self, store: Store
    ) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await store.intend_post(turn.id, "0")
        await store.forget_post(turn.id, "0")

        await store.record_edit(edited(mentioned("Hello!")))

        assert waiting_texts(await store.load_conversation(thread_of(0))) == ["Hello!"]

    async def test_a_turn_that_was_taken_back_posts_nothing(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await store.record_edit(edited(mentioned("Hello!")))

        with pytest.raises(TurnSupersededError):
            await store.intend_post(turn.id, "0")

        assert await store.load_post(turn.id, "0") == (False, None)

    async def test_a_turn_that_is_over_posts_nothing(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        await finish(store, turn)

        with pytest.raises(TurnSupersededError):
            await store.intend_post(turn.id, "0")

    async def test_a_reaction_is_remembered_until_it_is_gone(self, store: Store) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))

        await store.save_reaction(turn.id, is_there=True)
        [added] = await store.unfinished_turns()
        await store.save_reaction(turn.id, is_there=False)
        [gone] = await store.unfinished_turns()

        assert (added.has_reaction, gone.has_reaction) == (True, False)


class TestEscalations:
    async def test_the_same_one_is_recorded_once(self, store: Store, database: Path) -> None:
        await ask(store)
        turn = await begin(store, thread_of(0))
        first = Escalation(
            turn_id=turn.id, index=0, asker=JO, summary="Torn", order_ids=("ORD-1001",)
        )
        again = Escalation(turn_id=turn.id, index=0, asker=JO, summary="Other", order_ids=())
        second = Escalation(turn_id=turn.id, index=1, asker=JO, summary="Late", order_ids=())

        for escalation in (first, again, second):
            await store.record_escalation(escalation)

        assert select(database, "select number, summary, order_ids from escalations") == [
            (0, "Torn", '["ORD-1001"]'),
            (1, "Late", "[]"),
        ]


async def test_a_message_comes_back_as_it_was_heard(store: Store, clock: Clock) -> None:
    heard = said("Ask @U2 “now” 🎉", mention=True, mentions=(KIT,), files=3)

    await store.record_message(heard)

    [kept] = (await store.load_conversation(thread_of(0))).waiting
    assert (kept.ts, kept.author, kept.author_team) == (heard.ts, JO, TEAM)
    assert (kept.text, kept.mentions, kept.file_count) == (heard.text, (KIT,), 3)
    assert (kept.kind, kept.place, kept.heard_at) == (
        MessageKind.QUESTION,
        IN_CHANNEL,
        clock.now,
    )
    assert heard.channel == CHANNEL


async def test_everything_is_there_after_reopening(
    open_store: Opener, database: Path, clock: Clock
) -> None:
    async with open_store(database, clock) as store:
        await ask(store)
        await finish(store, await begin(store, thread_of(0)))
        await ask(store, "And this", at=1)
        before = await store.load_conversation(thread_of(0))

    async with open_store(database, clock) as store:
        after = await store.load_conversation(thread_of(0))

    assert after == before


async def test_of_long_talk_only_the_last_fifty_messages_are_told_and_the_rest_never(
    store: Store,
) -> None:
    await ask(store)
    for number in range(60):
        await store.record_message(said(f"talk {number}", by=KIT, at=1 + number, thread=0))

    conversation = await store.load_conversation(thread_of(0))
    await begin(store, thread_of(0))
    afterwards = await store.load_conversation(thread_of(0))

    told = [message.text for message in conversation.waiting]
    assert told == ["Hello", *(f"talk {number}" for number in range(10, 60))]
    assert afterwards.waiting == ()
