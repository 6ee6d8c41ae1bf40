"""From what was heard to the turns it wakes: recorded first, so that nothing is lost."""

import logging
from typing import assert_never

from slackbot.domain.messages import Heard, HeardDeletion, HeardEdit, HeardMessage
from slackbot.store.base import Effect, Inbox, Recorded
from slackbot.turns import TurnRunner

log = logging.getLogger(__name__)


class Intake:
    """Records what was heard; once it returns, it is on disk and on its way."""

    def __init__(self, *, inbox: Inbox, turns: TurnRunner) -> None:
        self._inbox = inbox
        self._turns = turns

    async def hear(self, heard: Heard) -> None:
        """Records `heard`, and wakes, stops or restarts the turns of its conversation.

        Raises:
            StoreError: it is not recorded; Slack will deliver it again.
        """
        recorded = await self._record(heard)
        if recorded.conversation is None:
            return
        match recorded.effect:
            case Effect.NOTHING:
                pass
            case Effect.WAKE:
                self._turns.wake(recorded.conversation)
            case Effect.STOP:
                self._turns.interrupt(recorded.conversation)
            case Effect.RESTART:
                self._turns.interrupt(recorded.conversation)
                self._turns.wake(recorded.conversation)
            case _:
                assert_never(recorded.effect)

    async def _record(self, heard: Heard) -> Recorded:
        match heard:
            case HeardMessage() if _cannot_concern_shopmate(heard):
                return Recorded(Effect.NOTHING)
            case HeardMessage():
                return await self._inbox.record_message(heard)
            case HeardEdit():
                return await self._inbox.record_edit(heard)
            case HeardDeletion():
                return await self._inbox.record_deletion(heard)
            case _:
                assert_never(heard)


def _cannot_concern_shopmate(message: HeardMessage) -> bool:
    """Channel talk at the top level: most of what is heard, and not worth a look-up."""
    return not (message.place.is_dm or message.mentions_shopmate or message.thread_ts)
