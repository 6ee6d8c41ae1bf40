"""What a tool is, and what it gets to know of the turn that uses it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from slackbot.domain.conversation import ConversationKey
from slackbot.domain.rights import Rights


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The turn a tool works for.

    `use_index` counts the uses of this tool in the turn from 0: with the turn's id it names the
    use, also when the turn is run again. `fetch_rights` answers what the turn may see as of now.
    """

    turn_id: int
    use_index: int
    conversation: ConversationKey
    asker: str
    asked_ts: str
    fetch_rights: Callable[[], Awaitable[Rights]]


class Tool(Protocol):
    """Something Claude may use. It gets its arguments as Claude wrote them: unchecked."""

    @property
    def name(self) -> str:
        """The name Claude calls it by."""
        ...

    @property
    def definition(self) -> Mapping[str, Any]:
        """Name, description and input schema, as the Messages API wants them."""
        ...

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """What Claude is told.

        Raises:
            ToolError: it cannot be done; the sentence is for Claude.
        """
        ...
