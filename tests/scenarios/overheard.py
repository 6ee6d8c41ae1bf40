"""What reached Claude, what was acknowledged, what was stored."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from slackbot.playground.claude_cache import content_blocks
from slackbot.playground.claude_mind import Reply, text
from slackbot.playground.claude_server import ClaudeRequest
from slackbot.playground.slack_server import LocalSlack


def newest_texts(body: Mapping[str, Any]) -> list[str]:
    """What people say in the turn a request belongs to, message by message."""
    *_, newest = filter(None, map(_said, body["messages"]))
    return newest


def all_texts(request: ClaudeRequest) -> list[str]:
    """What people have said in the whole conversation a request shows to Claude."""
    return [text for message in request.body["messages"] for text in _said(message)]


def _said(message: Mapping[str, Any]) -> list[str]:
    if message["role"] != "user":
        return []
    blocks = content_blocks(message["content"])
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    return texts[1:]  # the first one says when and where


def echo(body: Mapping[str, Any]) -> Reply:
    """A mind that says again what it was told."""
    return text("I heard: " + " / ".join(newest_texts(body)))


async def all_acknowledged(slack: LocalSlack) -> None:
    """Returns once the bot has taken every event: what it heard is stored by then."""
    await slack.wait_until(lambda: not slack.unacked)


def redeliver(slack: LocalSlack) -> None:
    """Sends every event again that was acknowledged, as Slack does when it missed the ack."""
    for ack in list(slack.acks):
        deliver_event(slack, ack.event, event_id=ack.event_id)


def deliver_event(
    slack: LocalSlack, event: Mapping[str, Any], *, event_id: str = "Ev0OTHER0001"
) -> None:
    """Sends an event as it is, also of a kind that the local Slack does not make itself."""
    authorization = {"team_id": slack.team_id, "user_id": slack.bot_user_id, "is_bot": True}
    slack._delivery.deliver(
        {
            "type": "event_callback",
            "team_id": slack.team_id,
            "api_app_id": slack.app_id,
            "event_id": event_id,
            "event": event,
            "authorizations": [authorization],
        }
    )


def count_rows(database: Path) -> dict[str, int]:
    """The number of rows in each table."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        names = [
            name
            for (name,) in connection.execute("select name from sqlite_master where type = 'table'")
        ]
        return {
            name: connection.execute(f"select count(*) from [{name}]").fetchone()[0]
            for name in names
        }
