from pathlib import Path

import pytest

from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_server import LocalSlack
from tests.scenarios.harness import answers, running_bot, shown_text, wait_for_answer
from tests.scenarios.overheard import all_acknowledged, all_texts, newest_texts, redeliver


async def test_a_mention_added_by_an_edit_is_a_mention(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = slack.say(slack.alex.id, slack.support.id, "where is ORD-1001?")
        slack.edit(slack.support.id, ts, f"<@{slack.bot_user_id}> where is ORD-1001?")
        answer = await wait_for_answer(slack, slack.support.id, ts)
        await all_acknowledged(slack)
        redeliver(slack)
        await all_acknowledged(slack)

    assert "RM493827651GB" in shown_text(answer)
    assert len(answers(slack, slack.support.id)) == 1


async def test_a_mention_added_to_a_reply_is_answered_with_what_was_said_before(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot = f"<@{slack.bot_user_id}>"
        ts = slack.say(slack.alex.id, slack.support.id, f"{bot} hello")
        await wait_for_answer(slack, slack.support.id, ts)
        reply = slack.say(slack.sam.id, slack.support.id, "and mine?", thread_ts=ts)
        await all_acknowledged(slack)
        slack.edit(slack.support.id, reply, f"{bot} and mine, ORD-1001?")
        answer = await wait_for_answer(slack, slack.support.id, ts, count=2)

    assert "RM493827651GB" in shown_text(answer)
    assert newest_texts(claude.requests[1].body) == ["sam: and mine, ORD-1001?"]


async def test_an_edit_before_the_first_post_counts_and_the_old_text_is_forgotten(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot = f"<@{slack.bot_user_id}>"
        ts = slack.say(slack.alex.id, slack.support.id, f"{bot} hello from the old text")
        await stalled.reached.wait()
        slack.edit(slack.support.id, ts, f"{bot} hello from the new text")
        await wait_for_answer(slack, slack.support.id, ts)
        slack.say(slack.alex.id, slack.support.id, "what did I ask first?", thread_ts=ts)
        await wait_for_answer(slack, slack.support.id, ts, count=2)
        stalled.release.set()

    _, *later = claude.requests
    assert [newest_texts(request.body)[0] for request in later] == [
        "alex: hello from the new text",
        "alex: what did I ask first?",
    ]
    assert "old text" not in str([request.body for request in later])
    assert len(answers(slack, slack.support.id)) == 2


async def test_an_edit_after_the_answer_counts_from_the_next_turn(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot = f"<@{slack.bot_user_id}>"
        ts = slack.say(slack.alex.id, slack.support.id, f"{bot} hello from the old text")
        await wait_for_answer(slack, slack.support.id, ts)
        slack.edit(slack.support.id, ts, f"{bot} hello from the new text")
        await all_acknowledged(slack)
        slack.say(slack.alex.id, slack.support.id, "what did I ask first?", thread_ts=ts)
        answer = await wait_for_answer(slack, slack.support.id, ts, count=2)

    assert len(claude.requests) == 2
    assert all_texts(claude.requests[1])[0] == "alex: hello from the new text"
    assert "old text" not in str(claude.requests[1].body)
    assert "hello from the new text" in shown_text(answer)


async def test_an_edit_while_the_answer_grows_disturbs_neither_it_nor_the_next(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled(after_deltas=30)
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        bot = f"<@{slack.bot_user_id}>"
        ts = slack.say(slack.alex.id, slack.support.id, f"{bot} write 60 words")
        await wait_for_answer(slack, slack.support.id, ts)
        slack.edit(slack.support.id, ts, f"{bot} write 61 words")
        await all_acknowledged(slack)
        stalled.release.set()
        answer = await wait_for_answer(slack, slack.support.id, ts, holding="Line 6")

    assert len(claude.requests) == 1
    assert len(answers(slack, slack.support.id)) == 1
    assert len(shown_text(answer).split()) == 60


async def test_a_question_deleted_before_the_first_post_is_not_answered(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        await stalled.reached.wait()
        slack.delete(slack.support.id, ts)
        await claude.wait_for_request(lambda request: request.aborted)
        await all_acknowledged(slack)
        stalled.release.set()

    assert answers(slack, slack.support.id) == []
    assert len(claude.requests) == 1


async def test_a_question_deleted_at_once_is_not_answered(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> hello")
        slack.delete(slack.support.id, ts)
        await all_acknowledged(slack)
        redeliver(slack)
        await all_acknowledged(slack)
        stalled.release.set()

    assert answers(slack, slack.support.id) == []


async def test_a_deleted_follow_up_takes_the_status_with_it(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        support = slack.support.id
        ts = slack.say(slack.alex.id, support, f"<@{slack.bot_user_id}> hello")
        await wait_for_answer(slack, support, ts)
        claude.add(stalled)
        follow_up = slack.say(slack.alex.id, support, "and another thing", thread_ts=ts)
        await slack.wait_until(lambda: slack.status_of(support, ts) != "")
        await stalled.reached.wait()
        slack.delete(support, follow_up)
        await slack.wait_until(lambda: slack.status_of(support, ts) == "")
        stalled.release.set()

    assert len(answers(slack, support)) == 1


async def test_of_two_questions_the_one_that_is_left_is_answered(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    first, second = Stalled(), Stalled()
    claude.add(first)
    claude.add(second)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "hello")
        await first.reached.wait()
        gone = slack.say(slack.jo.id, dm.id, "the secret question")
        kept = slack.say(slack.jo.id, dm.id, "hello again")
        await all_acknowledged(slack)
        first.release.set()
        await second.reached.wait()
        await slack.wait_for(
            "reactions.add", where=lambda call: call.arguments["timestamp"] == gone
        )
        slack.delete(dm.id, gone)
        await wait_for_answer(slack, dm.id, None, count=2)
        second.release.set()

    assert newest_texts(claude.requests[-1].body) == ["(context) [message deleted]", "hello again"]
    assert len(answers(slack, dm.id)) == 2
    assert [message.reactions for message in slack.messages(dm.id) if message.ts == kept] == [{}]


@pytest.mark.parametrize("has_replies", [True, False])
async def test_what_is_deleted_later_is_not_told_any_more(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, *, has_replies: bool
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello, my secret is cotton"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        await wait_for_answer(slack, slack.support.id, ts)
        follow_up = slack.say(slack.alex.id, slack.support.id, "it is silk", thread_ts=ts)
        await wait_for_answer(slack, slack.support.id, ts, count=2)
        slack.delete(slack.support.id, ts if has_replies else follow_up)
        await all_acknowledged(slack)
        slack.say(slack.alex.id, slack.support.id, "what did I say?", thread_ts=ts)
        await wait_for_answer(slack, slack.support.id, ts, count=3)

    said = ["alex: hello, my secret is cotton", "alex: it is silk", "alex: what did I say?"]
    said[0 if has_replies else 1] = "alex: [message deleted]"
    assert all_texts(claude.requests[-1]) == said


async def test_a_preview_is_not_an_edit(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello, see <https://example.com>"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        await stalled.reached.wait()
        slack.unfurl(slack.support.id, ts)
        await all_acknowledged(slack)
        stalled.release.set()
        await wait_for_answer(slack, slack.support.id, ts)
        slack.unfurl(slack.support.id, ts)
        await all_acknowledged(slack)

    assert len(claude.requests) == 1
    assert not claude.requests[0].aborted
    assert len(answers(slack, slack.support.id)) == 1
