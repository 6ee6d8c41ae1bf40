import asyncio
from collections import Counter
from pathlib import Path

import pytest

from slackbot.apologies import FILES_ONLY, GREETING
from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_server import LocalClaude, open_local_claude
from slackbot.playground.slack_limits import SlackLimits
from slackbot.playground.slack_server import LocalSlack, open_local_slack
from slackbot.store.sqlite import open_sqlite_store
from tests.scenarios.harness import answers, running_bot, shown_text, wait_for_answer
from tests.scenarios.overheard import (
    all_acknowledged,
    all_texts,
    count_rows,
    deliver_event,
    echo,
    newest_texts,
    redeliver,
)

PHOTO = {"id": "F0LOCAL0001", "name": "label.png", "mimetype": "image/png"}


async def test_a_mention_that_comes_six_times_is_answered_once(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello"
        ts = slack.say(slack.alex.id, slack.support.id, mention, times=3)
        await wait_for_answer(slack, slack.support.id, ts)
        await all_acknowledged(slack)
        redeliver(slack)
        await all_acknowledged(slack)

    assert len(answers(slack, slack.support.id)) == 1
    assert len(claude.requests) == 1


async def test_a_direct_message_that_comes_three_times_is_answered_once(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "hello", times=3)
        await wait_for_answer(slack, dm.id, None)
        await all_acknowledged(slack)
        redeliver(slack)
        await all_acknowledged(slack)

    assert len(answers(slack, dm.id)) == 1
    assert len(claude.requests) == 1


async def test_a_follow_up_that_comes_three_times_is_answered_once(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        await wait_for_answer(slack, slack.support.id, ts)
        slack.say(slack.alex.id, slack.support.id, "thank you", thread_ts=ts, times=3)
        await wait_for_answer(slack, slack.support.id, ts, count=2)
        await all_acknowledged(slack)
        redeliver(slack)
        await all_acknowledged(slack)

    assert len(answers(slack, slack.support.id)) == 2
    assert len(claude.requests) == 2


async def test_five_quick_messages_in_each_of_twenty_threads_are_each_answered_once_and_in_order(
    slack: LocalSlack, tmp_path: Path
) -> None:
    said = {n: [f"thread {n:02d} message {m}" for m in range(1, 6)] for n in range(20)}
    roots: dict[int, str] = {}

    async def talk(number: int) -> None:
        mention = f"<@{slack.bot_user_id}> {said[number][0]}"
        root = roots[number] = slack.say(slack.alex.id, slack.support.id, mention)
        for message in said[number][1:]:
            await asyncio.sleep(0.05)  # what is tested: people's own pace
            slack.say(slack.alex.id, slack.support.id, message, thread_ts=root)

    def is_answered() -> bool:
        return all(
            messages[-1] in "".join(map(shown_text, answers(slack, slack.support.id, roots[n])))
            for n, messages in said.items()
        )

    async with (
        open_local_claude(mind=echo, first_token_s=0.07) as claude,
        running_bot(slack, claude, tmp_path / "shop.db"),
    ):
        async with asyncio.TaskGroup() as group:
            for number in said:
                group.create_task(talk(number))
        await slack.wait_until(is_answered)
        await all_acknowledged(slack)

    for number, messages in said.items():
        of_thread = [
            request
            for request in claude.requests
            if f"thread {number:02d}" in str(request.body["messages"])
        ]
        heard = [text for request in of_thread for text in newest_texts(request.body)]
        assert heard == [f"alex: {message}" for message in messages]
        assert all_texts(of_thread[-1]) == heard
        shown = " / ".join(
            shown_text(answer).removeprefix("I heard: ")
            for answer in answers(slack, slack.support.id, roots[number])
        )
        assert shown.split(" / ") == heard


async def test_what_comes_during_an_answer_goes_together_into_the_next_turn(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot = f"<@{slack.bot_user_id}>"
        ts = slack.say(slack.alex.id, slack.support.id, f"{bot} hello")
        await stalled.reached.wait()
        slack.say(slack.alex.id, slack.support.id, "and one thing more", thread_ts=ts)
        slack.say(slack.sam.id, slack.support.id, f"{bot} a question too", thread_ts=ts)
        await all_acknowledged(slack)
        stalled.release.set()
        await wait_for_answer(slack, slack.support.id, ts, count=2)

    assert [newest_texts(request.body) for request in claude.requests] == [
        ["alex: hello"],
        ["alex: and one thing more", "sam: a question too"],
    ]
    assert len(answers(slack, slack.support.id)) == 2


async def test_what_is_not_for_shopmate_leaves_no_row_and_is_acknowledged(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    support = slack.support.id
    async with open_sqlite_store(tmp_path / "untouched.db"):
        pass
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = slack.say(slack.alex.id, support, "lunch?")
        slack.say(slack.sam.id, support, "at noon", thread_ts=ts)
        slack.edit(support, ts, "lunch today?")
        slack.unfurl(support, ts)
        slack.bot_says(support, f"<@{slack.bot_user_id}> build 4711 passed")
        slack.bot_says(support, f"<@{slack.bot_user_id}> and deployed", thread_ts=ts)
        slack.join(slack.sam.id, support)
        slack.delete(support, ts)
        for number, kind in enumerate(["reaction_added", "member_joined_channel", "pin_added"]):
            event = {"type": kind, "user": slack.alex.id, "channel": support}
            deliver_event(slack, event, event_id=f"Ev0OTHER{number}")
        await all_acknowledged(slack)

    assert count_rows(tmp_path / "shop.db") == count_rows(tmp_path / "untouched.db")
    assert answers(slack, support) == []
    assert {ack.retry_attempt for ack in slack.acks} == {0}
    assert slack.lost == []


async def test_where_the_bot_is_no_member_the_asker_is_told_once_to_invite_it(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    dm = slack.open_dm(slack.alex.id)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello"
        ts = slack.say(slack.alex.id, slack.random.id, mention, times=3)
        note = await wait_for_answer(slack, dm.id, None)
        await all_acknowledged(slack)
        redeliver(slack)
        await all_acknowledged(slack)
        slack.invite(slack.random.id)
        again = slack.say(slack.alex.id, slack.random.id, mention)
        await wait_for_answer(slack, slack.random.id, again)

    assert f"<#{slack.random.id}>" in shown_text(note)
    assert "/invite" in shown_text(note)
    assert len(answers(slack, dm.id)) == 1
    assert answers(slack, slack.random.id, ts) == []


async def test_a_group_dm_behaves_like_a_private_channel(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    members = (slack.alex.id, slack.sam.id, slack.bot_user_id)
    group_dm = slack.add_channel("mpdm", kind="mpim", members=members)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        slack.say(slack.sam.id, group_dm.id, "only between us")
        ts = slack.say(slack.alex.id, group_dm.id, f"<@{slack.bot_user_id}> hello")
        await wait_for_answer(slack, group_dm.id, ts)
        slack.say(slack.alex.id, group_dm.id, "thank you", thread_ts=ts)
        await wait_for_answer(slack, group_dm.id, ts, count=2)

    assert [answer.thread_ts for answer in answers(slack, group_dm.id)] == [ts, ts]
    assert "only between us" not in str([request.body for request in claude.requests])


async def test_a_private_channel_behaves_like_a_public_one(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    members = (slack.alex.id, slack.bot_user_id)
    private = slack.add_channel("returns", kind="group", members=members)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = slack.say(slack.alex.id, private.id, f"<@{slack.bot_user_id}> hello")
        await wait_for_answer(slack, private.id, ts)
        slack.say(slack.alex.id, private.id, "thank you", thread_ts=ts)
        await wait_for_answer(slack, private.id, ts, count=2)


async def test_a_file_without_words_gets_the_sentence_about_files(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "", files=[PHOTO])
        answer = await wait_for_answer(slack, dm.id, None)

    assert shown_text(answer) == FILES_ONLY
    assert claude.requests == []


async def test_a_mention_with_only_a_file_waits_for_the_event_that_has_the_file(
    claude: LocalClaude, tmp_path: Path
) -> None:
    async with (
        open_local_slack(limits=SlackLimits.none(), twins=False) as slack,
        running_bot(slack, claude, tmp_path / "shop.db"),
    ):
        mention = f"<@{slack.bot_user_id}>"
        ts = slack.say(slack.alex.id, slack.support.id, mention, files=[PHOTO])
        await all_acknowledged(slack)
        await asyncio.sleep(0.3)  # what is tested: the twin takes its time
        (first,) = slack.acks
        twin = {"type": "message", "channel_type": "channel", "files": [PHOTO]}
        deliver_event(slack, {**first.event, **twin})
        answer = await wait_for_answer(slack, slack.support.id, ts)

        assert first.event["type"] == "app_mention"
        assert shown_text(answer) == FILES_ONLY
        assert len(answers(slack, slack.support.id)) == 1


async def test_a_mention_with_words_and_a_file_is_answered_once_and_claude_is_told_of_the_file(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello, look"
        ts = slack.say(slack.alex.id, slack.support.id, mention, files=[PHOTO], times=3)
        await wait_for_answer(slack, slack.support.id, ts)
        await all_acknowledged(slack)

    assert newest_texts(claude.requests[-1].body) == ["alex: hello, look\n[a file is attached]"]
    assert len(answers(slack, slack.support.id)) == 1


async def test_words_with_a_file_are_answered_and_claude_is_told_of_the_file(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "hello, look", files=[PHOTO, PHOTO])
        await wait_for_answer(slack, dm.id, None)

    assert newest_texts(claude.requests[0].body) == ["hello, look\n[files are attached]"]


@pytest.mark.parametrize("twins", [True, False])
async def test_a_mention_without_words_is_greeted(
    claude: LocalClaude, tmp_path: Path, *, twins: bool
) -> None:
    async with (
        open_local_slack(limits=SlackLimits.none(), twins=twins) as slack,
        running_bot(slack, claude, tmp_path / "shop.db"),
    ):
        ts = slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}>")
        answer = await wait_for_answer(slack, slack.support.id, ts)

        assert shown_text(answer) == GREETING
    assert claude.requests == []


async def test_a_forwarded_text_reaches_claude(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.alex.id)
        slack.forward(slack.alex.id, dm.id, "my parcel &amp; me", author_name="Sam Lee")
        await wait_for_answer(slack, dm.id, None)
        ts = slack.forward(
            slack.alex.id,
            slack.support.id,
            "my parcel is late",
            author_name="Sam Lee",
            comment=f"<@{slack.bot_user_id}> can you help?",
        )
        await wait_for_answer(slack, slack.support.id, ts)

    assert [newest_texts(request.body) for request in claude.requests] == [
        ["[forwarded from Sam Lee]\nmy parcel & me"],
        ["alex: can you help?\n\n[forwarded from Sam Lee]\nmy parcel is late"],
    ]


async def test_claude_reads_what_people_read(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    encoded = (
        f"<@{slack.bot_user_id}> &lt;b&gt; fish &amp; chips, ask <@{slack.sam.id}> in "
        f"<#{slack.copy.id}|copy>, <mailto:jo@example.com|jo@example.com>, "
        "<https://example.com/a?b=1&amp;c=2|our page>, <https://example.com>, <!here>"
    )
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = slack.say(slack.alex.id, slack.support.id, encoded)
        await wait_for_answer(slack, slack.support.id, ts)

    decoded = (
        "alex: <b> fish & chips, ask @sam in #copy, jo@example.com, "
        "our page (https://example.com/a?b=1&c=2), https://example.com, @here"
    )
    assert newest_texts(claude.requests[0].body) == [decoded]


async def test_many_people_at_once_are_each_answered_in_their_own_thread(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello"
        roots = [slack.say(slack.alex.id, slack.support.id, mention) for _ in range(50)]
        await slack.wait_until(lambda: len(answers(slack, slack.support.id)) == 50)
        await all_acknowledged(slack)

    threads = Counter(answer.thread_ts for answer in answers(slack, slack.support.id))
    assert threads == Counter(roots)
