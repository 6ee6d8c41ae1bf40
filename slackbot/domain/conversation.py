"""Where something is said: the key of a conversation, and the place it is in."""

from dataclasses import dataclass
from enum import StrEnum

SESSION_PREFIX = "session:"


class ChannelKind(StrEnum):
    """Slack's kinds of channel, by the names its events use."""

    CHANNEL = "channel"
    GROUP = "group"
    MPIM = "mpim"
    IM = "im"


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """One thread, or one session at the top level of a DM.

    `root` is the thread's root ts, or `session:<ts>` with the ts that began the session.
    """

    team: str
    channel: str
    root: str

    @property
    def thread_ts(self) -> str | None:
        """The thread to post in; None at the top level of a DM."""
        return None if self.root.startswith(SESSION_PREFIX) else self.root


@dataclass(frozen=True, slots=True)
class Place:
    """What kind of channel a conversation is in, and whether other organisations read it."""

    kind: ChannelKind
    is_shared: bool

    @property
    def is_dm(self) -> bool:
        """Whether only one person reads it."""
        return self.kind is ChannelKind.IM
