"""Bots that are killed: processes that start at once, and what must be true after them."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from slackbot.playground.bot_process import MAX_LINE_BYTES, bot_environment
from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_mind import TextBlock, answer
from slackbot.playground.claude_rules import check_message_request
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_calls import Watchers
from slackbot.playground.slack_server import LocalSlack
from slackbot.slack.markdown import finished, split
from slackbot.store.rows import to_time
from slackbot.store.sqlite import utc_now
from tests.scenarios.harness import answers, shown_text

ENTRY = Path(__file__).with_name("crash_entry.py")
LIFETIME_S = 25.0
API_VERSION = "2026-10-21"


class Life:
    """One process of the bot, from its start to its end. `lines` are what it has logged."""

    def __init__(self) -> None:
        self._watchers = Watchers()
        self._has_ended = False
        self.lines: list[Mapping[str, Any]] = []
        self.noise: list[str] = []

    async def follow(self, log: asyncio.StreamReader) -> None:
        """Reads what the bot logs, until it ends."""
        try:
            async for raw in log:
                text = raw.decode(errors="replace").rstrip()
                try:
                    self.lines.append(json.loads(text))
                except ValueError:
                    self.noise.append(text)
                self._watchers.look()
        finally:
            self._has_ended = True
            self._watchers.look()

    async def wait_for(self, event: str) -> Mapping[str, Any] | None:
        """The first log line of `event`; None if the process ended without it."""
        await self._watchers.wait_until(lambda: self._has_ended or self._find(event) is not None)
        return self._find(event)

    async def end(self) -> None:
        """Returns once the process is no more."""
        await self._watchers.wait_until(lambda: self._has_ended)

    @property
    def pid(self) -> int:
        """The process's id, once it has started."""
        return int(self.lines[0]["pid"])

    async def kill(self) -> None:
        """Ends it as a power cut would."""
        await self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Asks it to stop, as an operator would; what it does is finished then."""
        await self._signal(signal.SIGTERM)

    async def _signal(self, number: signal.Signals) -> None:
        await self.wait_for("process.started")
        if not self._has_ended:
            os.kill(self.pid, number)
        await self.end()

    def _find(self, event: str) -> Mapping[str, Any] | None:
        return next((line for line in self.lines if line["event"] == event), None)


@contextmanager
def running_nursery() -> Iterator[int]:
    """The port at which `crash_entry.py` starts bots."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        subprocess.Popen(
            [sys.executable, ENTRY, str(listening.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        ),
    ):
        yield int(listening.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a question is asked, and which Slack message of its answer a test is about."""

    is_dm: bool
    part: str = "0"

    @property
    def is_long(self) -> bool:
        """Whether the answer is more than one Slack message takes."""
        return self.part != "0"

    @property
    def posts(self) -> int:
        """How many Slack messages there are once this one is there."""
        return int(self.part) + 1

    @property
    def deltas(self) -> int:
        """How many deltas it takes until this message is there, but unfinished."""
        return 3_000 if self.is_long else 50

    def __str__(self) -> str:
        place = "dm" if self.is_dm else "thread"
        return f"{place}-continuation" if self.is_long else place


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that was asked, and the Slack messages of its one complete answer."""

    channel: str
    ts: str
    thread_ts: str | None
    said: str
    parts: Sequence[str]

    def prefixed(self, opening: str) -> "Question":
        """The question whose answer begins with `opening`."""
        return replace(self, parts=split_answer(opening + answer_to(self.said)))


def answer_to(text: str) -> str:
    """What the local Claude says to `text` when no tool is needed."""
    reply = answer({"messages": [{"role": "user", "content": text}]})
    return "".join(block.text for block in reply.blocks if isinstance(block, TextBlock))


def split_answer(text: str) -> list[str]:
    """The Slack messages that show `text` when it is complete."""
    return [finished(part) for part in split(text)]


class Stage:
    """The two servers, a database, and the lives of the bot between them."""

    def __init__(
        self, slack: LocalSlack, claude: LocalClaude, *, folder: Path, nursery: int
    ) -> None:
        self.slack = slack
        self.claude = claude
        self.database = folder / "shop.db"
        self._nursery = nursery

    @asynccontextmanager
    async def life(self, **variables: str) -> AsyncIterator[Life]:
        """A bot, connected unless it crashed before; killed, if it still runs, at the end."""
        life = Life()
        variables = {"SHOPMATE_PACER": "off", "SHOPMATE_DRAIN_S": "10", **variables}
        environ = bot_environment(self.slack, self.claude, self.database, **variables)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._nursery, limit=MAX_LINE_BYTES
        )
        writer.write(json.dumps(environ).encode() + b"\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(life.follow(reader), name="log of the bot")
            try:
                async with asyncio.timeout(LIFETIME_S):
                    await life.wait_for("socket.connected")
                    yield life
            finally:
                await life.kill()
                writer.close()

    def ask(self, place: Place, text: str = "", *, parts: Sequence[str] = ()) -> Question:
        """Says `text`, by default what makes an answer of the right length."""
        text = text or ("write 2,500 words" if place.is_long else "write 60 words")
        parts = parts or split_answer(answer_to(text))
        slack = self.slack
        if place.is_dm:
            channel = slack.open_dm(slack.alex.id).id
            ts = slack.say(slack.alex.id, channel, text)
            return Question(channel=channel, ts=ts, thread_ts=None, said=text, parts=parts)
        channel = slack.support.id
        ts = slack.say(slack.alex.id, channel, f"<@{slack.bot_user_id}> {text}")
        return Question(channel=channel, ts=ts, thread_ts=ts, said=text, parts=parts)

    async def wait_until_growing(self, place: Place, question: Question) -> None:
        """Returns when the place's message is visible, unfinished."""
        await self.slack.wait_until(lambda: len(self.shown(question)) >= place.posts)

    async def wait_until_answered(self, question: Question) -> None:
        """Returns when the one complete answer is visible."""
        await self.slack.wait_until(lambda: self.shown(question) == question.parts)

    def stall(self, place: Place, *, times: int = 1) -> Stalled:
        """Claude falls silent once the place's message is there, but unfinished."""
        stalled = Stalled(after_deltas=place.deltas, times=times)
        self.claude.add(stalled)
        return stalled

    def turn_back_clocks(self, *, hours: int) -> None:
        """Makes everything that was heard so far that much older."""
        heard_at = to_time(utc_now() - timedelta(hours=hours))
        with closing(sqlite3.connect(self.database)) as db, db:
            db.execute("update messages set heard_at = ?", (heard_at,))
            db.execute("update turns set heard_at = ?", (heard_at,))

    def forget_attempts(self) -> None:
        """Makes every turn as fresh as if it had begun only now."""
        with closing(sqlite3.connect(self.database)) as db, db:
            db.execute("update turns set attempts = 1")

    async def finish(self, *questions: Question, posts: int | None = None) -> None:
        """Starts the bot normally, and lets it finish; then all is well.

        `posts` are the messages that were posted for all of it, where some were deleted again.
        """
        self.claude.clear()
        async with self.life() as life:
            for question in questions:
                await self.wait_until_answered(question)
            await life.stop()
        assert [line for line in life.lines if line.get("level") == "ERROR"] == []
        assert life.noise == []
        self.check(*questions, posts=posts)

    def check(self, *questions: Question, posts: int | None = None) -> None:
        """Every question has one complete answer, was never posted twice, and nothing is left."""
        for question in questions:
            assert self.shown(question) == question.parts
            assert self._find(question).reactions == {}
            assert self.slack.status_of(question.channel, question.ts) == ""
        posted = [m for m in self.slack.all_messages if m.user == self.slack.bot_user_id]
        visible = sorted(m.ts for m in posted if not m.is_deleted)
        assert len(posted) == (posts or len(visible))
        self._check_database(questions, visible)

    def _check_database(self, questions: Sequence[Question], visible: Sequence[str]) -> None:
        with closing(sqlite3.connect(self.database)) as db:
            kept = db.execute("select ts from messages where kind = 'question' order by ts")
            assert kept.fetchall() == sorted((question.ts,) for question in questions)
            assert db.execute("select * from messages where turn_id is null").fetchall() == []
            assert db.execute("select distinct state from turns").fetchall() == [("done",)]
            assert db.execute("select * from turns where has_reaction").fetchall() == []
            kept = db.execute("select ts from posts order by ts")
            assert kept.fetchall() == [(ts,) for ts in visible]
            for (conversation,) in db.execute("select id from conversations").fetchall():
                _check_history(db, conversation)

    def shown(self, question: Question) -> list[str]:
        """What people read of ShopMate where the question was asked, message by message."""
        return [
            shown_text(message)
            for message in answers(self.slack, question.channel, question.thread_ts)
        ]

    def _find(self, question: Question) -> Any:
        messages = self.slack.messages(question.channel)
        return next(message for message in messages if message.ts == question.ts)


def _check_history(db: sqlite3.Connection, conversation: int) -> None:
    """What Claude would be told next is a valid request, and holds every message once."""
    rows = db.execute(
        "select role, content from history join turns on turns.id = turn_id"
        " where conversation_id = ? order by number, position",
        (conversation,),
    ).fetchall()
    history = [{"role": role, "content": json.loads(content)} for role, content in rows]
    goes_on = [*history, {"role": "user", "content": "and then?"}]
    body = {"model": "claude-sonnet-4-6", "max_tokens": 1, "messages": goes_on}
    check_message_request(body, version=API_VERSION)
    told = [
        block["text"]
        for message in history
        if message["role"] == "user"
        for block in message["content"]
        if block["type"] == "text"
    ]
    for (text,) in db.execute(
        "select text from messages where conversation_id = ?", (conversation,)
    ):
        assert sum(text in block for block in told) == 1
