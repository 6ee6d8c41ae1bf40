import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from slackbot.playground.claude_faults import ConnectionDropped, Slow, Stalled
from slackbot.playground.claude_mind import Reply, TextBlock, ToolUseBlock, text, tool_call
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_calls import ApiCall
from slackbot.playground.slack_faults import Refused
from slackbot.playground.slack_faults import Slow as SlowCall
from slackbot.playground.slack_limits import SlackLimits
from slackbot.playground.slack_rules import links_in
from slackbot.playground.slack_server import LocalSlack
from slackbot.playground.slack_workspace import SlackMessage, Version
from tests.scenarios.harness import all_pings, answers, running_bot, shown_text, wait_for_answer

STATUS = "assistant.threads.setStatus"
FIRST_WORDS_CHARS = 80
CHARS_PER_DELTA = 4

ANSWER = " ".join(f"Sentence {number} tells of cotton and waves." for number in range(1, 31))
LAST_WORDS = "Sentence 30 tells of cotton and waves."
SHORT = "Yes, we ship to Norway."
INTERIM = (
    "Your question has two parts, and I will take them one by one: first the material, which is "
    "organic cotton throughout."
)
HOSTILE = (
    "Look: <!channel>, <!here|you>, <@U0LOCAL0002>, <!subteam^S0123> and @here; "
    "<https://evil.example|shop.example>, <https://evil.example>, "
    "[shop](https://evil.example), [shop.example](https://evil.example/a_(b)), "
    "![shop](https://evil.example/x.png), [![a](https://evil.example/y.png)](https://b.example), "
    "[shop.example][1], `<!channel>`, **[shop](https://evil.example)** and "
    "<mailto:a@evil.example|me>.\n\n[1]: https://evil.example\n\n"
    "```\n<!everyone>\n[shop](https://evil.example)\n```\nThat was [all](https://evil.example)."
)


def ask(slack: LocalSlack, words: str = "tell me") -> str:
    """The ts of a mention by alex in #support."""
    return slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> {words}")


def shown_in(version: Version) -> str:
    return str(version.blocks[0]["text"]) if version.blocks else version.text


def all_versions(slack: LocalSlack) -> Iterator[Version]:
    """Everything that was ever shown of ShopMate's messages, deleted ones too."""
    for message in slack.all_messages:
        if message.bot_id == slack.bot_id:
            yield from message.versions


def calls_of(slack: LocalSlack, method: str) -> list[ApiCall]:
    return [call for call in slack.calls if call.method == method]


def has_blocks(arguments: Mapping[str, Any]) -> bool:
    return bool(arguments.get("blocks"))


def fences_in(shown: str) -> int:
    return len(re.findall(r"(?m)^```", shown))


def number_of_deltas(chars: int) -> int:
    return chars // CHARS_PER_DELTA


async def wait_for_words(slack: LocalSlack, ts: str, words: str) -> None:
    """Returns once `words` are in the last message of the thread; the rest comes by the end."""
    async with asyncio.timeout(8):
        await slack.wait_until(
            lambda: words in shown_text(slack.messages(slack.support.id, ts)[-1])
        )


async def wait_for_whole(slack: LocalSlack, ts: str, *, ending: str) -> SlackMessage:
    """ShopMate's one message in the thread, once it ends with `ending`."""
    await slack.wait_until(
        lambda: shown_text(slack.messages(slack.support.id, ts)[-1]).endswith(ending)
    )
    [answer] = answers(slack, slack.support.id, ts)
    return answer


# The first post


