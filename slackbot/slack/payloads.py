"""From Slack's event payloads to what was heard, the text decoded."""

import re
from collections.abc import Mapping, Sequence
from html import unescape
from typing import Any

from slackbot.domain.conversation import ChannelKind, Place
from slackbot.domain.messages import Heard, HeardDeletion, HeardEdit, HeardMessage

# What people say comes without a subtype, or with one of these.
_SPOKEN = frozenset({None, "file_share", "thread_broadcast", "me_message"})
_TOKEN = re.compile(r"<([^<>\s|][^<>]*)>")
_PERSON = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>")
_CHANNEL_KIND_OF = {"C": ChannelKind.CHANNEL, "G": ChannelKind.GROUP, "D": ChannelKind.IM}


def parse_heard(body: Mapping[str, Any], *, bot_user: str) -> Heard | None:
    """What the event in `body` says; None for what is never meant for ShopMate.

    `body` is the outer payload of an `app_mention` or a `message` event.
    """
    event = body["event"]
    match event.get("subtype"):
        case "message_changed":
            return _parse_edit(body, event, bot_user)
        case "message_deleted":
            return _parse_deletion(body, event, event.get("deleted_ts"))
        case subtype if subtype in _SPOKEN:
            return _parse_message(body, event, event, bot_user)
        case _:
            return None


def parse_thread_message(
    message: Mapping[str, Any], *, team: str, channel: str, place: Place, bot_user: str
) -> HeardMessage | None:
    """A message as `conversations.replies` has it; None for what no person said."""
    if message.get("subtype") not in _SPOKEN or not _is_human(message, bot_user):
        return None
    return _build_message(message, team=team, channel=channel, place=place, bot_user=bot_user)


def _parse_message(
    body: Mapping[str, Any],
    event: Mapping[str, Any],
    message: Mapping[str, Any],
    bot_user: str,
) -> HeardMessage | None:
    if not _is_human(message, bot_user):
        return None
    return _build_message(
        message,
        team=_team_of(body),
        channel=event["channel"],
        place=_place_of(body, event),
        bot_user=bot_user,
        is_mention=event["type"] == "app_mention",
    )


def _parse_edit(
    body: Mapping[str, Any], event: Mapping[str, Any], bot_user: str
) -> HeardEdit | HeardDeletion | None:
    now, before = event["message"], event.get("previous_message") or {}
    if now.get("subtype") == "tombstone":
        return _parse_deletion(body, event, now.get("ts"))
    if now.get("text") == before.get("text"):
        return None  # an unfurl
    message = _parse_message(body, event, now, bot_user)
    if message is None:
        return None
    was_mention = bot_user in _PERSON.findall(before.get("text") or "")
    return HeardEdit(message, added_mention=message.mentions_shopmate and not was_mention)


def _parse_deletion(
    body: Mapping[str, Any], event: Mapping[str, Any], ts: str | None
) -> HeardDeletion | None:
    return HeardDeletion(_team_of(body), event["channel"], ts) if ts else None


def _is_human(message: Mapping[str, Any], bot_user: str) -> bool:
    user = message.get("user")
    return bool(user) and not message.get("bot_id") and user != bot_user and user != "USLACKBOT"


def _build_message(
    message: Mapping[str, Any],
    *,
    team: str,
    channel: str,
    place: Place,
    bot_user: str,
    is_mention: bool = False,
) -> HeardMessage:
    raw = _whole_text(message)
    mentioned = dict.fromkeys(_PERSON.findall(raw))
    thread_ts = message.get("thread_ts")
    return HeardMessage(
        team=team,
        channel=channel,
        ts=message["ts"],
        # The root of a thread carries its own ts as thread_ts once it has replies.
        thread_ts=thread_ts if thread_ts != message["ts"] else None,
        author=message["user"],
        author_team=message.get("user_team") or message.get("team") or team,
        place=place,
        text=decode_text(raw, bot_user=bot_user),
        mentions=tuple(user for user in mentioned if user != bot_user),
        # What is forwarded was said to others.
        mentions_shopmate=is_mention or bot_user in _PERSON.findall(message.get("text") or ""),
        file_count=len(message.get("files") or ()),
    )


def _whole_text(message: Mapping[str, Any]) -> str:
    attachments: Sequence[Mapping[str, Any]] = message.get("attachments") or ()
    forwarded = [
        f"[forwarded from {one.get('author_name') or 'somebody'}]\n{one.get('text') or ''}"
        for one in attachments
        if one.get("is_share") or one.get("is_msg_unfurl")
    ]
    return "\n\n".join([message.get("text") or "", *forwarded]).strip()


def decode_text(text: str, *, bot_user: str) -> str:
    """Slack's encoded `text` as a person reads it, without the mention of ShopMate.

    People stand there as `@` and their id, for names are looked up later.
    """
    without_bot = re.sub(rf"<@{bot_user}(?:\|[^>]*)?>[ ,:]*", "", text)
    decoded = unescape(_TOKEN.sub(_decode_token, without_bot)).strip()
    return decoded.encode(errors="replace").decode()  # half an emoji is no text for anybody


def _decode_token(found: re.Match[str]) -> str:
    target, _, label = found[1].partition("|")
    match target[0]:
        case "@":
            return target
        case "#":
            return f"#{label or target[1:]}"
        case "!":
            return _decode_special(target[1:], label)
        case _:
            return _decode_link(target, label)


def _decode_special(target: str, label: str) -> str:
    if target.startswith(("subteam^", "date^")):
        return label or "@group"
    return f"@{target}"


def _decode_link(url: str, label: str) -> str:
    plain = url.removeprefix("mailto:").removeprefix("tel:")
    return plain if label in {"", plain, url} else f"{label} ({plain})"


def _team_of(body: Mapping[str, Any]) -> str:
    # The installing workspace; `team_id` may be another one's in a shared channel.
    authorizations = body.get("authorizations") or [{}]
    return str(authorizations[0].get("team_id") or body.get("team_id") or "")


def _place_of(body: Mapping[str, Any], event: Mapping[str, Any]) -> Place:
    named = event.get("channel_type")
    kind = ChannelKind(named) if named in set(ChannelKind) else _kind_by_id(event["channel"])
    return Place(kind, is_shared=bool(body.get("is_ext_shared_channel")))


def _kind_by_id(channel: str) -> ChannelKind:
    # An app_mention does not say what kind of channel it is in.
    return _CHANNEL_KIND_OF.get(channel[:1], ChannelKind.CHANNEL)
