"""The contract of every Store: what is heard is routed and recorded once (DESIGN §2, §3)."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from slackbot.domain.conversation import ConversationKey
from slackbot.domain.messages import HeardMessage, MessageKind
from slackbot.domain.turns import TurnState
from slackbot.errors import TurnSupersededError
from slackbot.store.base import Effect, Recorded, Store
from tests.store.factories import (
    DM,
    KIT,
    TEAM,
    Clock,
    begin,
    build_answer,
    build_new_turn,
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

NOTHING = Recorded(Effect.NOTHING)
A_WEEK = timedelta(days=7)


def rows_in(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(database)) as connection:
        names = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        return {
            name: connection.execute(f"select count(*) from {name}").fetchone()[0]
            for (name,) in names
        }


class TestMentions:
    async def test_a_mention_in_a_channel_waits_in_its_thread(self, store: Store) -> None:
        recorded = await store.record_message(mentioned("Where is ORD-1001?"))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == Recorded(Effect.WAKE, thread_of(0))
        assert waiting_texts(conversation) == ["Where is ORD-1001?"]
        assert not conversation.needs_context

    async def test_a_mention_in_a_thread_waits_in_that_thread(self, store: Store) -> None:
        recorded = await store.record_message(mentioned("Help us", at=5, thread=0))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == Recorded(Effect.WAKE, thread_of(0))
        assert conversation.needs_context

    async def test_what_is_not_for_it_leaves_no_row_anywhere(
        self, store: Store, database: Path
    ) -> None:
        before = rows_in(database)

        talk = said("Lunch?")
        heard = [
            await store.record_message(talk),
            await store.record_message(said("Yes", at=1, by=KIT, thread=0)),
            await store.record_edit(edited(said("Lunch!"))),
            await store.record_deletion(deleted(talk)),
        ]

        assert heard == [NOTHING] * 4
        assert rows_in(database) == before

    async def test_a_message_told_three_times_is_recorded_once(
        self, store: Store, database: Path
    ) -> None:
        message = mentioned("Where is ORD-1001?")
        await store.record_message(message)
        once = rows_in(database)

        again = [await store.record_message(message) for _ in range(3)]

        assert again == [NOTHING] * 3
        assert rows_in(database) == once

    async def test_a_redelivery_after_the_answer_asks_nothing(self, store: Store) -> None:
        message = mentioned("Where is ORD-1001?")
        await store.record_message(message)
        await finish(store, await begin(store, thread_of(0)))

        again = await store.record_message(message)

        assert again == NOTHING
        assert await store.waiting_conversations() == []

    async def test_the_same_ts_in_another_channel_is_another_message(self, store: Store) -> None:
        await store.record_message(mentioned("Here"))

        recorded = await store.record_message(direct("There"))

        assert recorded == Recorded(Effect.WAKE, session_of(0))


class TestTwins:
    async def test_a_twin_adds_the_files_that_an_app_mention_lacks(self, store: Store) -> None:
        await store.record_message(mentioned("What is this?"))

        recorded = await store.record_message(mentioned("What is this?", files=2))

        waiting = (await store.load_conversation(thread_of(0))).waiting
        assert recorded == NOTHING
        assert [message.file_count for message in waiting] == [2]

    async def test_a_twin_without_files_takes_none_away(self, store: Store) -> None:
        await store.record_message(mentioned("What is this?", files=1))

        recorded = await store.record_message(mentioned("What is this?"))

        waiting = (await store.load_conversation(thread_of(0))).waiting
        assert recorded == NOTHING
        assert [message.file_count for message in waiting] == [1]

    async def test_files_that_come_after_the_reading_make_a_turn_stale(self, store: Store) -> None:
        await store.record_message(mentioned("What is this?"))
        read = await store.load_conversation(thread_of(0))
        await store.record_message(mentioned("What is this?", files=1))

        begun = await store.begin_turn(build_new_turn(read))

        assert begun is None

    async def test_files_that_come_before_the_first_post_restart_the_turn(
        self, store: Store
    ) -> None:
        await store.record_message(mentioned("What is this?"))
        await begin(store, thread_of(0))

        recorded = await store.record_message(mentioned("What is this?", files=1))

        waiting = (await store.load_conversation(thread_of(0))).waiting
        assert recorded == Recorded(Effect.RESTART, thread_of(0))
        assert [message.file_count for message in waiting] == [1]

    async def test_files_that_come_after_the_first_post_are_told_in_later_turns(
        self, store: Store
    ) -> None:
        await store.record_message(mentioned("What is this?"))
        turn = await begin(store, thread_of(0))
        await store.intend_post(turn.id, "0")

        recorded = await store.record_message(mentioned("What is this?", files=1))

        await finish(store, turn)
        conversation = await store.load_conversation(thread_of(0))
        assert recorded == NOTHING
        assert people_told(conversation) == [["Jo: What is this?\n[a file is attached]"]]

    async def test_a_mention_that_arrives_second_makes_context_a_question(
        self, store: Store
    ) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(said("And mine?", at=1, by=KIT, thread=0))

        recorded = await store.record_message(mentioned("And mine?", at=1, by=KIT, thread=0))

        conversation = await store.load_conversation(thread_of(0))
        follow_up = await store.record_message(said("ORD-1002", at=2, by=KIT, thread=0))
        assert recorded == Recorded(Effect.WAKE, thread_of(0))
        assert waiting_texts(conversation) == ["Hello", "And mine?"]
        assert follow_up.effect is Effect.WAKE

    async def test_a_stop_that_turns_out_to_be_a_mention_stops(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(said("Stop", at=1, by=KIT, thread=0))

        recorded = await store.record_message(mentioned("Stop", at=1, by=KIT, thread=0))

        assert recorded == Recorded(Effect.STOP, thread_of(0))
        assert await store.waiting_conversations() == []

    async def test_a_redelivered_mention_does_not_undo_a_stop(self, store: Store) -> None:
        question = mentioned("Where is ORD-1001?")
        await store.record_message(question)
        await store.record_message(mentioned("stop", at=1, thread=0))

        recorded = await store.record_message(question)

        assert recorded == NOTHING
        assert await store.waiting_conversations() == []

    async def test_a_redelivery_brings_no_file_back_to_a_deleted_message(
        self, store: Store
    ) -> None:
        message = mentioned("See this", files=1)
        await store.record_message(message)
        await store.record_deletion(deleted(message))

        recorded = await store.record_message(message)

        waiting = (await store.load_conversation(thread_of(0))).waiting
        assert recorded == NOTHING
        assert [(one.text, one.file_count) for one in waiting] == [("[message deleted]", 0)]


class TestThreads:
    async def test_the_person_it_talks_with_goes_on_without_a_mention(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))

        recorded = await store.record_message(said("And ORD-1002?", at=1, thread=0))

        assert recorded == Recorded(Effect.WAKE, thread_of(0))

    async def test_another_person_is_kept_as_context(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))

        recorded = await store.record_message(said("I know that one", at=1, by=KIT, thread=0))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == Recorded(Effect.NOTHING, thread_of(0))
        assert waiting_texts(conversation, MessageKind.CONTEXT) == ["I know that one"]

    async def test_once_another_person_wrote_a_mention_is_needed_again(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(said("I know that one", at=1, by=KIT, thread=0))

        silent = await store.record_message(said("Thanks Kit", at=2, thread=0))
        asked = await store.record_message(mentioned("And you?", at=3, thread=0))
        follow_up = await store.record_message(said("ORD-1002", at=4, thread=0))

        effects = [one.effect for one in (silent, asked, follow_up)]
        assert effects == [Effect.NOTHING, Effect.WAKE, Effect.WAKE]

    async def test_it_talks_with_whoever_mentioned_it_last(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(mentioned("Mine too", at=1, by=KIT, thread=0))

        of_kit = await store.record_message(said("ORD-1002", at=2, by=KIT, thread=0))
        of_jo = await store.record_message(said("ORD-1001", at=3, thread=0))

        assert (of_kit.effect, of_jo.effect) == (Effect.WAKE, Effect.NOTHING)

    async def test_what_waits_is_in_the_order_of_slack(self, store: Store) -> None:
        await store.record_message(mentioned("First", at=0))
        await store.record_message(said("Third", at=20, thread=0))
        await store.record_message(said("Second", at=3, thread=0))

        conversation = await store.load_conversation(thread_of(0))

        assert waiting_texts(conversation) == ["First", "Second", "Third"]


class TestStopping:
    @pytest.mark.parametrize("word", ["stop", "Quiet!", "BE QUIET.", " be  quiet "])
    async def test_a_stop_word_mutes_a_thread_until_the_next_mention(
        self, store: Store, word: str
    ) -> None:
        await store.record_message(mentioned("Hello"))

        stopped = await store.record_message(mentioned(word, at=1, thread=0))
        muted = await store.record_message(said("Good", at=2, thread=0))
        asked = await store.record_message(mentioned("One more", at=3, thread=0))
        follow_up = await store.record_message(said("And this", at=4, thread=0))

        effects = [one.effect for one in (stopped, muted, asked, follow_up)]
        assert effects == [Effect.STOP, Effect.NOTHING, Effect.WAKE, Effect.WAKE]

    async def test_the_person_it_talks_with_may_stop_it_without_a_mention(
        self, store: Store
    ) -> None:
        await store.record_message(mentioned("Hello"))

        recorded = await store.record_message(said("stop", at=1, thread=0))

        assert recorded == Recorded(Effect.STOP, thread_of(0))

    async def test_others_stop_it_only_with_a_mention(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))

        said_only = await store.record_message(said("stop", at=1, by=KIT, thread=0))
        to_shopmate = await store.record_message(mentioned("stop", at=2, by=KIT, thread=0))

        assert (said_only.effect, to_shopmate.effect) == (Effect.NOTHING, Effect.STOP)

    async def test_more_than_a_stop_word_is_a_question(self, store: Store) -> None:
        recorded = await store.record_message(mentioned("stop my order ORD-1001"))

        assert recorded.effect is Effect.WAKE

    async def test_waiting_questions_are_dropped(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(said("And this?", at=1, thread=0))

        await store.record_message(said("stop", at=2, thread=0))

        assert waiting_texts(await store.load_conversation(thread_of(0))) == []
        assert await store.waiting_conversations() == []

    async def test_a_running_turn_knows_that_it_is_stopped(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        turn = await begin(store, thread_of(0))

        await store.record_message(said("stop", at=1, thread=0))

        [stopped] = await store.unfinished_turns()
        assert (stopped.id, stopped.is_stopped) == (turn.id, True)

    async def test_a_stopped_turn_is_not_restarted_by_an_edit(self, store: Store) -> None:
        await store.record_message(mentioned("Helo"))
        await begin(store, thread_of(0))
        await store.record_message(said("stop", at=1, thread=0))

        recorded = await store.record_edit(edited(mentioned("Hello")))

        assert recorded == NOTHING
        assert await store.waiting_conversations() == []

    async def test_a_stop_reaches_only_its_own_thread(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(mentioned("Another", at=5))

        await store.record_message(mentioned("stop", at=6, thread=5))

        assert await store.waiting_conversations() == [thread_of(0)]

    async def test_a_stop_in_a_dm_mutes_nothing(self, store: Store) -> None:
        await store.record_message(direct("Hello"))

        stopped = await store.record_message(direct("Stop!", at=1))
        asked = await store.record_message(direct("Where is ORD-1001?", at=2))

        assert stopped == Recorded(Effect.STOP, session_of(0))
        assert asked == Recorded(Effect.WAKE, session_of(0))


class TestDirectMessages:
    async def test_the_top_level_is_one_conversation(self, store: Store) -> None:
        await store.record_message(direct("Hello"))

        recorded = await store.record_message(direct("Where is ORD-1001?", at=60))

        conversation = await store.load_conversation(session_of(0))
        assert recorded == Recorded(Effect.WAKE, session_of(0))
        assert waiting_texts(conversation) == ["Hello", "Where is ORD-1001?"]
        assert not conversation.needs_context

    async def test_seven_days_of_silence_begin_it_afresh(self, store: Store, clock: Clock) -> None:
        await store.record_message(direct("Hello"))

        clock.pass_time(A_WEEK - timedelta(seconds=1))
        before = await store.record_message(direct("Still there?", at=1))
        clock.pass_time(A_WEEK)
        after = await store.record_message(direct("Hello again", at=2))
        later = await store.record_message(direct("Me too", at=3))

        keys = [one.conversation for one in (before, after, later)]
        assert keys == [session_of(0), session_of(2), session_of(2)]

    async def test_start_over_begins_it_afresh(self, store: Store) -> None:
        await store.record_message(direct("Hello"))

        told = await store.record_message(direct("Start over.", at=1))
        after = await store.record_message(direct("Where is ORD-1001?", at=2))

        assert told == Recorded(Effect.WAKE, session_of(1))
        assert after == Recorded(Effect.WAKE, session_of(1))

    async def test_start_over_redelivered_begins_nothing(
        self, store: Store, database: Path
    ) -> None:
        await store.record_message(direct("start over"))
        once = rows_in(database)

        assert await store.record_message(direct("start over")) == NOTHING
        assert rows_in(database) == once

    async def test_a_thread_in_a_dm_is_a_conversation_of_its_own(self, store: Store) -> None:
        await store.record_message(direct("Hello"))

        in_thread = await store.record_message(direct("About this", at=1, thread=0))
        on_top = await store.record_message(direct("And else", at=2))

        assert in_thread == Recorded(Effect.WAKE, ConversationKey(TEAM, DM, ts(0)))
        assert on_top == Recorded(Effect.WAKE, session_of(0))

    async def test_an_edit_of_a_dm_nobody_recorded_is_nothing(self, store: Store) -> None:
        assert await store.record_edit(edited(direct("Hello!"))) == NOTHING


class TestEdits:
    async def test_the_new_text_of_a_waiting_message_counts(self, store: Store) -> None:
        await store.record_message(mentioned("Where is ORD-1?"))

        recorded = await store.record_edit(edited(mentioned("Where is ORD-1001?")))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == NOTHING
        assert waiting_texts(conversation) == ["Where is ORD-1001?"]

    async def test_an_edit_without_another_text_is_nothing(self, store: Store) -> None:
        await store.record_message(mentioned("See https://shop.example"))
        turn = await begin(store, thread_of(0))

        recorded = await store.record_edit(edited(mentioned("See https://shop.example")))

        assert recorded == NOTHING
        assert [one.id for one in await store.unfinished_turns()] == [turn.id]

    async def test_before_the_first_post_a_running_turn_is_superseded(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(said("ORD-1?", at=1, thread=0))
        turn = await begin(store, thread_of(0))

        recorded = await store.record_edit(edited(said("ORD-1001?", at=1, thread=0)))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == Recorded(Effect.RESTART, thread_of(0))
        assert waiting_texts(conversation) == ["Hello", "ORD-1001?"]
        assert await store.unfinished_turns() == []
        with pytest.raises(TurnSupersededError):
            await store.save_answer(turn.id, build_answer("Too late"))

    async def test_before_the_first_post_a_written_turn_is_superseded(self, store: Store) -> None:
        await store.record_message(mentioned("ORD-1?"))
        turn = await begin(store, thread_of(0))
        await store.save_answer(turn.id, build_answer("No such order"))

        recorded = await store.record_edit(edited(mentioned("ORD-1001?")))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == Recorded(Effect.RESTART, thread_of(0))
        assert waiting_texts(conversation) == ["ORD-1001?"]
        assert conversation.past == ()
        with pytest.raises(TurnSupersededError):
            await store.intend_post(turn.id, "0")

    async def test_after_the_first_post_only_later_turns_hear_of_it(self, store: Store) -> None:
        await store.record_message(mentioned("ORD-1?"))
        turn = await begin(store, thread_of(0))
        await store.intend_post(turn.id, "0")

        recorded = await store.record_edit(edited(mentioned("ORD-1001?")))

        await finish(store, turn)
        conversation = await store.load_conversation(thread_of(0))
        assert recorded == NOTHING
        assert conversation.waiting == ()
        assert people_told(conversation) == [["Jo: ORD-1001?"]]

    async def test_after_the_answer_the_history_has_the_new_text(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(said("ORD-1?", at=1, thread=0))
        await finish(store, await begin(store, thread_of(0)))

        recorded = await store.record_edit(edited(said("ORD-1001?", at=1, thread=0)))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == NOTHING
        assert people_told(conversation) == [["Jo: Hello", "Jo: ORD-1001?"]]

    @pytest.mark.parametrize(
        ("files", "told"), [(0, "Jo: [no text]"), (1, "Jo: [a file is attached]")]
    )
    async def test_no_edit_leaves_an_empty_block_in_the_history(
        self, store: Store, files: int, told: str
    ) -> None:
        await store.record_message(mentioned("See this", files=files))
        await finish(store, await begin(store, thread_of(0)))

        await store.record_edit(edited(mentioned("", files=files)))

        assert people_told(await store.load_conversation(thread_of(0))) == [[told]]

    async def test_a_mention_added_to_unheard_talk_is_a_mention(self, store: Store) -> None:
        recorded = await store.record_edit(edited(mentioned("Lunch?"), added_mention=True))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == Recorded(Effect.WAKE, thread_of(0))
        assert waiting_texts(conversation) == ["Lunch?"]

    async def test_replies_to_talk_that_mentions_it_only_now_are_context(
        self, store: Store, clock: Clock
    ) -> None:
        clock.pass_time(timedelta(minutes=5))
        await store.record_edit(edited(mentioned("Lunch?"), added_mention=True))
        before = await store.load_conversation(thread_of(0))

        await store.record_context(thread_of(0), [said("Soup", at=60, by=KIT, thread=0)])

        after = await store.load_conversation(thread_of(0))
        assert before.needs_context
        assert waiting_texts(after, MessageKind.CONTEXT) == ["Soup"]

    async def test_a_mention_added_to_context_is_a_mention(
        self, store: Store, clock: Clock
    ) -> None:
        await store.record_message(mentioned("Hello"))
        await store.record_message(said("ORD-1?", at=1, by=KIT, thread=0))
        clock.pass_time(timedelta(hours=2))

        mention = mentioned("ORD-1001?", at=1, by=KIT, thread=0)
        recorded = await store.record_edit(edited(mention, added_mention=True))

        waiting = (await store.load_conversation(thread_of(0))).waiting
        assert recorded == Recorded(Effect.WAKE, thread_of(0))
        assert [(one.text, one.kind) for one in waiting] == [
            ("Hello", MessageKind.QUESTION),
            ("ORD-1001?", MessageKind.QUESTION),
        ]
        assert waiting[1].heard_at == clock.now

    async def test_context_that_is_asked_later_is_in_the_history_once(self, store: Store) -> None:
        talk = said("ORD-1002 too", at=1, by=KIT, thread=0)
        await store.record_message(mentioned("Hello"))
        await store.record_message(talk)
        await finish(store, await begin(store, thread_of(0)))
        mention = mentioned("ORD-1002 too", at=1, by=KIT, thread=0)
        await store.record_edit(edited(mention, added_mention=True))
        await finish(store, await begin(store, thread_of(0)))

        await store.record_deletion(deleted(talk))

        assert people_told(await store.load_conversation(thread_of(0))) == [
            ["Jo: Hello", "Kit: [asked below]"],
            ["Kit: [message deleted]"],
        ]

    async def test_an_edit_of_a_deleted_message_is_nothing(self, store: Store) -> None:
        message = mentioned("Secret")
        await store.record_message(message)
        await store.record_deletion(deleted(message))

        recorded = await store.record_edit(edited(message, added_mention=True))

        assert recorded == NOTHING
        assert await store.waiting_conversations() == []


class TestDeletions:
    async def test_a_waiting_question_is_not_answered(self, store: Store) -> None:
        message = mentioned("Where is ORD-1001?")
        await store.record_message(message)

        recorded = await store.record_deletion(deleted(message))

        assert recorded == NOTHING
        assert await store.waiting_conversations() == []

    async def test_before_the_first_post_the_turn_is_taken_back(self, store: Store) -> None:
        message = mentioned("Where is ORD-1001?")
        await store.record_message(message)
        await begin(store, thread_of(0))

        recorded = await store.record_deletion(deleted(message))

        assert recorded == Recorded(Effect.RESTART, thread_of(0))
        assert await store.unfinished_turns() == []
        assert await store.waiting_conversations() == []

    async def test_what_else_the_turn_took_is_answered(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        slip = said("Secret", at=1, thread=0)
        await store.record_message(slip)
        await begin(store, thread_of(0))

        recorded = await store.record_deletion(deleted(slip))

        conversation = await store.load_conversation(thread_of(0))
        assert recorded == Recorded(Effect.RESTART, thread_of(0))
        assert waiting_texts(conversation) == ["Hello"]

    async def test_a_redelivered_deletion_restarts_nothing(self, store: Store) -> None:
        await store.record_message(mentioned("Hello"))
        slip = said("Secret", at=1, thread=0)
        await store.record_message(slip)
        await begin(store, thread_of(0))
        await store.record_deletion(deleted(slip))
        await begin(store, thread_of(0))

        again = await store.record_deletion(deleted(slip))

        assert again == NOTHING

    @pytest.mark.parametrize("state", [TurnState.RUNNING, TurnState.DONE])
    async def test_after_the_first_post_the_text_is_replaced_wherever_it_is_kept(
        self, store: Store, database: Path, state: TurnState
    ) -> None:
        message = mentioned("My code is 1234")
        await store.record_message(message)
        turn = await begin(store, thread_of(0))
        await store.intend_post(turn.id, "0")
        if state is TurnState.DONE:
            await finish(store, turn)

        recorded = await store.record_deletion(deleted(message))

        assert recorded == NOTHING
        with closing(sqlite3.connect(database)) as connection:
            [text] = connection.execute("select text from messages").fetchone()
            [content] = connection.execute("select content from history").fetchone()
        assert text == "[message deleted]"
        assert "Jo: [message deleted]" in content
        assert "1234" not in content


class TestContext:
    async def record(self, store: Store, *messages: HeardMessage) -> None:
        await store.record_context(thread_of(0), messages)

    async def test_what_was_said_before_is_told_as_context(self, store: Store) -> None:
        await store.record_message(mentioned("Help us", at=5, thread=0))

        root, reply = said("It is torn", by=KIT), said("Oh no", at=1, thread=0)
        await self.record(store, root, reply)

        conversation = await store.load_conversation(thread_of(0))
        assert not conversation.needs_context
        assert [(one.text, one.kind) for one in conversation.waiting] == [
            ("It is torn", MessageKind.CONTEXT),
            ("Oh no", MessageKind.CONTEXT),
            ("Help us", MessageKind.QUESTION),
        ]

    async def test_it_is_recorded_once(self, store: Store) -> None:
        await store.record_message(mentioned("Help us", at=5, thread=0))
        await self.record(store, said("It is torn", by=KIT))

        await self.record(store, said("It is torn", by=KIT), said("More", at=1, thread=0))

        conversation = await store.load_conversation(thread_of(0))
        assert waiting_texts(conversation, MessageKind.CONTEXT) == ["It is torn"]

    async def test_a_message_that_is_known_stays_what_it_is(self, store: Store) -> None:
        question = mentioned("Help us", at=5, thread=0)
        await store.record_message(question)

        await self.record(store, said("It is torn", by=KIT), question)

        conversation = await store.load_conversation(thread_of(0))
        assert waiting_texts(conversation) == ["Help us"]

    async def test_a_question_read_before_it_is_heard_is_answered(self, store: Store) -> None:
        await store.record_message(mentioned("Help us", at=5, thread=0))
        follow_up = said("It is ORD-1001", at=6, thread=0)
        await self.record(store, said("It is torn", by=KIT), follow_up)

        recorded = await store.record_message(follow_up)

        assert recorded == Recorded(Effect.WAKE, thread_of(0))

    async def test_context_does_not_end_the_talk_with_who_asked(self, store: Store) -> None:
        await store.record_message(mentioned("Help us", at=5, thread=0))
        await self.record(store, said("It is torn", by=KIT))

        recorded = await store.record_message(said("ORD-1001", at=6, thread=0))

        assert recorded.effect is Effect.WAKE

    async def test_later_mentions_do_not_ask_for_it_again(self, store: Store) -> None:
        await store.record_message(mentioned("Help us", at=5, thread=0))
        await self.record(store)

        await store.record_message(mentioned("Please", at=6, by=KIT, thread=0))

        assert not (await store.load_conversation(thread_of(0))).needs_context

    async def test_a_question_deleted_meanwhile_leaves_the_reading_to_the_next(
        self, store: Store
    ) -> None:
        question = mentioned("Help us", at=5, thread=0)
        await store.record_message(question)
        await store.record_deletion(deleted(question))

        await self.record(store, said("It is torn", by=KIT))

        conversation = await store.load_conversation(thread_of(0))
        assert conversation.needs_context
        assert waiting_texts(conversation, MessageKind.CONTEXT) == ["[message deleted]"]

    async def test_in_a_thread_nobody_asked_in_nothing_is_kept(
        self, store: Store, database: Path
    ) -> None:
        before = rows_in(database)

        await self.record(store, said("It is torn", by=KIT))

        assert rows_in(database) == before
