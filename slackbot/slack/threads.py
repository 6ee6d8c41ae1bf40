"""What people wrote in a thread before ShopMate was asked."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from slackbot.domain.conversation import ConversationKey, Place
from slackbot.domain.messages import HeardMessage
from slackbot.slack.calls import SlackCalls, insist
from slackbot.slack.payloads import parse_thread_message

MAX_TRIES = 3  # somebody waits meanwhile


class ThreadReader:
    """Reads threads with `conversations.replies`."""

    def __init__(
        self,
        *,
        calls: SlackCalls,
        bot_user: str,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._sleep = sleep
        self._calls = calls
        self._bot_user = bot_user

    async def fetch_thread(self, key: ConversationKey, place: Place) -> Sequence[HeardMessage]:
        """What people wrote in the thread, oldest first.

        ShopMate's own are not among them: what they disclose was for whom they answered.

        Raises:
            SlackError: they cannot be read.
        """
        messages = await insist(
            partial(self._calls.fetch_messages, key.channel, key.thread_ts),
            sleep=self._sleep,
            tries=MAX_TRIES,
        )
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
