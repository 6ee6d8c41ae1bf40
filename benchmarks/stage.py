"""A bot as a process of its own, on a core of its own, between the two local servers.

The servers and whoever measures live in this process, on another core. All times are seconds of
`time.monotonic()`: the local Slack is given it as its clock, moved to today.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.questions import Question, answer, find_question
from slackbot.playground.bot_process import RUN, bot_environment, start_bot
from slackbot.playground.claude_server import ClaudeRequest, LocalClaude, open_local_claude
from slackbot.playground.slack_limits import SlackLimits
from slackbot.playground.slack_server import LocalSlack, open_local_slack
from slackbot.playground.slack_workspace import SlackMessage, Version

STARTING_TIME_S = 90.0  # several bots start at once, on one core
ANSWER_TIME_S = 120.0
ANSWER_CHARS = 400
KNOWN_ORDER_ID = "ORD-1001"  # a fresh database has it
EPOCH = time.time() - time.monotonic()


class Size(StrEnum):
    """How much is measured: everything, less, or just enough to see that it works."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How fast Slack and Claude are, and what Slack allows."""

    latency_s: float = 0.06
    first_token_s: float = 0.3
    tokens_per_s: float | None = 60.0
    limits: SlackLimits = field(default_factory=SlackLimits)

    def token_s(self, tokens: int) -> float:
        """Seconds from a request to its `tokens`-th token."""
        return self.first_token_s + ((tokens - 1) / self.tokens_per_s if self.tokens_per_s else 0.0)


REAL = World()
REAL_SETUP = "Slack 60 ms a call; Claude 300 ms, 60 tokens/s"
INSTANT = World(latency_s=0.0, first_token_s=0.0, tokens_per_s=None, limits=SlackLimits.none())
INSTANT_SETUP = "instant servers without limits"


@dataclass(frozen=True, slots=True)
class Bench:
    """How to measure. `bot_core` is the bot's own core, None where there is none to spare."""

    size: Size
    bot_core: int | None = None

    def choose(self, *, full: int, quick: int, tiny: int) -> int:
        """A count for the size of this run."""
        return {Size.FULL: full, Size.QUICK: quick, Size.TINY: tiny}[self.size]

    @property
    def real_world(self) -> World:
        """Slack and Claude as fast as they are; not to be waited for in a tiny run."""
        return INSTANT if self.size is Size.TINY else REAL

    @property
    def reading_s(self) -> float:
        """How long somebody reads an answer before asking on."""
        return 0.0 if self.size is Size.TINY else 1.0


@dataclass(slots=True, eq=False)
class Asked:
    """A question that was asked; `done` once its right answer was in Slack."""

    question: Question
    channel: str
    thread_ts: str
    ts: str
    asked_at: float
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Verdict(StrEnum):
    """What became of a question in the end."""

    RIGHT = "right"
    MISSING = "missing"
    UNFINISHED = "unfinished"
    DOUBLE = "double"
    WRONG = "wrong"


