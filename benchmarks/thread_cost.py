"""What a thread of 300 turns costs, with the clock in our hands.

Assistant, agent, store and the real client run in this process against the local Claude, whose
prompt cache lives by the same clock. Slack is not asked anything.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.questions import Question, answer
from benchmarks.report import Figure, at_most
from benchmarks.stage import KNOWN_ORDER_ID, Bench
from slackbot.agent.loop import Agent
from slackbot.agent.tools.orders import GetOrder
from slackbot.assistant import Assistant
from slackbot.claude.client import open_claude
from slackbot.claude.models import MTOK, find_model
from slackbot.domain.conversation import ChannelKind, ConversationKey, Place
from slackbot.domain.messages import HeardMessage
from slackbot.domain.people import Person
from slackbot.domain.turns import Turn
from slackbot.playground.claude_server import open_local_claude
from slackbot.settings import Settings
from slackbot.store.sqlite import SqliteStore, open_sqlite_store
from slackbot.turns import Control

BEGIN_AT = datetime(2026, 11, 2, 9, tzinfo=UTC)
GAPS = (
    ("30 s", timedelta(seconds=30), 0.35),
    ("10 minutes", timedelta(minutes=10), 0.6),
    ("3 hours", timedelta(hours=3), 1.1),
)
TEAM, CHANNEL, PERSON = "T0BENCH", "C0BENCH", "U0BENCH"
PLACE = Place(ChannelKind.CHANNEL, is_shared=False)
FILLER = "It is about the order that I told you of, and the parcel shop on the corner. "


class Clock:
    """A time that passes when it is told to."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        """What time it is."""
        return self.at

    def timestamp(self) -> float:
        """The same in seconds."""
        return self.at.timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a thread has cost, in US dollars. `uncached_usd` is the same without any caching."""

    most_input_tokens: int
    cost_usd: float
    uncached_usd: float


async def run(bench: Bench) -> list[Figure]:
    """The largest request of a long thread, and what caching does for its price."""
    turns = bench.choose(full=300, quick=100, tiny=6)
    budget_tokens = Settings().history_tokens
    figures = []
    for name, gap, wanted in GAPS:
        bill = await measure_thread(turns=turns, gap=gap, budget_tokens=budget_tokens)
        setup = f"{turns} turns {name} apart, 400 to 800 characters, every fourth with a tool call"
        figures += [
            at_most(
                budget_tokens,
                "tokens",
                name=f"{name} apart: the largest request",
                setup=setup,
                value=bill.most_input_tokens,
            ),
            at_most(
                wanted,
                "x",
                name=f"{name} apart: cost ÷ cost without caching",
                setup=setup,
                value=bill.cost_usd / bill.uncached_usd,
                details=f"${bill.cost_usd:.2f}",
                against=f"without caching ${bill.uncached_usd:.2f}",
            ),
        ]
    return figures


async def measure_thread(*, turns: int, gap: timedelta, budget_tokens: int) -> Bill:
    """The bill of a thread with so many turns, so far apart."""
    clock = Clock(BEGIN_AT)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="shopmate-bench-")))
        store = await stack.enter_async_context(
            open_sqlite_store(folder / "bench.db", now=clock.now)
        )
        server = await stack.enter_async_context(
            open_local_claude(clock=clock.timestamp, mind=answer)
        )
        claude = await stack.enter_async_context(
            open_claude(api_key=server.api_key, base_url=server.url)
        )
        agent = Agent(claude=claude, tools=[GetOrder(store)], model=Settings().chat_model)
        replies = _Unseen()
        assistant = _build_assistant(store, agent, replies, clock, budget_tokens)
        thread_ts = None
        for turn in range(turns):
            question = _question(turn)
            key = await _hear(store, clock, question, thread_ts)
            await assistant.run_turn(key, Control())
            if replies.said != question.answer:
                raise ValueError(f"turn {turn} was answered {replies.said!r}")
            thread_ts = key.thread_ts
            clock.at += gap
        return _read_bill(folder / "bench.db")


def _question(turn: int) -> Question:
    return Question(turn + 1, 400 + turn * 37 % 401, KNOWN_ORDER_ID if turn % 4 == 0 else None)


async def _hear(
    store: SqliteStore, clock: Clock, question: Question, thread_ts: str | None
) -> ConversationKey:
    heard = HeardMessage(
        team=TEAM,
        channel=CHANNEL,
        ts=f"{clock.timestamp():.6f}",
        thread_ts=thread_ts,
        author=PERSON,
        author_team=TEAM,
        place=PLACE,
        text=f"{question.text} {FILLER * (question.number % 3)}".strip(),
        mentions_shopmate=True,
    )
    recorded = await store.record_message(heard)
    if recorded.conversation is None:
        raise ValueError(f"question {question.number} was not recorded")
    return recorded.conversation


def _read_bill(path: Path) -> Bill:
    """The bill by the table `usage`, which is there for people to query."""
    model = find_model(Settings().chat_model)
    columns = "input_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cache_read_tokens"
    db = sqlite3.connect(path)
    rows = db.execute(f"select {columns}, output_tokens, cost_usd from usage").fetchall()
    db.close()
    inputs = [sum(row[:4]) for row in rows]
    outputs = sum(row[4] for row in rows)
    uncached = sum(inputs) * model.input_price + outputs * model.output_price
    return Bill(
        most_input_tokens=max(inputs),
        cost_usd=sum(row[5] for row in rows),
        uncached_usd=uncached / MTOK,
    )


def _build_assistant(
    store: SqliteStore, agent: Agent, replies: "_Unseen", clock: Clock, budget_tokens: int
) -> Assistant:
    return Assistant(
        log_of_turns=store,
        agent=agent,
        replies=replies,
        people=_OnePerson(),
        threads=_NoThreads(),
        trusted_teams=(),
        history_tokens=budget_tokens,
        now=clock.now,
        sleep=asyncio.sleep,
    )


class _Unseen:
    """Replies that nobody sees: only the text of the last one is kept."""

    def __init__(self) -> None:
        self.said = ""
        self.is_posted = False

    @asynccontextmanager
    async def open_reply(self, turn: Turn) -> AsyncIterator["_Unseen"]:
        """This; it is the answer of every turn."""
        self.said = ""
        yield self

    def grow(self, text: str) -> None:
        """Shows nothing."""

    async def stop_growing(self) -> None:
        """Nothing grows."""

    def set_status(self, status: str) -> None:
        """Shows nothing."""

    async def deliver(self, text: str) -> None:
        """Keeps the text."""
        self.said = text

    async def postpone(self, note: str) -> None:
        """Shows nothing."""


class _OnePerson:
    async def fetch_people(
        self, user_ids: Collection[str], *, fresh: bool = False
    ) -> Mapping[str, Person | None]:
        """A full member, whoever is asked for."""
        return {user: _member(user) for user in user_ids}


def _member(user: str) -> Person:
    return Person(
        id=user, name="Alex Morgan", team=TEAM, is_member=True, is_guest=False, email=None
    )


class _NoThreads:
    async def fetch_thread(self, key: ConversationKey, place: Place) -> Sequence[HeardMessage]:
        """Nothing was said before."""
        return []
