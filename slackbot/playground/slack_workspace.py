"""The state of the local Slack: people, channels, messages, statuses."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from slackbot.playground.slack_rules import SlackRefusalError

ChannelKind: TypeAlias = Literal["channel", "group", "mpim", "im"]

ID_PREFIXES: Mapping[ChannelKind, str] = {"channel": "C", "group": "C", "mpim": "G", "im": "D"}
STATUS_LIFETIME_S = 120.0  # reference/methods/assistant.threads.setStatus: vanishes after 2 minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody with a profile here: a colleague, a guest, a bot, a person of another team."""

    id: str
    name: str
    real_name: str
    email: str | None
    team_id: str  # the home team
    is_email_confirmed: bool = True
    is_restricted: bool = False  # a guest
    is_ultra_restricted: bool = False  # a guest of a single channel
    is_bot: bool = False
    deleted: bool = False
    is_stranger: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A place to talk, as of when it was asked for; `members` are user ids."""

    id: str
    name: str
    kind: ChannelKind
    members: frozenset[str]
    is_archived: bool = False
    is_ext_shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a message showed from `shown_at` (the server's clock) on."""

    text: str
    blocks: Sequence[Mapping[str, Any]]
    shown_at: float
    finds_names: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class SlackMessage:
    """A message, live: it changes with every edit. `blocks` are as they were sent."""

    channel: str
    ts: str
    user: str
    text: str
    blocks: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] | None = None
    thread_ts: str | None = None  # of a reply: its root's ts
    subtype: str | None = None
    bot_id: str | None = None
    team_id: str = ""
    client_msg_id: str | None = None
    files: Sequence[Mapping[str, Any]] = ()
    attachments: Sequence[Mapping[str, Any]] = ()
    reactions: dict[str, list[str]] = field(default_factory=dict)  # name → user ids
    edited: Mapping[str, str] | None = None
    finds_names: bool = False
    is_deleted: bool = False
    versions: list[Version] = field(default_factory=list)

    @property
    def edits(self) -> int:
        """How often it was changed after it was posted."""
        return len(self.versions) - 1

    def show(
        self,
        text: str,
        blocks: Sequence[Mapping[str, Any]] = (),
        *,
        shown_at: float,
        finds_names: bool = False,
    ) -> None:
        """Replaces what people see."""
        self.text, self.blocks, self.finds_names = text, blocks, finds_names
        self.versions.append(
            Version(text=text, blocks=blocks, shown_at=shown_at, finds_names=finds_names)
        )


