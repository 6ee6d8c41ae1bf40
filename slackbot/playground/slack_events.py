"""Which events a change in the local Slack sends to the bot, and what they look like."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from slackbot.playground.slack_workspace import Channel, ChannelKind, SlackMessage, Workspace

HISTORY_SCOPES: Mapping[ChannelKind, str] = {
    "channel": "channels:history",
    "group": "groups:history",
    "mpim": "mpim:history",
    "im": "im:history",
}
VERIFICATION_TOKEN = "local-verification-token"  # noqa: S105 - deprecated by Slack, no secret here


class Announcer:
    """Tells the bot what happened, as far as it is a member and has the scopes.

    A mention in a channel is told twice (`app_mention` without files, and `message`), under
    different event ids; where the bot is no member, only as `app_mention`.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        deliver: Callable[[Mapping[str, Any]], None],
        has_scope: Callable[[str], bool],
        twins: bool,
    ) -> None:
        self._workspace = workspace
        self._deliver = deliver
        self._has_scope = has_scope
        self._twins = twins
        self._numbers = count(1)

    def posted(self, message: SlackMessage, *, times: int = 1) -> None:
        """A new message; every event is delivered `times` times under its one id."""
        channel = self._workspace.channels[message.channel]
        shown = self._workspace.build_message(message)
        is_mention = self._is_mention(message, channel)
        if is_mention:
            self._send(channel, self._build_mention(shown, channel), times)
        if self._hears(channel) and (self._twins or not is_mention):
            place = self._build_place(channel, message.ts)
            self._send(channel, shown | place, times)

    def changed(self, message: SlackMessage, before: Mapping[str, Any]) -> None:
        """A message that now looks different; a mention that an edit added is told as one."""
        channel = self._workspace.channels[message.channel]
        shown = self._workspace.build_message(message)
        if self._is_mention(message, channel) and not self._workspace.mentions_bot(before["text"]):
            self._send(channel, self._build_mention(shown, channel), 1)
        if self._hears(channel):
            ts = self._workspace.new_ts()
            event = {
                "type": "message",
                "subtype": "message_changed",
                "hidden": True,
                "ts": ts,
                "message": shown,
                "previous_message": before,
            }
            self._send(channel, event | self._build_place(channel, ts), 1)

    def deleted(self, message: SlackMessage, before: Mapping[str, Any]) -> None:
        """A message that is gone."""
        channel = self._workspace.channels[message.channel]
        if self._hears(channel):
            ts = self._workspace.new_ts()
            event = {
                "type": "message",
                "subtype": "message_deleted",
                "hidden": True,
                "ts": ts,
                "deleted_ts": message.ts,
                "previous_message": before,
            }
            self._send(channel, event | self._build_place(channel, ts), 1)

    def _hears(self, channel: Channel) -> bool:
        is_member = self._workspace.bot_user_id in channel.members
        return is_member and self._has_scope(HISTORY_SCOPES[channel.kind])

    def _is_mention(self, message: SlackMessage, channel: Channel) -> bool:
        return (
            channel.kind != "im"  # DMs bring no app_mention
            and message.bot_id != self._workspace.bot_id
            and self._has_scope("app_mentions:read")
            and self._workspace.mentions_bot(message.text)
        )

    def _build_mention(self, shown: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
        missing = ("files", "subtype")  # app_mention lacks them
        event = {key: value for key, value in shown.items() if key not in missing}
        return event | {"type": "app_mention", "channel": channel.id, "event_ts": shown["ts"]}

    def _build_place(self, channel: Channel, event_ts: str) -> dict[str, Any]:
        return {"channel": channel.id, "channel_type": channel.kind, "event_ts": event_ts}

    def _send(self, channel: Channel, event: Mapping[str, Any], times: int) -> None:
        workspace = self._workspace
        body = {
            "token": VERIFICATION_TOKEN,
            "team_id": workspace.team_id,
            "context_team_id": workspace.team_id,
            "context_enterprise_id": None,
            "api_app_id": workspace.app_id,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev0LOCAL{next(self._numbers):06d}",
            "event_time": int(workspace.clock()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": workspace.team_id,
                    "user_id": workspace.bot_user_id,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": channel.is_ext_shared,
        }
        for _ in range(times):
            self._deliver(body)
