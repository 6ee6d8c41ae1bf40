"""The app's manifest: what ShopMate asks of Slack, in one place for the file and the command."""

import re
from typing import Any

import yaml

EVENTS_PATH = "/slack/events"
BOT_EVENTS = ("app_mention", "message.channels", "message.groups", "message.im", "message.mpim")
BOT_SCOPES = (
    "app_mentions:read",
    "channels:history",
    "chat:write",
    "groups:history",
    "im:history",
    "im:write",
    "mpim:history",
    "reactions:write",
    "users:read",
    "users:read.email",
)

_DESCRIPTION = "Answers questions about ThreadCo's orders, in threads and direct messages."
_LONG_DESCRIPTION = (
    "Mention ShopMate in a channel, or write to it directly, and it answers with real order data "
    "in a message that grows as it is written. Follow-ups in the thread need no mention. Customers "
    "who write to it directly see their own orders only. What it cannot settle goes to the team."
)
_BACKGROUND_COLOR = "#2f5d50"
_WIDTH = 96
_BASE_URL = re.compile(r"https://[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[^\s?#]*)?", re.IGNORECASE)


def build_manifest(*, url: str | None = None) -> dict[str, Any]:
    """The manifest, its keys in the order of Slack's documentation.

    `url` is where Slack reaches ShopMate over HTTP, without the path of the events; None for
    Socket Mode.

    Raises:
        ValueError: `url` is no https URL that Slack could send events to.
    """
    request_url = {"request_url": _events_url(url)} if url is not None else {}
    return {
        "_metadata": {"major_version": 2},
        "display_information": {
            "name": "ShopMate",
            "description": _DESCRIPTION,
            "long_description": _LONG_DESCRIPTION,
            "background_color": _BACKGROUND_COLOR,
        },
        "features": {
            "app_home": {
                "home_tab_enabled": False,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": False,
            },
            "bot_user": {"display_name": "ShopMate", "always_online": True},
        },
        "oauth_config": {"scopes": {"bot": list(BOT_SCOPES)}},
        "settings": {
            "event_subscriptions": {**request_url, "bot_events": list(BOT_EVENTS)},
            "interactivity": {"is_enabled": True, **request_url},
            "org_deploy_enabled": False,
            "socket_mode_enabled": url is None,
            "token_rotation_enabled": False,
        },
    }


def render_manifest(url: str | None = None) -> str:
    """The manifest as YAML, to be pasted into Slack.

    Raises:
        ValueError: `url` is no https URL that Slack could send events to.
    """
    manifest = build_manifest(url=url)
    way = "Socket Mode" if url is None else "HTTP"
    header = (
        f"# ShopMate's Slack app, for {way}: api.slack.com/apps, Create New App, From a manifest.\n"
        "# Printed by `shopmate manifest`.\n"
    )
    return header + yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=_WIDTH)


def _events_url(url: str) -> str:
    if not _BASE_URL.fullmatch(url):
        raise ValueError(f"must be like 'https://shopmate.example.com', not {url!r}")
    return url.rstrip("/").removesuffix(EVENTS_PATH) + EVENTS_PATH
