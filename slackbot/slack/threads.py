"""What people wrote in a thread before ShopMate was asked."""

from collections.abc import Sequence

from slackbot.domain.conversation import ConversationKey, Place
from slackbot.domain.messages import HeardMessage
from slackbot.slack.calls import SlackCalls
from slackbot.slack.payloads import parse_thread_message


class ThreadReader:
    """Reads threads with `conversations.replies`."""

    def __init__(self, *, calls: SlackCalls, bot_user: str) -> None:
        self._calls = calls
        self._bot_user = bot_user

    async def fetch_thread(self, key: ConversationKey, place: Place) -> Sequence[HeardMessage]:
        """What people wrote in the thread, oldest first.

        ShopMate's own are not among them: what they disclose was for whom they answered.

        Raises:
            SlackError: they cannot be read.
        """
        messages = await self._calls.fetch_messages(key.channel, key.thread_ts)
        said = (
            parse_thread_message(
                message,
                team=key.team,
                channel=key.channel,
                place=place,
                bot_user=self._bot_user,
            )
            for message in messages
        )
        return [message for message in said if message is not None]