async def test_an_answer_begins_with_its_own_first_words_and_grows_to_the_whole(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    slack.limits = SlackLimits()
    claude.script(text(ANSWER))
    claude.add(Slow(tokens_per_s=150))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        answer = await wait_for_whole(slack, ask(slack), ending=LAST_WORDS)

    assert shown_text(answer) == ANSWER
    shown = [shown_in(version) for version in answer.versions]
    assert FIRST_WORDS_CHARS <= len(shown[0]) < len(ANSWER)
    assert len(shown) > 2
    assert all(ANSWER.startswith(one.rstrip("*_")) for one in shown)
    assert [len(one) for one in shown] == sorted(len(one) for one in shown)
    assert not slack.rate_limited


async def test_an_answer_of_few_words_is_posted_once_and_never_edited(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    slack.limits = SlackLimits()
    claude.script(text(SHORT))
    claude.add(Slow(tokens_per_s=100))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        answer = await wait_for_answer(slack, slack.support.id, ask(slack))

    assert [shown_in(version) for version in answer.versions] == [SHORT]
    assert not calls_of(slack, "chat.update")


async def test_what_is_still_hidden_of_a_link_does_not_count_as_first_words(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    url = f"https://track.royalmail.com/tracking/{'A1' * 80}"
    claude.script(text(f"See [here]({url}) and then wait for a day or two. {ANSWER}"))
    claude.add(Slow(tokens_per_s=250))

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        answer = await wait_for_whole(slack, ask(slack), ending=LAST_WORDS)

    assert len(shown_in(answer.versions[0])) >= FIRST_WORDS_CHARS
    assert url in shown_text(answer)


async def test_no_message_ever_says_only_that_shopmate_is_thinking(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        ts = ask(slack, "where is ORD-1001?")
        await stalled.reached.wait()
        await slack.wait_for(STATUS)
        before = list(all_versions(slack))
        stalled.release.set()
        await wait_for_answer(slack, slack.support.id, ts, holding="RM493827651GB")

    assert before == []
    shown = [shown_in(version) for version in all_versions(slack)]
    assert not [one for one in shown if "thinking" in one.casefold() or not one.strip(".… ")]


async def test_twelve_answers_at_once_are_all_complete_and_slack_never_says_no(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    slack.limits = SlackLimits()
    claude.script(*[text(ANSWER)] * 12)
    claude.add(Slow(tokens_per_s=400, times=12))
    dms = [slack.open_dm(slack.add_member().id) for _ in range(12)]

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        for dm in dms:
            [person] = dm.members - {slack.bot_user_id}
            slack.say(person, dm.id, "tell me")
        for dm in dms:
            await wait_for_answer(slack, dm.id, None, holding="Sentence 30 tells")

    assert [[shown_text(one) for one in answers(slack, dm.id)] for dm in dms] == [[ANSWER]] * 12
    assert not slack.rate_limited


# Around tools


async def test_few_words_before_a_tool_call_are_a_status_and_never_posted(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    lookup = ToolUseBlock("get_order", {"order_id": "ORD-1001"})
    claude.script(Reply((TextBlock("Let me look that up."), lookup)), text(ANSWER))
    stalled = Stalled(where=lambda body: len(body["messages"]) == 3)
    claude.add(stalled)

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        ts = ask(slack)
        await slack.wait_for(STATUS, where=lambda call: call.arguments["status"].startswith("Let"))
        status = slack.status_of(slack.support.id, ts)
        stalled.release.set()
        answer = await wait_for_whole(slack, ts, ending=LAST_WORDS)

    assert status == "Let me look that up."
    assert shown_text(answer) == ANSWER
    assert not [one for one in all_versions(slack) if "Let me look" in shown_in(one) + one.text]
    assert slack.status_of(slack.support.id, ts) == ""


async def test_more_words_before_a_tool_call_stay_and_the_answer_goes_on_below(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    lookup = ToolUseBlock("get_order", {"order_id": "ORD-1001"})
    claude.script(Reply((TextBlock(INTERIM), lookup)), text("It is on its way."))
    stalled = Stalled(where=lambda body: len(body["messages"]) == 3)
    claude.add(stalled)

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        ts = ask(slack)
        meanwhile = shown_text(await wait_for_answer(slack, slack.support.id, ts))
        stalled.release.set()
        answer = await wait_for_whole(slack, ts, ending="It is on its way.")

    assert meanwhile == INTERIM
    assert shown_text(answer) == f"{INTERIM}\n\nIt is on its way."
    assert all(shown_in(version).startswith(INTERIM) for version in answer.versions)


async def test_a_step_that_breaks_off_begins_anew_in_the_same_message(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    other = ANSWER.replace("Sentence", "Line")
    claude.script(text(other))
    stalled = Stalled(after_deltas=number_of_deltas(600))
    claude.add(stalled)
    claude.add(ConnectionDropped(after_deltas=number_of_deltas(400)))

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack, "write 300 words")
        await stalled.reached.wait()
        stalled.release.set()
        answer = await wait_for_whole(slack, ts, ending="cotton and waves.")

    assert shown_text(answer) == other


async def test_a_broken_off_step_leaves_no_word_behind(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    claude.script(text("The first try, which nobody should read to its end. " * 8))
    claude.script(text(ANSWER))
    claude.add(ConnectionDropped(after_deltas=number_of_deltas(200)))

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        await wait_for_answer(slack, slack.support.id, ask(slack))

    assert len(claude.requests) == 2


# Long answers


def build_long_answer(chars: int) -> tuple[str, int]:
    """A numbered answer of paragraphs and code, and how many numbers there are in it."""
    blocks: list[str] = []
    number = 0
    while sum(len(block) + 2 for block in blocks) < chars:
        lines = []
        for _ in range(14):
            number += 1
            lines.append(f"n{number:04d} cotton, waves & slow <summer> evenings by the sea")
        body = "\n".join(lines)
        blocks.append(f"```python\n{body}\n```" if len(blocks) % 2 else body)
    return "\n\n".join(blocks), number


@pytest.mark.parametrize("pacer", ["off", "on"])
async def test_fifteen_thousand_characters_go_on_in_further_messages_with_every_fence_closed(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, pacer: str
) -> None:
    if pacer == "on":
        slack.limits = SlackLimits()
    words, count = build_long_answer(15_000)
    claude.script(text(words))
    claude.add(Slow(tokens_per_s=8_000))
    slack.faults.add(SlowCall(method="chat.update", seconds=0.03, times=1_000))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER=pacer):
        ts = ask(slack)
        await wait_for_words(slack, ts, f"n{count:04d}")

    said = answers(slack, slack.support.id, ts)
    whole = "\n".join(shown_text(message) for message in said)
    assert len(said) >= 2
    assert [int(number) for number in re.findall(r"n(\d{4})", whole)] == list(range(1, count + 1))
    assert [message.ts for message in said] == sorted(message.ts for message in said)
    for version in all_versions(slack):
        assert fences_in(shown_in(version)) % 2 == 0
        assert len(shown_in(version)) <= 11_500
        assert len(version.text.encode()) <= 3_000
    assert not slack.rate_limited
    assert len(list(all_versions(slack))) > len(said)


# What Claude writes is untrusted


async def test_nothing_claude_writes_pings_or_deceives_in_any_version_of_any_message(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    claude.script(*[text("x" * pad + "\n" * bool(pad) + HOSTILE) for pad in range(8)])
    claude.add(Slow(tokens_per_s=120, times=8))

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        for ts in [ask(slack) for _ in range(8)]:
            await wait_for_answer(
                slack, slack.support.id, ts, holding="That was [all (evil.example)]"
            )

    versions = list(all_versions(slack))
    assert len(versions) > 8 * 4
    assert all_pings(slack) == []
    for version in versions:
        assert "<" not in shown_in(version) + version.text
        assert not re.search(r"!\[[^\]]*\]\(", shown_in(version))
        assert not re.search(r"\]: ?http", shown_in(version))
        assert not version.finds_names
        for link in links_in(without_code(version)):
            assert str(urlsplit(link.url).hostname) in link.label


def without_code(version: Version) -> Version:
    """The version without its fences, in which a link is shown as it is written."""
    shown = re.sub(r"(?ms)^```.*?^```", "", shown_in(version))
    return replace(version, blocks=[{"type": "markdown", "text": shown}])


async def test_an_order_id_of_the_customers_pings_nobody_when_claude_repeats_it(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack, "repeat: &lt;!channel&gt; &lt;@U0LOCAL0002&gt; @everyone")
        answer = await wait_for_answer(slack, slack.support.id, ts)

    assert shown_text(answer) == "&lt;!channel> &lt;@U0LOCAL0002> @everyone"
    assert all_pings(slack) == []


async def test_every_post_and_edit_parses_nothing_and_every_post_says_whose_it_is(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    words, count = build_long_answer(13_000)
    claude.script(text(words))
    claude.add(Slow(tokens_per_s=8_000))
    slack.faults.add(SlowCall(method="chat.update", seconds=0.03, times=1_000))

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack)
        await wait_for_words(slack, ts, f"n{count:04d}")

    said = answers(slack, slack.support.id, ts)
    posts, edits = calls_of(slack, "chat.postMessage"), calls_of(slack, "chat.update")
    assert edits
    for call in [*posts, *edits]:
        assert call.arguments["parse"] == "none"
        assert not call.arguments.get("link_names")
    for number, call in enumerate(posts):
        assert call.arguments["unfurl_links"] is call.arguments["unfurl_media"] is False
        metadata = call.arguments["metadata"]
        assert metadata["event_payload"] == {"turn": "1", "part": str(number), "asked": ts}
        assert said[number].metadata == metadata


# What is shown meanwhile


async def test_a_status_is_shown_in_the_thread_and_cleared_at_the_end(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack, "hello")
        await slack.wait_for(STATUS)
        meanwhile = slack.status_of(slack.support.id, ts)
        stalled.release.set()
        await wait_for_answer(slack, slack.support.id, ts)

    assert meanwhile == "is thinking…"
    assert slack.status_of(slack.support.id, ts) == ""
    assert not calls_of(slack, "reactions.add")


async def test_where_a_status_is_refused_the_question_gets_a_reaction_until_the_answer(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    slack.faults.add(Refused(method=STATUS, error="missing_scope", times=100))
    stalled = Stalled()
    claude.add(stalled)

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack, "hello")
        refused = await slack.wait_for(STATUS)
        added = await slack.wait_for("reactions.add")
        [question] = slack.messages(slack.support.id, ts)
        meanwhile = {name: list(users) for name, users in question.reactions.items()}
        stalled.release.set()
        await wait_for_answer(slack, slack.support.id, ts)
        await slack.wait_for("reactions.remove")

    assert meanwhile == {"eyes": [slack.bot_user_id]}
    assert question.reactions == {}
    assert 0.75 <= added.arrived_at - refused.arrived_at < 2
    assert len(calls_of(slack, STATUS)) == 1


async def test_at_the_top_level_of_a_dm_a_slow_answer_is_announced_by_a_reaction(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    stalled = Stalled()
    claude.add(stalled)
    dm = slack.open_dm(slack.jo.id).id

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = slack.say(slack.jo.id, dm, "hello")
        await slack.wait_for("reactions.add")
        stalled.release.set()
        await wait_for_answer(slack, dm, None)
        await slack.wait_for("reactions.remove")

    assert slack.messages(dm)[0].reactions == {}
    assert slack.status_of(dm, ts) == ""


async def test_a_quick_answer_in_a_dm_gets_no_reaction(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    dm = slack.open_dm(slack.jo.id).id

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        slack.say(slack.jo.id, dm, "where is ORD-1001?")
        await wait_for_answer(slack, dm, None, holding="RM493827651GB")

    assert not calls_of(slack, "reactions.add")
    assert slack.status_of(dm, slack.messages(dm)[0].ts) == ""


# When Slack will not have it


@pytest.mark.parametrize("error", ["invalid_blocks", "msg_blocks_too_long"])
async def test_refused_blocks_fall_back_to_text_which_is_complete(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, error: str
) -> None:
    words, count = build_long_answer(9_000)
    claude.script(text(words))
    for method in ("chat.postMessage", "chat.update"):
        slack.faults.add(Refused(method=method, error=error, times=100, where=has_blocks))

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack)
        await wait_for_words(slack, ts, f"n{count:04d}")

    said = answers(slack, slack.support.id, ts)
    assert all(not message.blocks for message in said)
    whole = "\n".join(message.text for message in said)
    assert [int(number) for number in re.findall(r"n(\d{4})", whole)] == list(range(1, count + 1))
    assert all_pings(slack) == []
    assert "<" not in whole


async def test_what_slack_refused_is_posted_otherwise_at_once_without_looking_for_it(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    claude.script(text(SHORT))
    refused = Refused(method="chat.postMessage", error="invalid_blocks", where=has_blocks)
    slack.faults.add(refused)

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        await wait_for_answer(slack, slack.support.id, ask(slack), holding=SHORT)

    assert not calls_of(slack, "conversations.replies")


async def test_blocks_refused_in_mid_answer_leave_a_complete_text(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    claude.script(text(ANSWER))
    stalled = Stalled(after_deltas=number_of_deltas(400))
    claude.add(stalled)

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack)
        await wait_for_answer(slack, slack.support.id, ts)
        slack.faults.add(
            Refused(method="chat.update", error="invalid_blocks", times=100, where=has_blocks)
        )
        stalled.release.set()
        answer = await wait_for_whole(slack, ts, ending=LAST_WORDS)

    assert answer.text == ANSWER
    assert answer.blocks == []


async def test_an_answer_somebody_deletes_in_the_middle_is_posted_once_more_and_whole(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    claude.script(text(ANSWER))
    stalled = Stalled(after_deltas=number_of_deltas(400))
    claude.add(stalled)

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack)
        first = await wait_for_answer(slack, slack.support.id, ts)
        slack.delete(slack.support.id, first.ts)
        stalled.release.set()
        answer = await wait_for_whole(slack, ts, ending=LAST_WORDS)

    assert shown_text(answer) == ANSWER
    assert answer.ts != first.ts
    assert len(calls_of(slack, "chat.postMessage")) == 2


async def test_an_answer_deleted_twice_is_let_go(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    claude.script(text(ANSWER), text(SHORT))
    stalled = Stalled(after_deltas=number_of_deltas(400))
    claude.add(stalled)
    refused = Refused(method="chat.update", error="message_not_found", times=100)

    async with running_bot(slack, claude, tmp_path / "shop.db"):
        ts = ask(slack)
        await wait_for_answer(slack, slack.support.id, ts)
        slack.faults.add(refused)
        stalled.release.set()
        await wait_for_answer(slack, slack.support.id, ts, count=2)
        slack.say(slack.alex.id, slack.support.id, "and Norway?", thread_ts=ts)
        await wait_for_words(slack, ts, SHORT)

    assert len(calls_of(slack, "chat.postMessage")) == 3


async def test_a_limit_on_edits_delays_an_answer_but_takes_nothing_of_it(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    claude.script(tool_call("get_order", order_id="ORD-1001"), text(ANSWER))
    claude.add(Slow(tokens_per_s=1_000, where=lambda body: len(body["messages"]) == 3))

    async with running_bot(slack, claude, tmp_path / "shop.db", SHOPMATE_PACER="on"):
        ts = ask(slack)
        await wait_for_answer(slack, slack.support.id, ts)
        answer = await wait_for_whole(slack, ts, ending=LAST_WORDS)

    assert shown_text(answer) == ANSWER
