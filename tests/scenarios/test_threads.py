from pathlib import Path

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_faults import Held, Refused
from slackbot.playground.slack_server import LocalSlack
from tests.scenarios.harness import answers, running_bot, shown_text, wait_for_answer
from tests.scenarios.overheard import all_acknowledged, all_texts, newest_texts


async def test_the_last_fifty_messages_of_a_thread_people_began_are_told_once(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.url)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot, support = f"<@{slack.bot_user_id}>", slack.support.id
        ts = slack.say(slack.alex.id, support, "message 0")
        for number in range(1, 60):
            author = (slack.alex, slack.sam)[number % 2]
            slack.say(author.id, support, f"message {number}", thread_ts=ts)
        await client.chat_postMessage(channel=support, thread_ts=ts, text="words of ShopMate's")
        slack.bot_says(support, "words of another bot", thread_ts=ts)
        slack.say(slack.alex.id, support, f"{bot} hello", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=2)
        slack.say(slack.alex.id, support, "thank you", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=3)

    names = ("alex", "sam")
    earlier = [f"(context) {names[n % 2]}: message {n}" for n in range(10, 60)]
    assert newest_texts(claude.requests[0].body) == [*earlier, "alex: hello"]
    assert all_texts(claude.requests[1]) == [*earlier, "alex: hello", "alex: thank you"]
    assert [call.method for call in slack.calls].count("conversations.replies") == 1


