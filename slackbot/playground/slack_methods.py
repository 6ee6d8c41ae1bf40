"""The Web API methods of the local Slack: what each asks for, does, and answers."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from aiohttp import web

from slackbot.playground.slack_events import HISTORY_SCOPES, Announcer
from slackbot.playground.slack_rules import (
    EMOJI_PATTERN,
    MAX_POST_CHARS,
    MAX_TEXT_CHARS,
    TS_PATTERN,
    SlackRefusalError,
    check_content,
    check_edit,
)
from slackbot.playground.slack_workspace import (
    Channel,
    ChannelKind,
    Member,
    SlackMessage,
    Workspace,
)

Arguments: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, Any]

READ_SCOPES: Mapping[ChannelKind, str] = {
    "channel": "channels:read",
    "group": "groups:read",
    "mpim": "mpim:read",
    "im": "im:read",
}
METHOD_SCOPES: Mapping[str, str] = {
    "assistant.threads.setStatus": "chat:write",  # since 2026-03-05
    "chat.delete": "chat:write",
    "chat.postEphemeral": "chat:write",
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "reactions.add": "reactions:write",
    "reactions.remove": "reactions:write",
    "team.info": "team:read",
    "users.info": "users:read",
}
ALL_SCOPES = frozenset(
    {
        *HISTORY_SCOPES.values(),
        *READ_SCOPES.values(),
        *METHOD_SCOPES.values(),
        "app_mentions:read",
        "assistant:write",
        "commands",
        "im:write",
        "mpim:write",
        "users:read.email",
    }
)
JSON_ARGUMENTS: Mapping[str, str] = {  # name → the error if it is no JSON
    "blocks": "invalid_blocks_format",
    "attachments": "invalid_attachments",
    "metadata": "invalid_metadata_format",
    "loading_messages": "invalid_arguments",
}
MAX_PAGE = 1_000


async def read_arguments(request: web.Request) -> dict[str, Any]:
    """The arguments of a call: from the query, a form or JSON, with JSON inside strings decoded.

    Raises:
        SlackRefusalError: the body is not what its content type says.
    """
    arguments: dict[str, Any] = dict(request.query) if request.query_string else {}
    raw = await request.read() if request.can_read_body else b""
    if request.content_type == "application/json":
        arguments |= _read_json(raw)
    elif raw:
        arguments |= parse_qsl(raw.decode(), keep_blank_values=True)
    for name, error in JSON_ARGUMENTS.items():
        if isinstance(value := arguments.get(name), str):
            try:
                arguments[name] = json.loads(value)
            except ValueError as broken:
                raise SlackRefusalError(error) from broken
    return arguments


def _read_json(raw: bytes) -> dict[str, Any]:
    try:
        arguments = json.loads(raw)
    except ValueError as error:
        raise SlackRefusalError("invalid_json") from error
    if not isinstance(arguments, dict):
        raise SlackRefusalError("json_not_object")
    arguments.pop("token", None)  # with JSON, only the Authorization header counts
    return arguments


class WebApi:
    """The methods, as functions of their arguments; each takes effect at once, or not at all."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        announcer: Announcer,
        scopes: frozenset[str],
        open_socket_url: Callable[[], str],
    ) -> None:
        self._workspace = workspace
        self._announcer = announcer
        self._open_socket_url = open_socket_url
        self.scopes = scopes
        self.methods: Mapping[str, Callable[[Arguments], Answer]] = {
            "apps.connections.open": self._open_connection,
            "assistant.threads.setStatus": self._set_status,
            "auth.test": self._test_auth,
            "chat.delete": self._delete,
            "chat.getPermalink": self._get_permalink,
            "chat.postEphemeral": self._post_ephemeral,
            "chat.postMessage": self._post,
            "chat.update": self._update,
            "conversations.history": self._history,
            "conversations.info": self._show_channel,
            "conversations.open": self._open_conversation,
            "conversations.replies": self._read_replies,
            "reactions.add": self._add_reaction,
            "reactions.remove": self._remove_reaction,
            "team.info": self._show_team,
            "users.info": self._show_user,
        }

    def call(self, method: str, arguments: Arguments) -> Answer:
        """What the method answers, without `ok`.

        Raises:
            SlackRefusalError: with Slack's word for why not; nothing has changed then.
        """
        if scope := METHOD_SCOPES.get(method):
            self._need(scope)
        return self.methods[method](arguments)

    def _need(self, scope: str) -> None:
        if scope not in self.scopes:
            provided = ",".join(sorted(self.scopes))
            raise SlackRefusalError("missing_scope", needed=scope, provided=provided)

    def _reach(self, channel_id: str) -> Channel:
        """The channel, if the bot may act in it."""
        channel = self._workspace.channels.get(channel_id)
        if channel is None:
            raise SlackRefusalError("channel_not_found")
        if self._workspace.bot_user_id not in channel.members:
            is_public = channel.kind == "channel"
            raise SlackRefusalError("not_in_channel" if is_public else "channel_not_found")
        return channel

    def _reach_open(self, channel_id: str) -> Channel:
        channel = self._reach(channel_id)
        if channel.is_archived:
            raise SlackRefusalError("is_archived")
        return channel

    def _reach_to_post(self, arguments: Arguments) -> Channel:
        """The channel; a user's id means the DM with that user."""
        target = str(arguments.get("channel", ""))
        if target in self._workspace.members:
            return self._workspace.open_dm(target)
        return self._reach_open(target)

    def _find(self, channel_id: str, ts: Any) -> SlackMessage:
        message = self._workspace.find(channel_id, str(ts))
        if message is None or message.is_deleted:
            raise SlackRefusalError("message_not_found")
        return message

    def _find_own(self, arguments: Arguments, refusal: str) -> SlackMessage:
        channel = self._reach(str(arguments.get("channel", "")))
        message = self._find(channel.id, arguments.get("ts"))
        if message.bot_id != self._workspace.bot_id:
            raise SlackRefusalError(refusal)
        if channel.is_archived:
            raise SlackRefusalError("is_inactive")
        return message

    def _thread_of(self, arguments: Arguments, channel: Channel) -> str | None:
        thread_ts = arguments.get("thread_ts")
        if thread_ts is None:
            return None
        if not TS_PATTERN.fullmatch(str(thread_ts)):
            raise SlackRefusalError("invalid_thread_ts")
        self._workspace.check_thread(channel.id, str(thread_ts))
        return str(thread_ts)

    def _post(self, arguments: Arguments) -> Answer:
        channel = self._reach_to_post(arguments)
        check_content(arguments)
        thread_ts = self._thread_of(arguments, channel)
        is_broadcast = thread_ts is not None and _is_set(arguments, "reply_broadcast")
        blocks = _blocks_of(arguments)
        messages = [
            self._new_message(channel, arguments, text=text, blocks=blocks, thread_ts=thread_ts)
            for text in _split(str(arguments.get("text") or ""), is_split=not blocks)
        ]
        for message in messages:
            message.subtype = "thread_broadcast" if is_broadcast else None
            self._workspace.add_message(message)
            self._announcer.posted(message)
        first = messages[0]
        shown = self._workspace.build_message(first, with_metadata=True)
        return {"channel": channel.id, "ts": first.ts, "message": shown}

    def _new_message(
        self,
        channel: Channel,
        arguments: Arguments,
        *,
        text: str,
        blocks: Sequence[Mapping[str, Any]],
        thread_ts: str | None,
    ) -> SlackMessage:
        return SlackMessage(
            channel=channel.id,
            ts=self._workspace.new_ts(),
            user=self._workspace.bot_user_id,
            text=text,
            blocks=blocks,
            metadata=arguments.get("metadata") or None,
            thread_ts=thread_ts,
            bot_id=self._workspace.bot_id,
            team_id=self._workspace.team_id,
            attachments=arguments.get("attachments") or (),
            finds_names=_finds_names(arguments),
        )

    def _post_ephemeral(self, arguments: Arguments) -> Answer:
        channel = self._reach_open(str(arguments.get("channel", "")))
        if arguments.get("user") not in channel.members:
            raise SlackRefusalError("user_not_in_channel")
        check_content(arguments)
        message = self._new_message(
            channel,
            arguments,
            text=str(arguments.get("text") or "")[:MAX_TEXT_CHARS],
            blocks=_blocks_of(arguments),
            thread_ts=self._thread_of(arguments, channel),
        )
        message.show(message.text, message.blocks, shown_at=self._workspace.clock())
        self._workspace.ephemerals.append(message)
        return {"message_ts": message.ts}

    def _update(self, arguments: Arguments) -> Answer:
        message = self._find_own(arguments, "cant_update_message")
        check_edit(arguments)
        before = self._workspace.build_message(message)
        message.show(
            str(arguments.get("text") or ""),
            _blocks_of(arguments),  # none given: the old ones go
            shown_at=self._workspace.clock(),
            finds_names=_finds_names(arguments),
        )
        if "metadata" in arguments:
            message.metadata = arguments["metadata"] or None
        if "attachments" in arguments:
            message.attachments = arguments["attachments"]
        message.edited = {"user": message.user, "ts": self._workspace.new_ts()}
        self._announcer.changed(message, before)
        shown = self._workspace.build_message(message, with_metadata=True)
        return {
            "channel": message.channel,
            "ts": message.ts,
            "text": message.text,
            "message": shown,
        }

    def _delete(self, arguments: Arguments) -> Answer:
        message = self._find_own(arguments, "cant_delete_message")
        before = self._workspace.build_message(message)
        if self._workspace.remove_message(message):
            self._announcer.changed(message, before)
        else:
            self._announcer.deleted(message, before)
        return {"channel": message.channel, "ts": message.ts}

    def _get_permalink(self, arguments: Arguments) -> Answer:
        channel = self._reach(str(arguments.get("channel", "")))
        message = self._find(channel.id, arguments.get("message_ts"))
        path = f"archives/{channel.id}/p{message.ts.replace('.', '')}"
        return {"channel": channel.id, "permalink": f"https://local.example.com/{path}"}

    def _read_replies(self, arguments: Arguments) -> Answer:
        channel = self._reach(str(arguments.get("channel", "")))
        self._need(HISTORY_SCOPES[channel.kind])
        ts = str(arguments.get("ts", ""))
        asked = self._workspace.find(channel.id, ts)
        if asked is None:
            raise SlackRefusalError("thread_not_found")
        root, *replies = self._workspace.messages(channel.id, asked.thread_ts or ts)
        return self._page([root, *_between(replies, arguments)], arguments)

    def _history(self, arguments: Arguments) -> Answer:
        channel = self._reach(str(arguments.get("channel", "")))
        self._need(HISTORY_SCOPES[channel.kind])
        top_level = [
            message
            for message in self._workspace.messages(channel.id)
            if message.thread_ts is None or message.subtype == "thread_broadcast"
        ]
        return self._page(_between(top_level, arguments)[::-1], arguments)

    def _page(self, messages: Sequence[SlackMessage], arguments: Arguments) -> Answer:
        try:
            limit = int(arguments.get("limit") or 100)
        except ValueError as error:
            raise SlackRefusalError("invalid_limit") from error
        if not 1 <= limit < MAX_PAGE:
            raise SlackRefusalError("invalid_limit")
        start = _parse_cursor(str(arguments.get("cursor") or ""))
        end = start + limit
        with_metadata = _is_set(arguments, "include_all_metadata")
        return {
            "messages": [
                self._workspace.build_message(message, with_metadata=with_metadata)
                for message in messages[start:end]
            ],
            "has_more": end < len(messages),
            "response_metadata": {
                "next_cursor": _build_cursor(end) if end < len(messages) else "",
            },
        }

    def _show_channel(self, arguments: Arguments) -> Answer:
        channel = self._workspace.channels.get(str(arguments.get("channel", "")))
        if channel is None or (channel.kind != "channel" and not self._is_inside(channel)):
            raise SlackRefusalError("channel_not_found")
        self._need(READ_SCOPES[channel.kind])
        return {"channel": self._build_channel(channel)}

    def _is_inside(self, channel: Channel) -> bool:
        return self._workspace.bot_user_id in channel.members

    def _build_channel(self, channel: Channel) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": channel.id,
            "is_channel": channel.kind == "channel",
            "is_group": channel.kind == "group",
            "is_im": channel.kind == "im",
            "is_mpim": channel.kind == "mpim",
            "is_private": channel.kind != "channel",
            "is_archived": channel.is_archived,
            "is_ext_shared": channel.is_ext_shared,
            "is_member": self._is_inside(channel),
        }
        if channel.kind == "im":
            others = channel.members - {self._workspace.bot_user_id}
            return shown | {"user": next(iter(others))}
        return shown | {"name": channel.name, "num_members": len(channel.members)}

    def _open_conversation(self, arguments: Arguments) -> Answer:
        user_ids = [user for user in str(arguments.get("users", "")).split(",") if user]
        self._need("im:write" if len(user_ids) < 2 else "mpim:write")
        if not user_ids:
            channel = self._reach(str(arguments.get("channel", "")))
        elif not all(user in self._workspace.members for user in user_ids):
            raise SlackRefusalError("user_not_found")
        elif any(self._workspace.members[user].deleted for user in user_ids):
            raise SlackRefusalError("user_disabled")
        else:
            channel = self._workspace.open_dm(*user_ids)
        if _is_set(arguments, "return_im"):
            return {"channel": self._build_channel(channel)}
        return {"channel": {"id": channel.id}}

    def _reactable(self, arguments: Arguments) -> tuple[SlackMessage, str]:
        name = str(arguments.get("name", ""))
        if not EMOJI_PATTERN.fullmatch(name):
            raise SlackRefusalError("invalid_name")
        if not TS_PATTERN.fullmatch(str(arguments.get("timestamp", ""))):
            raise SlackRefusalError("bad_timestamp")
        channel = self._reach_open(str(arguments.get("channel", "")))
        return self._find(channel.id, arguments["timestamp"]), name

    def _add_reaction(self, arguments: Arguments) -> Answer:
        message, name = self._reactable(arguments)
        users = message.reactions.setdefault(name, [])
        if self._workspace.bot_user_id in users:
            raise SlackRefusalError("already_reacted")
        users.append(self._workspace.bot_user_id)
        return {}

    def _remove_reaction(self, arguments: Arguments) -> Answer:
        message, name = self._reactable(arguments)
        users = message.reactions.get(name, [])
        if self._workspace.bot_user_id not in users:
            raise SlackRefusalError("no_reaction")
        users.remove(self._workspace.bot_user_id)
        if not users:
            del message.reactions[name]
        return {}

    def _set_status(self, arguments: Arguments) -> Answer:
        channel = self._reach_open(str(arguments.get("channel_id", "")))
        thread_ts = self._thread_of(arguments, channel)
        status, loading = arguments.get("status"), arguments.get("loading_messages", [])
        if thread_ts is None or not isinstance(status, str) or len(loading) > 10:
            raise SlackRefusalError("invalid_arguments")
        self._workspace.set_status(channel.id, thread_ts, status)
        return {}

    def _test_auth(self, _: Arguments) -> Answer:
        return {
            "url": "https://local.example.com/",
            "team": "Local",
            "user": "shopmate",
            "team_id": self._workspace.team_id,
            "user_id": self._workspace.bot_user_id,
            "bot_id": self._workspace.bot_id,
            "is_enterprise_install": False,
        }

    def _show_team(self, _: Arguments) -> Answer:
        team = {"id": self._workspace.team_id, "name": "Local", "domain": "local"}
        return {"team": team | {"url": "https://local.example.com/"}}

    def _open_connection(self, _: Arguments) -> Answer:
        return {"url": self._open_socket_url()}

    def _show_user(self, arguments: Arguments) -> Answer:
        member = self._workspace.members.get(str(arguments.get("user", "")))
        if member is None:
            raise SlackRefusalError("user_not_found")
        return {"user": self._build_user(member)}

    def _build_user(self, member: Member) -> dict[str, Any]:
        profile: dict[str, Any] = {
            "real_name": member.real_name,
            "display_name": member.name,
            "team": member.team_id,
        }
        if member.email is not None and "users:read.email" in self.scopes:
            profile["email"] = member.email
        user: dict[str, Any] = {
            "id": member.id,
            "team_id": member.team_id,
            "name": member.name,
            "deleted": member.deleted,
            "profile": profile,
            "is_bot": member.is_bot,
            "is_app_user": False,
            "updated": int(self._workspace.clock()),
        }
        if member.deleted:
            return user
        return user | {
            "real_name": member.real_name,
            "tz": "Etc/UTC",
            "is_restricted": member.is_restricted,
            "is_ultra_restricted": member.is_ultra_restricted,
            "is_stranger": member.is_stranger,
            "is_email_confirmed": member.is_email_confirmed,
        }


