import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from slackbot.slack.calls import METHODS
from slackbot.slack.listeners.messages import EVENTS
from slackbot.slack.manifest import build_manifest, render_manifest

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "../shared/schemas/manifest.schema.2.0.0.json"
URL = "https://shopmate.example.com"

# Why ShopMate asks for each scope: the methods it calls and the events it hears with it.
USES_OF_SCOPES = {
    "app_mentions:read": {"app_mention"},
    "channels:history": {"message.channels", "conversations.replies"},
    "chat:write": {
        "assistant.threads.setStatus",
        "chat.delete",
        "chat.postMessage",
        "chat.update",
    },
    "groups:history": {"message.groups", "conversations.replies"},
    "im:history": {"message.im", "conversations.history", "conversations.replies"},
    "im:write": {"conversations.open"},
    "mpim:history": {"message.mpim", "conversations.replies"},
    "reactions:write": {"reactions.add", "reactions.remove"},
    "users:read": {"users.info"},
    "users:read.email": {"users.info"},  # without it a profile has no e-mail address
}
# Called with the app-level token, by the SDK.
METHODS_WITHOUT_BOT_TOKEN = {"apps.connections.open"}
METHOD_NAME = re.compile(
    r"\"((?:chat|conversations|reactions|users|assistant|auth|apps)(?:\.[a-zA-Z]+)+)\""
)


def bot_scopes(manifest: dict[str, Any]) -> list[str]:
    scopes: list[str] = manifest["oauth_config"]["scopes"]["bot"]
    return scopes


def bot_events(manifest: dict[str, Any]) -> list[str]:
    events: list[str] = manifest["settings"]["event_subscriptions"]["bot_events"]
    return events


def test_the_file_is_what_the_command_prints() -> None:
    assert (REPOSITORY / "manifest.yml").read_text("utf-8") == render_manifest()


@pytest.mark.parametrize("url", [None, URL])
def test_what_is_printed_is_the_manifest_after_a_comment(url: str | None) -> None:
    printed = render_manifest(url)

    assert printed.startswith("# ")
    assert yaml.safe_load(printed) == build_manifest(url=url)
    assert list(yaml.safe_load(printed)) == list(build_manifest(url=url))


@pytest.mark.skipif(
    not SCHEMA.exists(), reason="Slack's manifest schema is not beside the repository"
)
@pytest.mark.parametrize("url", [None, URL])
def test_slacks_schema_accepts_it(url: str | None) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))

    problems = [
        error.message for error in Draft7Validator(schema).iter_errors(build_manifest(url=url))
    ]

    assert problems == []


def test_texts_and_colour_keep_to_slacks_sizes() -> None:
    shown = build_manifest()["display_information"]

    assert len(shown["name"]) <= 35
    assert len(shown["description"]) <= 140
    assert 175 <= len(shown["long_description"]) <= 4000
    assert re.fullmatch("#[0-9a-f]{6}", shown["background_color"])


def test_socket_mode_has_no_request_urls() -> None:
    settings = build_manifest()["settings"]

    assert settings["socket_mode_enabled"] is True
    assert "request_url" not in settings["event_subscriptions"]
    assert settings["interactivity"] == {"is_enabled": True}


@pytest.mark.parametrize(
    ("url", "events_url"),
    [
        (URL, f"{URL}/slack/events"),
        (f"{URL}/", f"{URL}/slack/events"),
        (f"{URL}/slack/events", f"{URL}/slack/events"),
        (f"{URL}:8443/bots/shop", f"{URL}:8443/bots/shop/slack/events"),
    ],
)
def test_http_has_the_path_of_the_events_in_every_request_url(url: str, events_url: str) -> None:
    settings = build_manifest(url=url)["settings"]

    assert settings["socket_mode_enabled"] is False
    assert settings["event_subscriptions"]["request_url"] == events_url
    assert settings["interactivity"] == {"is_enabled": True, "request_url": events_url}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shopmate.example.com",
        "http://shopmate.example.com",
        "https://",
        "https:///slack",
        "https://?x",
        f"{URL}?team=1",
        f"{URL}/#top",
        f"{URL}/a b",
        f"{URL}\n",
        "https://user:word@shopmate.example.com",
        f"{URL}:port",
    ],
)
def test_a_url_that_slack_cannot_use_is_refused_by_value(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        build_manifest(url=url)


def test_people_can_write_to_it_directly() -> None:
    features = build_manifest()["features"]

    assert features["app_home"]["messages_tab_enabled"] is True
    assert features["app_home"]["messages_tab_read_only_enabled"] is False
    assert features["bot_user"]["display_name"] == "ShopMate"


def test_every_method_has_its_scope() -> None:
    needed = {scope for scope in METHODS.values() if scope is not None}

    assert needed <= set(bot_scopes(build_manifest()))
    for method, scope in METHODS.items():
        assert scope is None or method in USES_OF_SCOPES[scope]


def test_every_scope_has_a_use() -> None:
    manifest = build_manifest()

    assert bot_scopes(manifest) == sorted(USES_OF_SCOPES)
    for scope, uses in USES_OF_SCOPES.items():
        assert uses, scope
        assert uses <= {*METHODS, *bot_events(manifest)}, scope


def test_every_event_has_a_listener_and_its_scope() -> None:
    events = bot_events(build_manifest())

    assert {event.partition(".")[0] for event in events} == set(EVENTS)
    for event in events:
        _, _, kind = event.partition(".")
        scope = {"": "app_mentions:read"}.get(kind, f"{kind}:history")
        assert event in USES_OF_SCOPES[scope]


def test_every_method_in_the_code_is_a_known_one() -> None:
    sources = sorted((REPOSITORY / "slackbot/slack").rglob("*.py"))

    named = {name for source in sources for name in METHOD_NAME.findall(source.read_text("utf-8"))}

    assert named - METHODS_WITHOUT_BOT_TOKEN == set(METHODS)