async def test_what_is_said_while_the_thread_is_read_is_told_once(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    reading = Held(method="conversations.replies")
    slack.faults.add(reading)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        support = slack.support.id
        ts = slack.say(slack.sam.id, support, "my order is late")
        slack.say(slack.alex.id, support, f"<@{slack.bot_user_id}> hello", thread_ts=ts)
        await reading.reached.wait()
        slack.say(slack.alex.id, support, "the blue one", thread_ts=ts)
        slack.say(slack.sam.id, support, "not mine, then", thread_ts=ts)
        await all_acknowledged(slack)
        reading.release.set()
        await wait_for_answer(slack, support, ts)

    assert [newest_texts(request.body) for request in claude.requests] == [
        [
            "(context) sam: my order is late",
            "alex: hello",
            "alex: the blue one",
            "(context) sam: not mine, then",
        ]
    ]


async def test_a_thread_that_cannot_be_read_is_answered_without_its_beginning(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    slack.faults.add(Refused(method="conversations.replies", error="missing_scope"))
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = slack.say(slack.sam.id, slack.support.id, "my order is late")
        mention = f"<@{slack.bot_user_id}> hello"
        slack.say(slack.alex.id, slack.support.id, mention, thread_ts=ts)
        await wait_for_answer(slack, slack.support.id, ts)

    assert newest_texts(claude.requests[0].body) == ["alex: hello"]


async def test_follow_ups_need_no_mention_until_somebody_else_writes(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot, support = f"<@{slack.bot_user_id}>", slack.support.id
        ts = slack.say(slack.alex.id, support, f"{bot} hello")
        await wait_for_answer(slack, support, ts)
        slack.say(slack.alex.id, support, "a follow-up", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=2)
        slack.say(slack.sam.id, support, "I can take this", thread_ts=ts)
        await all_acknowledged(slack)
        slack.say(slack.alex.id, support, "thank you, Sam", thread_ts=ts)
        await all_acknowledged(slack)
        slack.say(slack.sam.id, support, f"{bot} what about me?", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=3)
        slack.say(slack.sam.id, support, "and now?", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=4)

    assert [newest_texts(request.body) for request in claude.requests] == [
        ["alex: hello"],
        ["alex: a follow-up"],
        [
            "(context) sam: I can take this",
            "(context) alex: thank you, Sam",
            "sam: what about me?",
        ],
        ["sam: and now?"],
    ]
    assert len(answers(slack, support)) == 4


async def test_a_follow_up_also_sent_to_the_channel_is_answered_once_in_the_thread(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        support = slack.support.id
        ts = slack.say(slack.alex.id, support, f"<@{slack.bot_user_id}> hello")
        await wait_for_answer(slack, support, ts)
        slack.say(slack.alex.id, support, "thank you", thread_ts=ts, broadcast=True, times=3)
        await wait_for_answer(slack, support, ts, count=2)
        await all_acknowledged(slack)

    assert [answer.thread_ts for answer in answers(slack, support)] == [ts, ts]


async def test_another_bot_in_the_thread_changes_nothing(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        support = slack.support.id
        ts = slack.say(slack.alex.id, support, f"<@{slack.bot_user_id}> hello")
        await wait_for_answer(slack, support, ts)
        slack.bot_says(support, "build 4711 passed", thread_ts=ts)
        await all_acknowledged(slack)
        slack.say(slack.alex.id, support, "thank you", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=2)

    assert "build 4711" not in str([request.body for request in claude.requests])


@pytest.mark.parametrize("words", ["stop", "Stop!", " be   quiet ", "QUIET…"])
async def test_stop_ends_the_running_answer_with_a_word_about_it(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, words: str
) -> None:
    stalled = Stalled(after_deltas=30)
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> write 200 words"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        await wait_for_answer(slack, slack.support.id, ts)
        slack.say(slack.alex.id, slack.support.id, words, thread_ts=ts)
        answer = await wait_for_answer(slack, slack.support.id, ts, holding="(stopped)")
        await all_acknowledged(slack)
        stalled.release.set()

    assert shown_text(answer).startswith("Line 1 tells of cotton")
    assert shown_text(answer).endswith("(stopped)")
    assert len(answers(slack, slack.support.id)) == 1
    assert claude.requests[0].aborted


async def test_stop_before_the_first_word_leaves_nothing_behind(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        support = slack.support.id
        ts = slack.say(slack.alex.id, support, f"<@{slack.bot_user_id}> hello")
        await stalled.reached.wait()
        await slack.wait_until(lambda: slack.status_of(support, ts) != "")
        slack.say(slack.alex.id, support, "stop", thread_ts=ts)
        await slack.wait_until(lambda: slack.status_of(support, ts) == "")
        stalled.release.set()

    assert answers(slack, support) == []


async def test_a_stopped_thread_is_silent_until_the_next_mention(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot, support = f"<@{slack.bot_user_id}>", slack.support.id
        ts = slack.say(slack.alex.id, support, f"{bot} hello")
        await wait_for_answer(slack, support, ts)
        slack.say(slack.sam.id, support, f"{bot} be quiet", thread_ts=ts)
        await all_acknowledged(slack)
        slack.say(slack.sam.id, support, "thank you", thread_ts=ts)
        await all_acknowledged(slack)
        slack.say(slack.alex.id, support, "are you there?", thread_ts=ts)
        await all_acknowledged(slack)
        silent = len(answers(slack, support))
        slack.say(slack.alex.id, support, f"{bot} hello again", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=2)
        slack.say(slack.alex.id, support, "thank you", thread_ts=ts)
        await wait_for_answer(slack, support, ts, count=3)

    assert silent == 1
    assert newest_texts(claude.requests[1].body) == [
        "(context) sam: be quiet",
        "(context) sam: thank you",
        "(context) alex: are you there?",
        "alex: hello again",
    ]


async def test_what_waited_when_stop_was_said_is_not_answered(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        support = slack.support.id
        ts = slack.say(slack.alex.id, support, f"<@{slack.bot_user_id}> hello")
        await stalled.reached.wait()
        slack.say(slack.alex.id, support, "one thing more", thread_ts=ts)
        await all_acknowledged(slack)
        slack.say(slack.alex.id, support, "stop", thread_ts=ts)
        await all_acknowledged(slack)
        await slack.wait_until(lambda: slack.status_of(support, ts) == "")
        stalled.release.set()

    assert answers(slack, support) == []
    assert len(claude.requests) == 1


async def test_somebody_elses_stop_without_a_mention_is_only_talk(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        support = slack.support.id
        ts = slack.say(slack.alex.id, support, f"<@{slack.bot_user_id}> hello")
        await stalled.reached.wait()
        slack.say(slack.sam.id, support, "stop", thread_ts=ts)
        await all_acknowledged(slack)
        stalled.release.set()
        answer = await wait_for_answer(slack, support, ts)

    assert "(stopped)" not in shown_text(answer)
