"""The tool loop: Claude, tools, Claude …, until the answer is complete."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from slackbot.agent.history import CacheTtl, cache_control, mark_cache
from slackbot.agent.prompts import SYSTEM_PROMPT
from slackbot.agent.tools.base import Tool, ToolContext
from slackbot.claude.client import Claude, Step, StepRequest
from slackbot.domain.answers import StepRestarted, TextDelta, ToolsStarted, TurnEvent
from slackbot.domain.turns import ContentBlock, Ending, HistoryMessage, StepUsage
from slackbot.errors import (
    AnswerRefusedError,
    ClaudeInterruptedError,
    ClaudeTooLongError,
    ToolError,
    TooManyStepsError,
    TurnTimeoutError,
)

log = logging.getLogger(__name__)

EFFORT = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a turn may take: steps, tokens of each step, seconds of each tool and in all."""

    steps: int = 8
    max_tokens: int = 8_192
    tool_timeout_s: float = 10.0
    turn_timeout_s: float = 180.0


USUAL_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a turn begins with. The last of `messages` is what people say now."""

    messages: Sequence[HistoryMessage]
    ttl: CacheTtl | None
    context_for: Callable[[int], ToolContext]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn adds to the history, and how it ended: complete or truncated."""

    messages: tuple[HistoryMessage, ...]
    ending: Ending


class Agent:
    """Claude with tools. `emit` hears what happens at once, `count` what each request cost."""

    def __init__(
        self,
        *,
        claude: Claude,
        tools: Sequence[Tool],
        model: str,
        limits: Limits = USUAL_LIMITS,
    ) -> None:
        self._claude = claude
        self._tools = {tool.name: tool for tool in tools}
        self._model = model
        self._limits = limits

    async def run(
        self,
        task: Task,
        *,
        emit: Callable[[TurnEvent], None],
        count: Callable[[StepUsage], None],
    ) -> Outcome:
        """The outcome of the turn; its text went to `emit` piece by piece.

        Raises:
            ClaudeError: Claude gave no usable answer.
            AnswerError: it answered, but there is nothing to show.
        """
        try:
            async with asyncio.timeout(self._limits.turn_timeout_s):
                return await self._run_steps(task, emit, count)
        except TimeoutError as error:
            raise TurnTimeoutError(f"no answer in {self._limits.turn_timeout_s:g} s") from error

    async def _run_steps(
        self, task: Task, emit: Callable[[TurnEvent], None], count: Callable[[StepUsage], None]
    ) -> Outcome:
        turn_begins = len(task.messages) - 1
        messages = list(task.messages)
        uses: Counter[str] = Counter()
        for _ in range(self._limits.steps):
            told = mark_cache(messages, turn_begins=turn_begins, ttl=task.ttl)
            step = await self._run_step(self._build_request(told, task.ttl), emit)
            count(step.usage)
            match step.stop_reason:
                case "tool_use" if step.tool_uses:
                    emit(ToolsStarted(tuple(use["name"] for use in step.tool_uses)))
                    messages.append(HistoryMessage("assistant", step.content))
                    results = await self._run_tools(step.tool_uses, uses, task.context_for)
                    messages.append(HistoryMessage("user", results))
                case "pause_turn":
                    messages.append(HistoryMessage("assistant", step.content))
                case "refusal":
                    raise AnswerRefusedError("Claude declined to answer")
                case _:
                    return _finish(step, messages[turn_begins + 1 :])
        raise TooManyStepsError(f"no answer after {self._limits.steps} steps")

    def _build_request(self, messages: Sequence[ContentBlock], ttl: CacheTtl | None) -> StepRequest:
        # Everybody's turns share this prefix: it is worth five minutes at least.
        control = cache_control(ttl or "5m")
        return StepRequest(
            model=self._model,
            effort=EFFORT,
            max_tokens=self._limits.max_tokens,
            system=[{"type": "text", "text": SYSTEM_PROMPT, "cache_control": control}],
            tools=[tool.definition for tool in self._tools.values()],
            messages=messages,
        )

    async def _run_step(self, request: StepRequest, emit: Callable[[TurnEvent], None]) -> Step:
        try:
            return await self._stream(request, emit)
        except ClaudeInterruptedError as error:
            log.warning("step.restarted", extra={"reason": error.reason})
            emit(StepRestarted())
            return await self._stream(request, emit)

    async def _stream(self, request: StepRequest, emit: Callable[[TurnEvent], None]) -> Step:
        async with aclosing(self._claude.stream_step(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Step):
                    return piece
                emit(TextDelta(piece))
        raise ClaudeInterruptedError("the stream ended without a step")

    async def _run_tools(
        self,
        tool_uses: Sequence[ContentBlock],
        uses: Counter[str],
        context_for: Callable[[int], ToolContext],
    ) -> list[ContentBlock]:
        results: dict[str, ContentBlock] = {}

        async def run(tool_use: ContentBlock, context: ToolContext) -> None:
            results[tool_use["id"]] = await self._run_tool(tool_use, context)

        async with asyncio.TaskGroup() as group:
            for tool_use in tool_uses:
                name = tool_use["name"]
                group.create_task(run(tool_use, context_for(uses[name])), name=f"tool {name}")
                uses[name] += 1
        return [results[tool_use["id"]] for tool_use in tool_uses]

    async def _run_tool(self, tool_use: ContentBlock, context: ToolContext) -> ContentBlock:
        name = tool_use["name"]
        tool = self._tools.get(name)
        if tool is None:
            return _build_result(tool_use, f"There is no tool called {name}.", is_error=True)
        try:
            async with asyncio.timeout(self._limits.tool_timeout_s):
                said = await tool.run(_parse_arguments(tool_use), context)
        except ToolError as error:
            return _build_result(tool_use, str(error), is_error=True)
        except TimeoutError:
            log.warning("tool.timed_out", extra={"tool": name})
            return _build_result(tool_use, f"{name} took too long.", is_error=True)
        except Exception:  # a bug: ours to read, not Claude's
            log.exception("tool.failed", extra={"tool": name})
            return _build_result(tool_use, f"{name} failed.", is_error=True)
        return _build_result(tool_use, said, is_error=False)


def _finish(step: Step, messages: Sequence[HistoryMessage]) -> Outcome:
    is_complete = step.stop_reason not in {"max_tokens", "model_context_window_exceeded"}
    if step.stop_reason == "model_context_window_exceeded" and not step.text.strip():
        raise ClaudeTooLongError("the context window is full", request_id=step.request_id)
    # A tool use that nothing answers must not come back to the API.
    said = [block for block in step.content if block["type"] != "tool_use"]
    last = [HistoryMessage("assistant", said)] if step.text.strip() else []
    ending = Ending.COMPLETE if is_complete else Ending.TRUNCATED
    return Outcome((*messages, *last), ending)


def _parse_arguments(tool_use: ContentBlock) -> Mapping[str, Any]:
    arguments = tool_use.get("input")
    return arguments if isinstance(arguments, Mapping) else {}


def _build_result(tool_use: ContentBlock, said: str, *, is_error: bool) -> ContentBlock:
    result = {"type": "tool_result", "tool_use_id": tool_use["id"], "content": said}
    return {**result, "is_error": True} if is_error else result