class Workspace:
    """Everything that one team's Slack remembers. Changes here tell nobody."""

    def __init__(self, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.clock = clock
        self.monotonic = monotonic
        self.team_id = "T0LOCAL0001"
        self.app_id = "A0LOCAL0001"
        self.bot_id = "B0LOCAL0001"
        self.members: dict[str, Member] = {}
        self.channels: dict[str, Channel] = {}
        self.all_messages: list[SlackMessage] = []  # deleted ones too
        self.ephemerals: list[SlackMessage] = []
        self._by_ts: dict[str, dict[str, SlackMessage]] = {}
        self._replies: dict[tuple[str, str], list[SlackMessage]] = {}
        self._statuses: dict[tuple[str, str], tuple[str, float]] = {}
        self._ids = count(1)
        self._last_us = 0
        self.bot_user_id = self.add_member(
            name="shopmate", real_name="ShopMate", email=None, is_bot=True
        ).id

    def new_id(self, prefix: str) -> str:
        """An id that looks like Slack's."""
        return f"{prefix}0LOCAL{next(self._ids):04d}"

    def new_ts(self) -> str:
        """Now, and later than every ts before."""
        self._last_us = max(int(self.clock() * 1_000_000), self._last_us + 1)
        return f"{self._last_us // 1_000_000:010d}.{self._last_us % 1_000_000:06d}"

    def add_member(self, **overrides: Any) -> Member:
        """A new person; every field of `Member` may be given."""
        user_id = self.new_id("U")
        defaults: dict[str, Any] = {
            "id": user_id,
            "name": user_id.lower(),
            "real_name": f"Person {user_id}",
            "email": f"{user_id.lower()}@example.com",
            "team_id": self.team_id,
        }
        member = Member(**(defaults | overrides))
        self.members[member.id] = member
        return member

    def change_member(self, user_id: str, **changes: Any) -> Member:
        """The person with other fields, which is what everybody sees from now on."""
        changed = replace(self.members[user_id], **changes)
        self.members[user_id] = changed
        return changed

    def add_channel(
        self, name: str, *, members: Iterable[str], kind: ChannelKind, is_ext_shared: bool
    ) -> Channel:
        """A new channel of these members."""
        channel = Channel(
            id=self.new_id(ID_PREFIXES[kind]),
            name=name,
            kind=kind,
            members=frozenset(members),
            is_ext_shared=is_ext_shared,
        )
        self.channels[channel.id] = channel
        return channel

    def open_dm(self, *user_ids: str) -> Channel:
        """The one conversation of the bot with these people, made if need be."""
        members = frozenset((*user_ids, self.bot_user_id))
        kind: ChannelKind = "im" if len(members) == 2 else "mpim"
        for channel in self.channels.values():
            if channel.kind == kind and channel.members == members:
                return channel
        return self.add_channel(kind, members=members, kind=kind, is_ext_shared=False)

    def change_channel(self, channel_id: str, **changes: Any) -> Channel:
        """The channel with other fields, which is what everybody sees from now on."""
        changed = replace(self.channels[channel_id], **changes)
        self.channels[channel_id] = changed
        return changed

    def add_message(self, message: SlackMessage) -> None:
        """Shows a new message to everybody."""
        message.show(
            message.text,
            message.blocks,
            shown_at=self.clock(),
            finds_names=message.finds_names,
        )
        self.all_messages.append(message)
        self._by_ts.setdefault(message.channel, {})[message.ts] = message
        if message.thread_ts is not None:
            self._replies.setdefault((message.channel, message.thread_ts), []).append(message)
        if message.bot_id == self.bot_id and message.thread_ts is not None:
            self._statuses.pop((message.channel, message.thread_ts), None)

    def remove_message(self, message: SlackMessage) -> bool:
        """Deletes; True if replies keep its place as a tombstone."""
        message.is_deleted = True
        message.metadata, message.attachments, message.files = None, (), ()
        if self.replies(message.channel, message.ts):
            message.subtype, message.bot_id = "tombstone", None
            message.user = "USLACKBOT"
            message.show("This message was deleted.", shown_at=self.clock())
            return True
        del self._by_ts[message.channel][message.ts]
        if message.thread_ts is not None:
            self._replies[message.channel, message.thread_ts].remove(message)
        return False

    def find(self, channel_id: str, ts: str) -> SlackMessage | None:
        """The message, None if there is none any more; a tombstone is one."""
        return self._by_ts.get(channel_id, {}).get(ts)

    def messages(self, channel_id: str, thread_ts: str | None = None) -> list[SlackMessage]:
        """What is in a channel (replies too) or in one thread (its root first), oldest first."""
        if thread_ts is None:
            return list(self._by_ts.get(channel_id, {}).values())
        root = self.find(channel_id, thread_ts)
        return [*([root] if root else []), *self.replies(channel_id, thread_ts)]

    def replies(self, channel_id: str, thread_ts: str) -> Sequence[SlackMessage]:
        """A thread's replies, oldest first."""
        return self._replies.get((channel_id, thread_ts), ())

    def set_status(self, channel_id: str, thread_ts: str, status: str) -> None:
        """Shows a status for two minutes; an empty one is none."""
        if status:
            self._statuses[channel_id, thread_ts] = (status, self.monotonic())
        else:
            self._statuses.pop((channel_id, thread_ts), None)

    def status_of(self, channel_id: str, thread_ts: str) -> str:
        """What is shown as the bot's status, empty if nothing."""
        status, set_at = self._statuses.get((channel_id, thread_ts), ("", 0.0))
        return status if self.monotonic() - set_at < STATUS_LIFETIME_S else ""

    def mentions_bot(self, text: str) -> bool:
        """Whether a text mentions the bot, with or without a label."""
        return re.search(rf"<@{self.bot_user_id}(\|[^>]*)?>", text) is not None

    def check_thread(self, channel_id: str, thread_ts: str) -> None:
        """Passes the ts of a message that is, or could become, a thread's root.

        Raises:
            SlackRefusalError: `thread_not_found`, `cannot_reply_to_message`.
        """
        root = self.find(channel_id, thread_ts)
        if root is None:
            raise SlackRefusalError("thread_not_found")
        if root.thread_ts is not None:
            raise SlackRefusalError("cannot_reply_to_message")

    def build_message(
        self, message: SlackMessage, *, with_metadata: bool = False
    ) -> dict[str, Any]:
        """The message as Slack shows it in answers and events."""
        shown: dict[str, Any] = {
            "type": "message",
            "user": message.user,
            "text": message.text,
            "ts": message.ts,
            "team": message.team_id,
        }
        if message.blocks:
            shown["blocks"] = [_build_block(block) for block in message.blocks]
        for key in ("subtype", "bot_id", "client_msg_id", "edited", "files", "attachments"):
            if value := getattr(message, key):
                shown[key] = value
        if message.bot_id == self.bot_id:
            shown["app_id"] = self.app_id
            shown["bot_profile"] = {"id": self.bot_id, "app_id": self.app_id, "name": "shopmate"}
        if message.team_id != self.team_id:
            shown["user_team"] = shown["source_team"] = message.team_id
        if message.reactions:
            shown["reactions"] = [
                {"name": name, "users": list(users), "count": len(users)}
                for name, users in message.reactions.items()
            ]
        if with_metadata and message.metadata:
            shown["metadata"] = message.metadata
        self._add_thread(message, shown)
        return shown

    def _add_thread(self, message: SlackMessage, shown: dict[str, Any]) -> None:
        if message.thread_ts is not None:
            shown["thread_ts"] = message.thread_ts
            root = self.find(message.channel, message.thread_ts)
            if root is not None:
                shown["parent_user_id"] = root.user
        elif replies := self.replies(message.channel, message.ts):
            shown["thread_ts"] = message.ts
            shown["reply_count"] = len(replies)
            shown["latest_reply"] = replies[-1].ts


def _build_block(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """A block as it is read back: Slack keeps what markdown became, not the markdown."""
    if block["type"] != "markdown":
        return block
    section = {
        "type": "rich_text_section",
        "elements": [{"type": "text", "text": block["text"]}],
    }
    return {"type": "rich_text", "block_id": uuid4().hex[:5], "elements": [section]}
