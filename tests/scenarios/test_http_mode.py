import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from slackbot.bootstrap import run_bot
from slackbot.playground.bot_process import bot_environment
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_server import LocalSlack
from slackbot.settings import Settings
from tests.scenarios.harness import answers, shown_text, wait_for_answer

STARTING_TIME_S = 5


@dataclass(frozen=True, slots=True)
class ReachableBot:
    """A running bot as whoever sends it requests sees it."""

    base_url: str
    session: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, str]:
        """The status and body of `path`."""
        async with self.session.get(self.base_url + path) as response:
            return response.status, await response.text()


class PortInLog(logging.Handler):
    """Learns the port from the line that says that the bot is ready."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "shopmate.ready":
            self.port.set_result(vars(record)["port"])


@asynccontextmanager
async def running_bot_with_port(
    slack: LocalSlack, claude: LocalClaude, database: Path, **variables: str
) -> AsyncIterator[ReachableBot]:
    """The bot, drained when the context ends; over HTTP with `SLACK_APP_TOKEN=""`."""
    environ = bot_environment(
        slack, claude, database, **{"SHOPMATE_PACER": "off", "SHOPMATE_DRAIN_S": "5", **variables}
    )
    stop, ready, log = asyncio.Event(), PortInLog(), logging.getLogger("slackbot.bootstrap")
    log.addHandler(ready)
    log.setLevel(logging.INFO)
    try:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            group.create_task(run_bot(Settings.from_env(environ), stop), name="bot")
            async with asyncio.timeout(STARTING_TIME_S):
                port = await ready.port
            try:
                yield ReachableBot(f"http://127.0.0.1:{port}", session)
            finally:
                stop.set()
    finally:
        log.removeHandler(ready)
        log.setLevel(logging.NOTSET)


@asynccontextmanager
async def running_http_bot(
    slack: LocalSlack, claude: LocalClaude, database: Path
) -> AsyncIterator[ReachableBot]:
    """The bot in HTTP mode, and Slack sending its events there."""
    async with running_bot_with_port(
        slack, claude, database, SLACK_APP_TOKEN="", SLACK_SIGNING_SECRET=slack.signing_secret
    ) as bot:
        slack.events_url = f"{bot.base_url}/slack/events"
        yield bot


async def test_a_mention_over_http_is_answered_once(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_http_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> where is ORD-1001?"
        ts = slack.say(slack.alex.id, slack.support.id, mention, times=3)
        answer = await wait_for_answer(slack, slack.support.id, ts, holding="RM493827651GB")
        await slack.wait_until(lambda: not slack.unacked)

    assert "https://track.royalmail.com/tracking/RM493827651GB" in shown_text(answer)
    assert len(answers(slack, slack.support.id)) == 1
    assert slack.sockets_opened == 0
    assert slack.lost == []


async def test_what_is_not_for_the_bot_is_acknowledged_over_http(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_http_bot(slack, claude, tmp_path / "shop.db"):
        slack.say(slack.alex.id, slack.support.id, "lunch?")
        slack.join(slack.sam.id, slack.support.id)
        await slack.wait_until(lambda: len(slack.acks) == 2)

    assert [ack.retry_attempt for ack in slack.acks] == [0, 0]
    assert claude.requests == []


async def test_over_http_the_bot_is_alive_and_ready(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_http_bot(slack, claude, tmp_path / "shop.db") as bot:
        health, _ = await bot.get("/healthz")
        readiness, said = await bot.get("/readyz")

    assert (health, readiness) == (200, 200)
    assert json.loads(said) == {"ready": True, "slack": True, "database": True}


async def test_over_a_socket_the_bot_is_ready_only_while_it_is_connected(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_bot_with_port(slack, claude, tmp_path / "shop.db") as bot:
        async with asyncio.timeout(5):
            await slack.wait_until(lambda: slack.connected_sockets == 1)
        slack.say(slack.alex.id, slack.support.id, "lunch?")
        await slack.wait_until(lambda: not slack.unacked)
        connected, _ = await bot.get("/readyz")
        slack.refuse_tickets = True
        slack.disconnect_sockets()
        await slack.wait_until(lambda: slack.tickets_refused > 0)
        health, _ = await bot.get("/healthz")
        disconnected, said = await bot.get("/readyz")

    assert (connected, disconnected, health) == (200, 503, 200)
    assert json.loads(said) == {"ready": False, "slack": False, "database": True}


async def test_the_bot_is_not_ready_while_its_database_cannot_be_written(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    async with running_http_bot(slack, claude, tmp_path / "shop.db") as bot:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as other:
            other.execute("begin immediate")
            locked, said = await bot.get("/readyz")
            other.rollback()
        free, _ = await bot.get("/readyz")

    assert (locked, free) == (503, 200)
    assert json.loads(said) == {"ready": False, "slack": True, "database": False}