class Stage:
    """The running bot, and who asks it."""

    def __init__(self, slack: LocalSlack, claude: LocalClaude, bot: psutil.Process) -> None:
        self.slack = slack
        self.claude = claude
        self.bot = bot
        self.asked: list[Asked] = []
        self._numbers = count(1)
        self._latest: dict[str, Asked] = {}  # by thread
        self._threads: dict[str, str] = {}  # of the bot's messages, by ts
        self._seen = 0

    def add_channels(self, channels: int) -> list[str]:
        """The ids of new channels with Alex, Sam and the bot."""
        members = (self.slack.alex.id, self.slack.sam.id, self.slack.bot_user_id)
        return [
            self.slack.add_channel(f"bench-{number}", members=members).id
            for number in range(channels)
        ]

    def ask(
        self,
        channel: str,
        *,
        thread_ts: str | None = None,
        user: str | None = None,
        chars: int = ANSWER_CHARS,
        order_id: str | None = None,
    ) -> Asked:
        """Somebody, by default Alex, mentions the bot with a new question."""
        question = Question(next(self._numbers), chars, order_id)
        said = f"<@{self.slack.bot_user_id}> {question.text}"
        asked_at = time.monotonic()
        ts = self.slack.say(user or self.slack.alex.id, channel, said, thread_ts=thread_ts)
        asked = Asked(question, channel, thread_ts or ts, ts, asked_at)
        self.asked.append(asked)
        self._latest[asked.thread_ts] = asked
        return asked

    async def wait(self, *asked: Asked) -> None:
        """Returns once all of them were answered.

        Raises:
            TimeoutError: one was not, for a long time.
        """
        async with asyncio.timeout(ANSWER_TIME_S):
            for one in asked:
                await one.done.wait()

    async def try_to_wait(self, *asked: Asked) -> None:
        """Returns once all of them were answered, or after a long time; verdicts tell."""
        with suppress(TimeoutError):
            await self.wait(*asked)

    async def ask_many(
        self, ask: Callable[[int], Asked], *, questions: int, at_once: int
    ) -> list[Asked]:
        """Has `ask` called `questions` times, the next whenever one of `at_once` was answered."""
        asked: list[Asked] = []

        async def go_on() -> None:
            while len(asked) < questions:
                asked.append(ask(len(asked)))
                await self.wait(asked[-1])

        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(go_on(), name=f"asker {number}")
        return asked

    async def watch(self) -> None:
        """Notices answers, for as long as it runs."""
        await self.slack.wait_until(self._look)

    def _look(self) -> bool:
        calls = self.slack.calls
        while self._seen < len(calls):
            call = calls[self._seen]
            self._seen += 1
            if call.error or call.ts is None:
                continue
            if call.method == "chat.postMessage":
                self._threads[call.ts] = str(call.arguments.get("thread_ts", ""))
            asked = self._latest.get(self._threads.get(call.ts, ""))
            if asked and self.verdict(asked) is Verdict.RIGHT:
                asked.done.set()
        return False

    def answers(self, asked: Asked) -> list[SlackMessage]:
        """What the bot has said to it, oldest first."""
        thread = self.slack.messages(asked.channel, asked.thread_ts)
        said: list[SlackMessage] = []
        for message in thread:
            if message.ts > asked.ts:
                if message.user != self.slack.bot_user_id:
                    break
                said.append(message)
        return said

    def verdict(self, asked: Asked) -> Verdict:
        """What has become of it by now."""
        said = self.answers(asked)
        wanted = asked.question.answer
        if not said:
            return Verdict.MISSING
        if len(said) > 1:
            return Verdict.DOUBLE
        shown = shown_text(said[0])
        if shown == wanted:
            return Verdict.RIGHT
        begins_right = wanted.startswith(shown.rstrip("…. "))
        return Verdict.UNFINISHED if begins_right else Verdict.WRONG

    def requests(self, asked: Asked) -> list[ClaudeRequest]:
        """What Claude was asked for it, in order."""
        return [
            request
            for request in self.claude.requests
            if find_question(request.body["messages"]) == asked.question
        ]

    def first_words_at(self, asked: Asked) -> float:
        """When people first saw something of the answer."""
        return self._shown_at(asked, lambda shown: shown.startswith(asked.question.opening))

    def whole_at(self, asked: Asked) -> float:
        """When people first saw all of the answer."""
        return self._shown_at(asked, lambda shown: shown == asked.question.answer)

    def _shown_at(self, asked: Asked, fits: Callable[[str], bool]) -> float:
        versions = [version for message in self.answers(asked) for version in message.versions]
        times = (version.shown_at for version in versions if fits(shown_text(version)))
        return min(times) - EPOCH

    def cpu_s(self) -> float:
        """The CPU seconds the bot has used."""
        times = self.bot.cpu_times()
        return float(times.user + times.system)

    def rss_mb(self) -> float:
        """The bot's resident memory."""
        return float(self.bot.memory_info().rss) / 1_000_000


def shown_text(shown: SlackMessage | Version) -> str:
    """What a person reads."""
    return str(shown.blocks[0]["text"]) if shown.blocks else shown.text


@asynccontextmanager
async def open_stage(
    bench: Bench,
    world: World,
    *,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] = RUN,
    database: Path | None = None,
) -> AsyncIterator[Stage]:
    """A stage whose bot is connected; `variables` are more of the bot's environment.

    Raises:
        RuntimeError: the bot did not start.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="shopmate-bench-")))
        slack = await stack.enter_async_context(
            open_local_slack(
                limits=world.limits,
                latency_s=world.latency_s,
                clock=lambda: EPOCH + time.monotonic(),
            )
        )
        claude = await stack.enter_async_context(
            open_local_claude(
                first_token_s=world.first_token_s, tokens_per_s=world.tokens_per_s, mind=answer
            )
        )
        environ = bot_environment(slack, claude, database or folder / "bench.db")
        environ |= variables or {}
        bot = await stack.enter_async_context(start_bot(environ, folder=folder, command=command))
        if bench.bot_core is not None:
            # It has but one thread by now; those to come inherit the core.
            os.sched_setaffinity(bot.pid, {bench.bot_core})
        async with asyncio.timeout(STARTING_TIME_S):
            if await bot.wait_for("socket.connected") is None:
                raise RuntimeError("\n".join(["the bot did not start", *bot.noise[-20:]]))
        stage = Stage(slack, claude, psutil.Process(bot.pid))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        watching = group.create_task(stage.watch(), name="watch of the stage")
        stack.callback(watching.cancel)
        yield stage


async def get_to_know(stage: Stage, channel: str) -> Asked:
    """Alex and Sam ask once each, so that the bot knows them; Alex's answered question."""
    asked = [
        stage.ask(channel, user=user, chars=60)
        for user in (stage.slack.alex.id, stage.slack.sam.id)
    ]
    await stage.wait(*asked)
    return asked[0]


def split_cores() -> int | None:
    """Keeps this process to one core; another core for the bots, or None."""
    if sys.platform != "linux":
        return None
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, {cores[0]})
    return cores[-1]
