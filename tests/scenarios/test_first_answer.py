from pathlib import Path

from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_server import LocalSlack
from tests.scenarios.harness import answers, running_bot, shown_text, wait_for_answer


async def test_a_mention_about_an_order_is_answered_in_its_thread_with_the_tracking_link(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> where is ORD-1001?"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        answer = await wait_for_answer(slack, slack.support.id, ts, holding="RM493827651GB")

    assert "https://track.royalmail.com/tracking/RM493827651GB" in shown_text(answer)
    assert len(answers(slack, slack.support.id)) == 1
    assert [step.body["messages"][-1]["role"] for step in claude.requests] == ["user", "user"]


async def test_the_answer_remembers_what_was_said_before_in_the_thread(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> where is ORD-1001?"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        await wait_for_answer(slack, slack.support.id, ts, holding="RM493827651GB")
        slack.say(slack.alex.id, slack.support.id, "what did I ask first?", thread_ts=ts)
        answer = await wait_for_answer(slack, slack.support.id, ts, count=2)

    assert "where is ORD-1001?" in shown_text(answer)
