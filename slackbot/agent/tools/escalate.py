"""The tool that hands a matter to the team."""

import re
from collections.abc import Mapping
from typing import Any, Protocol

from slackbot.agent.tools.base import ToolContext
from slackbot.domain.conversation import ConversationKey
from slackbot.errors import ToolError
from slackbot.store.base import Escalation

MAX_SUMMARY_CHARS = 1_500
HANDED_OVER = (
    "Done: the team has been told. Tell the customer that a colleague will write to them, and go "
    "on helping."
)
NOT_CONNECTED = (
    "Noted, but nobody was told: this can't reach the team from here. Ask the customer to write to "
    "hello@threadco.com, who answer within one business day, and don't say you passed it on."
)
_ORDER_ID = re.compile(r"\b[A-Z]{2,5}-\d{3,8}\b", re.IGNORECASE)


class EscalationDesk(Protocol):
    """Where escalations go."""

    async def escalate(
        self, escalation: Escalation, *, conversation: ConversationKey, asked_ts: str
    ) -> bool:
        """Whether the team was told; the same escalation is told once."""
        ...


class Escalate:
    """`escalate(summary)`: recorded before it acts, once for each use in a turn."""

    name = "escalate"
    definition: Mapping[str, Any] = {
        "name": name,
        "description": (
            "Hands the matter to a person of the ThreadCo team. Use it when the customer asks for "
            "a person, complains, wants a refund or a change you cannot make, or when you cannot "
            "settle the matter. Say afterwards only what the result says happened."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "summary": {
                    "type": "string",
                    "description": "What it is about, for a colleague who has not read the "
                    "conversation: two or three sentences, with order numbers.",
                }
            },
            "required": ["summary"],
            "additionalProperties": False,
        },
    }

    def __init__(self, desk: EscalationDesk) -> None:
        self._desk = desk

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """What happened, in words for Claude.

        Raises:
            ToolError: there is no summary.
        """
        summary = arguments.get("summary")
        if not isinstance(summary, str) or not summary.strip():
            raise ToolError("summary must say in a few sentences what the matter is.")
        escalation = Escalation(
            turn_id=context.turn_id,
            index=context.use_index,
            asker=context.asker,
            summary=summary.strip()[:MAX_SUMMARY_CHARS],
            order_ids=tuple(dict.fromkeys(_ORDER_ID.findall(summary.upper()))),
        )
        is_told = await self._desk.escalate(
            escalation, conversation=context.conversation, asked_ts=context.asked_ts
        )
        return HANDED_OVER if is_told else NOT_CONNECTED