def _blocks_of(arguments: Arguments) -> list[Mapping[str, Any]]:
    """The blocks as sent; `markdown_text` is one markdown block."""
    if markdown_text := arguments.get("markdown_text"):
        return [{"type": "markdown", "text": markdown_text}]
    return arguments.get("blocks") or []


def _finds_names(arguments: Arguments) -> bool:
    return arguments.get("parse") == "full" or _is_set(arguments, "link_names")


def _split(text: str, *, is_split: bool) -> list[str]:
    """The text in the messages that Slack makes of it; at least one."""
    text = text[:MAX_TEXT_CHARS]
    if not is_split or not text:
        return [text]
    return [text[at : at + MAX_POST_CHARS] for at in range(0, len(text), MAX_POST_CHARS)]


def _is_set(arguments: Arguments, name: str) -> bool:
    return arguments.get(name) in (True, "1", "true", "True")


def _between(messages: Sequence[SlackMessage], arguments: Arguments) -> list[SlackMessage]:
    """The messages after `oldest` and before `latest`, or on them if `inclusive`."""
    oldest, latest = (_parse_bound(arguments, name) for name in ("oldest", "latest"))
    bounds = {bound for bound in (oldest, latest) if bound is not None}
    is_inclusive = _is_set(arguments, "inclusive")
    return [
        message
        for message in messages
        if (oldest is None or float(message.ts) >= oldest)
        and (latest is None or float(message.ts) <= latest)
        and (is_inclusive or float(message.ts) not in bounds)
    ]


def _parse_bound(arguments: Arguments, name: str) -> float | None:
    value = arguments.get(name)
    if value in (None, "", "now"):
        return None
    try:
        return float(str(value))
    except ValueError as error:
        raise SlackRefusalError(f"invalid_ts_{name}") from error


def _build_cursor(start: int) -> str:
    return base64.b64encode(f"next:{start}".encode()).decode()


def _parse_cursor(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        return int(base64.b64decode(cursor, validate=True).decode().removeprefix("next:"))
    except (binascii.Error, ValueError) as error:
        raise SlackRefusalError("invalid_cursor") from error
