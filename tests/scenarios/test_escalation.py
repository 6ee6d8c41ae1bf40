import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from slackbot.agent.tools.escalate import HANDED_OVER, NOT_CONNECTED
from slackbot.playground.claude_faults import EndsWithoutStop, Stalled
from slackbot.playground.claude_mind import text, tool_call
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_faults import Dropped, Refused
from slackbot.playground.slack_rules import links_in, pings_in
from slackbot.playground.slack_server import LocalSlack
from slackbot.playground.slack_workspace import Channel, SlackMessage
from tests.scenarios.harness import answers, running_bot, shown_text, wait_for_answer

SUMMARY = "The customer wants a refund for ORD-1001 and ord-1003, which came torn."
HOSTILE = (
    "<!channel> <!here|all> <@U0LOCAL0002> <!subteam^S012> @channel\n"
    "<https://evil.example|the order> [the order](https://evil.example)"
)


@pytest.fixture
def team(slack: LocalSlack) -> Channel:
    """The team's own channel."""
    return slack.add_channel("team", members=(slack.alex.id, slack.bot_user_id))


def rows_in(database: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(database)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("select * from escalations order by number")]


def results_given(claude: LocalClaude) -> list[str]:
    """What Claude was told its tool uses came to, in the order of the requests."""
    return [
        block["content"]
        for request in claude.requests
        for block in request.body["messages"][-1]["content"]
        if block["type"] == "tool_result"
    ]


def into(channel: Channel) -> Callable[[Mapping[str, Any]], bool]:
    return lambda arguments: arguments.get("channel") == channel.id


async def ask(slack: LocalSlack, words: str = "I want my money back!") -> SlackMessage:
    """The first answer to `words` of alex in #support."""
    mention = f"<@{slack.bot_user_id}> {words}"
    ts = slack.say(slack.alex.id, slack.support.id, mention)
    return await wait_for_answer(slack, slack.support.id, ts)


