from pathlib import Path

from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_server import LocalSlack
from tests.scenarios.harness import answers, running_bot, shown_text, wait_for_answer
from tests.scenarios.overheard import all_acknowledged, all_texts


async def test_a_direct_message_is_answered_at_the_top_level_and_goes_on_there(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "hello")
        await wait_for_answer(slack, dm.id, None)
        slack.say(slack.jo.id, dm.id, "what did I say?")
        answer = await wait_for_answer(slack, dm.id, None, count=2)

    assert [said.thread_ts for said in answers(slack, dm.id)] == [None, None]
    assert all_texts(claude.requests[1]) == ["hello", "what did I say?"]
    assert "hello" in shown_text(answer)


async def test_a_thread_in_a_direct_message_is_a_conversation_of_its_own(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "hello at the top")
        top = await wait_for_answer(slack, dm.id, None)
        slack.say(slack.jo.id, dm.id, "hello in the thread", thread_ts=top.ts)
        in_thread = await wait_for_answer(slack, dm.id, top.ts, count=2)
        slack.say(slack.jo.id, dm.id, "thank you", thread_ts=top.ts)
        await wait_for_answer(slack, dm.id, top.ts, count=3)
        slack.say(slack.jo.id, dm.id, "back at the top")
        await slack.wait_until(lambda: len(answers(slack, dm.id)) == 4)

    assert in_thread.thread_ts == top.ts
    assert [all_texts(request) for request in claude.requests] == [
        ["hello at the top"],
        ["hello in the thread"],
        ["hello in the thread", "thank you"],
        ["hello at the top", "back at the top"],
    ]


async def test_start_over_begins_a_conversation_that_knows_nothing_of_the_last(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "hello")
        await wait_for_answer(slack, dm.id, None)
        slack.say(slack.jo.id, dm.id, "Start over!")
        await wait_for_answer(slack, dm.id, None, count=2)
        slack.say(slack.jo.id, dm.id, "what did I say?")
        await wait_for_answer(slack, dm.id, None, count=3)

    assert all_texts(claude.requests[-1]) == ["Start over!", "what did I say?"]


async def test_stop_ends_the_answer_but_does_not_silence_a_direct_message(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled(after_deltas=30)
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        slack.say(slack.jo.id, dm.id, "write 200 words")
        await wait_for_answer(slack, dm.id, None)
        slack.say(slack.jo.id, dm.id, "stop")
        stopped = await wait_for_answer(slack, dm.id, None, holding="(stopped)")
        slack.say(slack.jo.id, dm.id, "hello")
        await wait_for_answer(slack, dm.id, None, count=2)
        stalled.release.set()

    assert shown_text(stopped).endswith("(stopped)")
    assert all_texts(claude.requests[1]) == ["write 200 words", "(context) stop", "hello"]


async def test_the_eyes_on_a_question_are_gone_once_it_is_answered(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        ts = slack.say(slack.jo.id, dm.id, "hello")
        await slack.wait_for("reactions.add")
        (question,) = slack.messages(dm.id)
        seen = list(question.reactions)
        stalled.release.set()
        await wait_for_answer(slack, dm.id, None)

    assert seen == ["eyes"]
    assert question.reactions == {}
    assert slack.status_of(dm.id, ts) == ""


async def test_the_eyes_are_gone_when_the_question_is_stopped(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        dm = slack.open_dm(slack.jo.id)
        ts = slack.say(slack.jo.id, dm.id, "hello")
        await slack.wait_for("reactions.add")
        slack.say(slack.jo.id, dm.id, "stop")
        await slack.wait_for("reactions.remove")
        await all_acknowledged(slack)
        stalled.release.set()

    assert answers(slack, dm.id) == []
    assert [message.reactions for message in slack.messages(dm.id)] == [{}, {}]
    assert slack.status_of(dm.id, ts) == ""


async def test_people_have_conversations_of_their_own(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        for person in (slack.jo, slack.alex):
            dm = slack.open_dm(person.id)
            slack.say(person.id, dm.id, f"hello from {person.name}")
            await wait_for_answer(slack, dm.id, None)

    assert [all_texts(request) for request in claude.requests] == [
        ["hello from jo"],
        ["hello from alex"],
    ]
