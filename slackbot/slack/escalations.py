"""What waits for the team, told in its channel: once, through the same intents as an answer."""

import asyncio
import logging

from slackbot.domain.conversation import ConversationKey
from slackbot.errors import SlackError
from slackbot.slack.calls import SlackCalls
from slackbot.slack.plain_text import plain_parts
from slackbot.slack.poster import Poster, PostTarget
from slackbot.store.base import Escalation, EscalationTable, PostLog

log = logging.getLogger(__name__)

POST_TIME_S = 8.0  # a tool has ten seconds
# Together they stay one message, even where each line of the summary is a single character.
MAX_SHOWN_BYTES = 1_500
MAX_SHOWN_ORDERS = 20


class TeamDesk:
    """Hands matters to the team: on record always, in the team's channel where there is one."""

    def __init__(
        self,
        *,
        table: EscalationTable,
        posts: PostLog,
        poster: Poster,
        calls: SlackCalls,
        team_channel: str | None,
    ) -> None:
        self._table = table
        self._posts = posts
        self._poster = poster
        self._calls = calls
        self._team_channel = team_channel

    async def escalate(
        self, escalation: Escalation, *, conversation: ConversationKey, asked_ts: str
    ) -> bool:
        """Whether the team was told; the same escalation is told once."""
        await self._table.record_escalation(escalation)
        if self._team_channel is None:
            return False
        part = f"escalation-{escalation.index}"
        is_intended, ts = await self._posts.load_post(escalation.turn_id, part)
        if ts is not None:
            return True
        target = PostTarget(
            turn_id=escalation.turn_id,
            channel=self._team_channel,
            thread_ts=None,
            oldest=asked_ts,
        )
        try:
            async with asyncio.timeout(POST_TIME_S):
                text = await self._describe(escalation, conversation, asked_ts)
                content = {"text": text, "parse": "none"}
                await self._poster.post(target, part, content=content, is_intended=is_intended)
        except (SlackError, TimeoutError) as error:
            log.error("escalation.not_posted", extra={"reason": str(error)})  # noqa: TRY400
            return False
        return True

    async def _describe(
        self, escalation: Escalation, conversation: ConversationKey, asked_ts: str
    ) -> str:
        lines = [f"<@{escalation.asker}> needs a person.", _quote(escalation.summary)]
        if escalation.order_ids:
            lines.append(f"Orders: {', '.join(escalation.order_ids[:MAX_SHOWN_ORDERS])}")
        if conversation.thread_ts is not None:
            lines.append(await self._link(conversation, asked_ts))
        return "\n".join(line for line in lines if line)

    async def _link(self, conversation: ConversationKey, asked_ts: str) -> str:
        """A link to where it was asked; none in a DM, which the team cannot open.

        Nor where Slack does not give one: it is worth less than the rest.
        """
        if conversation.channel.startswith("D"):
            return ""
        try:
            return await self._calls.fetch_permalink(conversation.channel, asked_ts)
        except SlackError as error:
            log.info("escalation.no_link", extra={"reason": error.reason})
            return ""


def _quote(summary: str) -> str:
    """The summary in plain text; empty where it is nothing but marks."""
    shown, *rest = plain_parts(summary, max_bytes=MAX_SHOWN_BYTES) or [""]
    return "\n".join(f"> {line}" for line in f"{shown}{' …' if rest else ''}".splitlines())