async def test_an_escalation_is_on_record_and_in_the_teams_channel(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    claude.script(tool_call("escalate", summary=SUMMARY), text("A colleague will write to you."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        answer = await ask(slack)

    [post] = answers(slack, team.id)
    asked_ts = str(answer.thread_ts)
    assert post.text.splitlines() == [
        f"<@{slack.alex.id}> needs a person.",
        f"> {SUMMARY}",
        "Orders: ORD-1001, ORD-1003",
        f"https://local.example.com/archives/{slack.support.id}/p{asked_ts.replace('.', '')}",
    ]
    [row] = rows_in(tmp_path / "shop.db")
    assert row["asker"] == slack.alex.id
    assert row["summary"] == SUMMARY
    assert json.loads(row["order_ids"]) == ["ORD-1001", "ORD-1003"]
    assert results_given(claude) == [HANDED_OVER]
    assert shown_text(answer) == "A colleague will write to you."


async def test_an_escalation_from_a_dm_has_no_link_that_the_team_cannot_open(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    claude.script(tool_call("escalate", summary="She wants a person."), text("One will write."))
    dm = slack.open_dm(slack.jo.id).id

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        slack.say(slack.jo.id, dm, "a person, please")
        await wait_for_answer(slack, dm, None)

    [post] = answers(slack, team.id)
    assert post.text == f"<@{slack.jo.id}> needs a person.\n> She wants a person."
    assert not [call for call in slack.calls if call.method == "chat.getPermalink"]


async def test_two_matters_of_one_turn_are_told_each_once(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    claude.script(tool_call("escalate", summary="A refund."))
    claude.script(tool_call("escalate", summary="A complaint."), text("Both are passed on."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        await ask(slack)

    assert [post.text.splitlines()[1] for post in answers(slack, team.id)] == [
        "> A refund.",
        "> A complaint.",
    ]
    assert [row["number"] for row in rows_in(tmp_path / "shop.db")] == [0, 1]


async def test_a_step_that_breaks_off_in_mid_stream_escalates_once(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    claude.add(EndsWithoutStop(after_deltas=2))
    claude.script(tool_call("escalate", summary=SUMMARY), text("A colleague will write to you."))
    claude.add(EndsWithoutStop(after_deltas=3, where=lambda body: len(body["messages"]) == 3))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        answer = await ask(slack)

    assert shown_text(answer) == "A colleague will write to you."
    assert len(claude.requests) == 4
    assert len(answers(slack, team.id)) == 1
    assert len(rows_in(tmp_path / "shop.db")) == 1


async def test_a_turn_that_is_run_again_escalates_once(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    stalled = Stalled(where=lambda body: len(body["messages"]) == 3)
    claude.add(stalled)
    claude.script(tool_call("escalate", summary=SUMMARY), text("Never said."))
    database, at_once = tmp_path / "shop.db", "0"

    async with running_bot(
        slack, claude, database, SHOPMATE_TEAM_CHANNEL=team.id, SHOPMATE_DRAIN_S=at_once
    ):
        mention = f"<@{slack.bot_user_id}> I want my money back!"
        ts = slack.say(slack.alex.id, slack.support.id, mention)
        await stalled.reached.wait()
    stalled.release.set()
    claude.script(tool_call("escalate", summary="In other words."), text("A colleague will write."))
    async with running_bot(slack, claude, database, SHOPMATE_TEAM_CHANNEL=team.id):
        answer = await wait_for_answer(slack, slack.support.id, ts)

    assert shown_text(answer) == "A colleague will write."
    [post] = answers(slack, team.id)
    assert SUMMARY in post.text
    assert [row["summary"] for row in rows_in(database)] == [SUMMARY]
    assert results_given(claude) == [HANDED_OVER, HANDED_OVER]


async def test_an_escalation_is_told_without_its_link_where_slack_gives_none(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    slack.faults.add(Refused(method="chat.getPermalink", error="fatal_error"))
    claude.script(tool_call("escalate", summary="A refund."), text("A colleague will write."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        await ask(slack)

    [post] = answers(slack, team.id)
    assert post.text == f"<@{slack.alex.id}> needs a person.\n> A refund."
    assert results_given(claude) == [HANDED_OVER]


async def test_an_escalation_whose_post_failed_for_now_is_posted_once(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    slack.faults.add(Refused(method="chat.postMessage", error="fatal_error", where=into(team)))
    claude.script(tool_call("escalate", summary=SUMMARY), text("A colleague will write to you."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        await ask(slack)

    assert len(answers(slack, team.id)) == 1
    assert results_given(claude) == [HANDED_OVER]


async def test_an_escalation_whose_posts_answer_was_lost_is_found_instead_of_posted_again(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    slack.faults.add(Dropped(method="chat.postMessage", done=True, where=into(team)))
    claude.script(tool_call("escalate", summary=SUMMARY), text("A colleague will write to you."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        await ask(slack)

    assert len(answers(slack, team.id)) == 1
    assert results_given(claude) == [HANDED_OVER]


async def test_without_a_team_channel_the_customer_is_asked_to_write_and_nothing_is_promised(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        answer = await ask(slack, "I want to talk to a person.")

    assert results_given(claude) == [NOT_CONNECTED]
    assert "hello@threadco.com" in shown_text(answer)
    assert "nobody was told" in shown_text(answer)
    assert [row["asker"] for row in rows_in(tmp_path / "shop.db")] == [slack.alex.id]
    posted_in = {call.arguments["channel"] for call in slack.calls if "post" in call.method}
    assert posted_in == {slack.support.id}


async def test_a_team_channel_shopmate_cannot_post_in_counts_as_none(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    slack.kick(team.id)

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        answer = await ask(slack, "I want to talk to a person.")

    assert results_given(claude) == [NOT_CONNECTED]
    assert "hello@threadco.com" in shown_text(answer)


async def test_a_summary_pings_nobody_but_names_who_asked_and_hides_no_link(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path
) -> None:
    claude.script(tool_call("escalate", summary=HOSTILE), text("A colleague will write to you."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        await ask(slack)

    [post] = answers(slack, team.id)
    [version] = post.versions
    assert pings_in(version) == [f"<@{slack.alex.id}>"]
    assert links_in(version) == []
    assert "&lt;!channel&gt;" in post.text
    assert not version.finds_names
    [call] = [
        call
        for call in slack.calls
        if call.method == "chat.postMessage" and call.arguments["channel"] == team.id
    ]
    assert call.arguments["parse"] == "none"
    assert call.arguments["unfurl_links"] is call.arguments["unfurl_media"] is False


@pytest.mark.parametrize("summary", ["```", "# ", "```\n```", "<", "&"])
async def test_a_summary_with_nothing_to_read_in_it_still_reaches_the_team(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path, summary: str
) -> None:
    claude.script(tool_call("escalate", summary=summary), text("A colleague will write to you."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        await ask(slack)

    assert len(answers(slack, team.id)) == 1
    assert results_given(claude) == [HANDED_OVER]


@pytest.mark.parametrize(
    "words", ["".join(f"<ORD-{number}>" for number in range(1_000, 1_200)), "<\n" * 1_000]
)
async def test_a_long_summary_is_one_message_in_the_teams_channel(
    slack: LocalSlack, claude: LocalClaude, team: Channel, tmp_path: Path, words: str
) -> None:
    claude.script(tool_call("escalate", summary=words), text("A colleague will write to you."))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_TEAM_CHANNEL=team.id):
        await ask(slack)

    assert len(answers(slack, team.id)) == 1
    assert results_given(claude) == [HANDED_OVER]
