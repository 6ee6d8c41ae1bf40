import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from slackbot.agent.loop import Agent, Limits, Outcome, Task
from slackbot.agent.tools.base import ToolContext
from slackbot.claude.client import Claude, open_claude
from slackbot.domain.answers import StepRestarted, TextDelta, ToolsStarted, TurnEvent
from slackbot.domain.conversation import ConversationKey
from slackbot.domain.rights import AllOrders, Rights
from slackbot.domain.turns import Ending, HistoryMessage, StepUsage
from slackbot.errors import (
    AnswerRefusedError,
    ClaudeInterruptedError,
    ClaudeTooLongError,
    ToolError,
    TooManyStepsError,
    TurnTimeoutError,
)
from slackbot.playground.claude_faults import Stalled, StreamError
from slackbot.playground.claude_mind import Reply, TextBlock, ToolUseBlock, text, tool_call
from slackbot.playground.claude_server import LocalClaude

SONNET = "claude-sonnet-4-6"
LIMITS = Limits(steps=3, max_tokens=100, tool_timeout_s=0.1, turn_timeout_s=2.0)
FIND, WAIT, FAIL, CRASH = (ToolUseBlock(name) for name in ("find", "wait", "fail", "crash"))


class ScriptedTool:
    """A tool that does what it is told."""

    def __init__(self, name: str, run: Callable[[ToolContext], Awaitable[str]]) -> None:
        self.name = name
        self.definition = {"name": name, "input_schema": {"type": "object", "properties": {}}}
        self.contexts: list[ToolContext] = []
        self.arguments: list[Mapping[str, Any]] = []
        self._run = run

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        self.arguments.append(arguments)
        self.contexts.append(context)
        return await self._run(context)


async def find(_: ToolContext) -> str:
    return "found"


async def wait(_: ToolContext) -> str:
    await asyncio.Event().wait()
    return "never"


async def fail(_: ToolContext) -> str:
    raise ToolError("There is no such order.")


async def crash(_: ToolContext) -> str:
    raise ZeroDivisionError("a secret of ours")


@pytest.fixture
async def client(claude: LocalClaude) -> AsyncIterator[Claude]:
    async with open_claude(api_key=claude.api_key, base_url=claude.url) as client:
        yield client


class Turn:
    """One turn, and everything that was heard of it."""

    def __init__(self, client: Claude, *tools: ScriptedTool, limits: Limits = LIMITS) -> None:
        usual = [
            ScriptedTool("find", find),
            ScriptedTool("wait", wait),
            ScriptedTool("fail", fail),
            ScriptedTool("crash", crash),
        ]
        self.agent = Agent(claude=client, tools=tools or usual, model=SONNET, limits=limits)
        self.events: list[TurnEvent] = []
        self.usage: list[StepUsage] = []

    async def run(self, past: tuple[HistoryMessage, ...] = ()) -> Outcome:
        task = Task(messages=[*past, QUESTION], ttl="5m", context_for=build_context)
        return await self.agent.run(task, emit=self.events.append, count=self.usage.append)

    @property
    def said(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))


QUESTION = HistoryMessage("user", [{"type": "text", "text": "Where is it?"}])


def build_context(index: int) -> ToolContext:
    async def fetch_rights() -> Rights:
        return AllOrders()

    return ToolContext(
        turn_id=1,
        use_index=index,
        conversation=ConversationKey("T1", "C1", "1.0"),
        asker="U1",
        asked_ts="1.0",
        fetch_rights=fetch_rights,
    )


def results(claude: LocalClaude) -> list[Mapping[str, Any]]:
    """The tool results that Claude was sent last."""
    content: list[Mapping[str, Any]] = claude.requests[-1].body["messages"][-1]["content"]
    return [block for block in content if block["type"] == "tool_result"]


def use_ids(claude: LocalClaude) -> list[str]:
    """The ids of the tool uses that these results are for."""
    content = claude.requests[-1].body["messages"][-2]["content"]
    return [block["id"] for block in content if block["type"] == "tool_use"]


async def test_an_answer_without_tools_is_one_step(claude: LocalClaude, client: Claude) -> None:
    claude.script(text("On Thursday."))
    turn = Turn(client)

    outcome = await turn.run()

    said = HistoryMessage("assistant", [{"type": "text", "text": "On Thursday."}])
    assert outcome == Outcome((said,), Ending.COMPLETE)
    assert turn.said == "On Thursday."
    assert len(turn.usage) == 1


async def test_tools_of_one_step_run_side_by_side_and_their_results_keep_the_order(
    claude: LocalClaude, client: Claude
) -> None:
    is_second_there = asyncio.Event()

    async def waits_for_the_second(_: ToolContext) -> str:
        await is_second_there.wait()
        return "first"

    async def comes_second(_: ToolContext) -> str:
        is_second_there.set()
        return "second"

    claude.script(Reply((ToolUseBlock("one"), ToolUseBlock("two"))), text("Both."))
    tools = ScriptedTool("one", waits_for_the_second), ScriptedTool("two", comes_second)
    turn = Turn(client, *tools)

    await turn.run()

    assert [result["content"] for result in results(claude)] == ["first", "second"]
    assert [result["tool_use_id"] for result in results(claude)] == use_ids(claude)
    assert ToolsStarted(("one", "two")) in turn.events


async def test_every_tool_use_has_its_result_whatever_becomes_of_the_tool(
    claude: LocalClaude, client: Claude
) -> None:
    unknown = ToolUseBlock("get_weather")
    claude.script(Reply((FIND, WAIT, FAIL, CRASH, unknown)), text("Well."))

    await Turn(client).run()

    found, *others = results(claude)
    assert found["content"] == "found"
    assert "is_error" not in found
    assert [other["content"] for other in others] == [
        "wait took too long.",
        "There is no such order.",
        "crash failed.",
        "There is no tool called get_weather.",
    ]
    assert all(other["is_error"] for other in others)
    assert [result["tool_use_id"] for result in results(claude)] == use_ids(claude)


async def test_a_tools_uses_are_counted_over_all_steps_of_the_turn(
    claude: LocalClaude, client: Claude
) -> None:
    tool = ScriptedTool("find", find)
    claude.script(Reply((FIND, FIND)), tool_call("find", order="x"), text("Done."))

    await Turn(client, tool).run()

    assert [context.use_index for context in tool.contexts] == [0, 1, 2]
    assert tool.arguments == [{}, {}, {"order": "x"}]


async def test_what_a_turn_leaves_can_be_sent_again(claude: LocalClaude, client: Claude) -> None:
    claude.script(Reply((TextBlock("Let me see."), FIND, FAIL)), text("Here."), text("As I said."))
    first = await Turn(client).run()

    second = await Turn(client).run((QUESTION, *first.messages))

    assert [message.role for message in first.messages] == ["assistant", "user", "assistant"]
    assert second.ending is Ending.COMPLETE
    assert all(request.error is None for request in claude.requests)


async def test_a_cut_tool_use_is_neither_run_nor_kept(claude: LocalClaude, client: Claude) -> None:
    tool = ScriptedTool("find", find)
    long = ToolUseBlock("find", {"order": "x" * 1_000})
    claude.script(Reply((TextBlock("I will look."), long)))

    outcome = await Turn(client, tool).run()

    said = HistoryMessage("assistant", [{"type": "text", "text": "I will look."}])
    assert outcome == Outcome((said,), Ending.TRUNCATED)
    assert tool.contexts == []


async def test_an_empty_end_leaves_no_empty_message(claude: LocalClaude, client: Claude) -> None:
    claude.script(Reply(()))

    outcome = await Turn(client).run()

    assert outcome == Outcome((), Ending.COMPLETE)


async def test_a_broken_step_is_begun_anew_once(claude: LocalClaude, client: Claude) -> None:
    claude.script(text("On Thursday."))
    claude.add(StreamError(after_deltas=1))
    turn = Turn(client)

    await turn.run()

    after = turn.events[turn.events.index(StepRestarted()) + 1 :]
    assert turn.events[0] == TextDelta("On T")
    assert "".join(event.text for event in after if isinstance(event, TextDelta)) == "On Thursday."
    assert len(claude.requests) == 2
    assert len(turn.usage) == 1


async def test_a_step_that_breaks_twice_is_given_up(claude: LocalClaude, client: Claude) -> None:
    claude.script(text("On Thursday."))
    claude.add(StreamError(after_deltas=1, times=2))
    turn = Turn(client)

    with pytest.raises(ClaudeInterruptedError):
        await turn.run()

    assert turn.events.count(StepRestarted()) == 1
    assert len(claude.requests) == 2


async def test_each_step_of_a_turn_may_break_once(claude: LocalClaude, client: Claude) -> None:
    claude.script(tool_call("find"), text("On Thursday."))
    claude.add(StreamError(where=lambda body: ends_with(body, "text")))
    claude.add(StreamError(where=lambda body: ends_with(body, "tool_result")))
    turn = Turn(client)

    outcome = await turn.run()

    assert outcome.ending is Ending.COMPLETE
    assert turn.events.count(StepRestarted()) == 2


def ends_with(body: Mapping[str, Any], kind: str) -> bool:
    return bool(body["messages"][-1]["content"][0]["type"] == kind)


async def test_tools_without_end_are_ended(claude: LocalClaude, client: Claude) -> None:
    claude.script(*[tool_call("find")] * 4)
    turn = Turn(client)

    with pytest.raises(TooManyStepsError):
        await turn.run()

    assert len(claude.requests) == len(turn.usage) == LIMITS.steps


async def test_a_turn_that_takes_too_long_is_ended_and_hangs_up(
    claude: LocalClaude, client: Claude
) -> None:
    claude.add(Stalled(after_deltas=1))
    claude.script(text("On Thursday."))

    with pytest.raises(TurnTimeoutError):
        await Turn(client, limits=Limits(turn_timeout_s=0.2)).run()

    async with asyncio.timeout(2):
        await claude.wait_for_request(lambda request: request.aborted)


async def test_a_refusal_leaves_nothing(claude: LocalClaude, client: Claude) -> None:
    claude.script(Reply((TextBlock("I could"),), "refusal"))
    turn = Turn(client)

    with pytest.raises(AnswerRefusedError):
        await turn.run()

    assert len(turn.usage) == 1


@pytest.mark.parametrize("said", ["", "Half an answer"])
async def test_a_full_context_window_cuts_the_answer_or_says_so(
    claude: LocalClaude, client: Claude, said: str
) -> None:
    blocks = (TextBlock(said),) if said else ()
    claude.script(Reply(blocks, "model_context_window_exceeded"))
    turn = Turn(client)

    if said:
        assert (await turn.run()).ending is Ending.TRUNCATED
    else:
        with pytest.raises(ClaudeTooLongError):
            await turn.run()
