import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from slackbot.errors import SettingsError
from slackbot.logs import LogFormat
from slackbot.settings import Need, Settings

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
SECRETS = {
    "SLACK_BOT_TOKEN": "xoxb-1-bot",
    "SLACK_APP_TOKEN": "xapp-1-app",
    "SLACK_SIGNING_SECRET": "0123456789abcdef0123456789abcdef",
    "ANTHROPIC_API_KEY": "sk-ant-api03-key",
}


class RecordedEnvironment(Mapping[str, str]):
    """An empty environment that knows which variables it was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getitem__(self, name: str) -> str:
        self.names.append(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def names_read() -> list[str]:
    environ = RecordedEnvironment()
    Settings.from_env(environ)
    return environ.names


def names_in_example() -> dict[str, str]:
    text = (REPOSITORY / ".env.example").read_text("utf-8")
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE))


def problems_of(environ: Mapping[str, str], *needs: Need) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(environ, needs=needs)
    return refused.value.problems


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize("name", names_read())
@pytest.mark.parametrize("nothing", ["", " ", "\n"])
def test_empty_counts_as_missing(name: str, nothing: str) -> None:
    assert Settings.from_env({name: nothing}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        *((name, text, name.lower(), text) for name, text in SECRETS.items()),
        ("SLACK_BOT_TOKEN", " xoxb-1 \n", "slack_bot_token", "xoxb-1"),
        ("SLACK_API_URL", "http://127.0.0.1:1/api", "slack_api_url", "http://127.0.0.1:1/api/"),
        ("SLACK_API_URL", "https://slack.com/api//", "slack_api_url", "https://slack.com/api/"),
        ("ANTHROPIC_BASE_URL", "http://[::1]:80/v", "anthropic_base_url", "http://[::1]:80/v"),
        ("DATABASE_URL", "sqlite:///a/b.db", "database_path", Path("a/b.db")),
        ("DATABASE_URL", "sqlite:////srv/b.db", "database_path", Path("/srv/b.db")),
        ("HOST", "0.0.0.0", "host", "0.0.0.0"),
        ("PORT", "0", "port", 0),
        ("PORT", "65535", "port", 65535),
        ("SHOPMATE_CHAT_MODEL", "llama", "chat_model", "llama"),
        ("SHOPMATE_COPY_MODEL", "llama", "copy_model", "llama"),
        ("SHOPMATE_TEAM_CHANNEL", "C0123456789", "team_channel", "C0123456789"),
        ("SHOPMATE_TEAM_CHANNEL", "G0123456789", "team_channel", "G0123456789"),
        ("SHOPMATE_TRUSTED_TEAMS", "T01, E02,,", "trusted_teams", frozenset({"T01", "E02"})),
        ("SHOPMATE_LOG", "JSON", "log_format", LogFormat.JSON),
        ("SHOPMATE_LOG", "text", "log_format", LogFormat.TEXT),
        ("SHOPMATE_DRAIN_S", "0", "drain_s", 0.0),
        ("SHOPMATE_DRAIN_S", "0.5", "drain_s", 0.5),
        ("SHOPMATE_DRAIN_S", "3600", "drain_s", 3600.0),
        ("SHOPMATE_HISTORY_TOKENS", "2000", "history_tokens", 2000),
        ("SHOPMATE_PACER", "Off", "paces_edits", False),
        ("SHOPMATE_PACER", "on", "paces_edits", True),
    ],
)
def test_a_good_value_is_taken(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(Settings.from_env({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("SLACK_BOT_TOKEN", "xapp-1", "must begin with 'xoxb-'"),
        ("SLACK_BOT_TOKEN", "xoxb-…", "must be one word of ASCII"),
        ("SLACK_BOT_TOKEN", "xoxb-1 2", "must be one word of ASCII"),
        ("SLACK_APP_TOKEN", "xoxb-1", "must begin with 'xapp-'"),
        ("SLACK_SIGNING_SECRET", "a b", "must be one word of ASCII"),
        ("ANTHROPIC_API_KEY", "sk-ant-…", "must be one word of ASCII"),
        ("SLACK_API_URL", "slack.com/api", "must be an http or https URL"),
        ("SLACK_API_URL", "ftp://slack.com/api", "not 'ftp://slack.com/api'"),
        ("SLACK_API_URL", "https:///api", "must be an http or https URL"),
        ("ANTHROPIC_BASE_URL", "https://[::1", "must be an http or https URL"),
        ("ANTHROPIC_BASE_URL", "https://a.example:99999", "must be an http or https URL"),
        ("ANTHROPIC_BASE_URL", "https://a b.example", "must be an http or https URL"),
        ("ANTHROPIC_BASE_URL", "https://me:word@a.example", "without a password"),
        ("DATABASE_URL", "postgres://db", "must look like 'sqlite:///shopmate.db'"),
        ("DATABASE_URL", "sqlite:///", "must look like 'sqlite:///shopmate.db'"),
        ("DATABASE_URL", "shopmate.db", "not 'shopmate.db'"),
        ("PORT", "65536", "must be a whole number from 0 to 65535, not '65536'"),
        ("PORT", "-1", "must be a whole number"),
        ("PORT", "80.0", "must be a whole number"),
        ("PORT", "9" * 5000, "must be a whole number"),
        ("SHOPMATE_TEAM_CHANNEL", "#support", "not '#support'"),
        ("SHOPMATE_TEAM_CHANNEL", "Customers", "must be a channel's id"),
        ("SHOPMATE_TEAM_CHANNEL", "D0123", "must be a channel's id"),
        ("SHOPMATE_TRUSTED_TEAMS", "T01,acme", "must be workspace ids"),
        ("SHOPMATE_TRUSTED_TEAMS", "T01 T02", "must be workspace ids"),
        ("SHOPMATE_TRUSTED_TEAMS", "Team", "must be workspace ids"),
        ("SHOPMATE_LOG", "xml", "must be 'text' or 'json', not 'xml'"),
        ("SHOPMATE_DRAIN_S", "20s", "must be seconds from 0 to 3600, not '20s'"),
        ("SHOPMATE_DRAIN_S", "3601", "must be seconds"),
        ("SHOPMATE_DRAIN_S", "-1", "must be seconds"),
        ("SHOPMATE_DRAIN_S", "nan", "must be seconds"),
        ("SHOPMATE_HISTORY_TOKENS", "1999", "must be a whole number from 2000 to 900000"),
        ("SHOPMATE_HISTORY_TOKENS", "900001", "must be a whole number"),
        ("SHOPMATE_PACER", "yes", "must be 'on' or 'off', not 'yes'"),
    ],
)
def test_a_bad_value_is_named_with_what_it_must_be(name: str, text: str, reason: str) -> None:
    [problem] = problems_of({name: text})

    assert problem.startswith(f"{name} must ")
    assert reason in problem


def test_everything_missing_or_bad_is_said_at_once() -> None:
    environ = {"PORT": "http", "SHOPMATE_LOG": "xml", "SLACK_APP_TOKEN": "xoxb-1"}

    problems = problems_of(environ, Need.SLACK, Need.CLAUDE)

    assert sorted(problem.split()[0] for problem in problems) == [
        "ANTHROPIC_API_KEY",
        "PORT",
        "SHOPMATE_LOG",
        "SLACK_APP_TOKEN",
        "SLACK_BOT_TOKEN",
    ]


def test_a_bad_value_is_not_reported_as_missing_too() -> None:
    environ = {"SLACK_BOT_TOKEN": "x", "SLACK_APP_TOKEN": "x", "ANTHROPIC_API_KEY": "ü"}

    problems = problems_of(environ, Need.SLACK, Need.CLAUDE)

    assert len(problems) == 3
    assert not any("missing" in problem for problem in problems)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ([], ["SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"]),
        (["SLACK_BOT_TOKEN"], ["SLACK_APP_TOKEN"]),
        (["SLACK_APP_TOKEN"], ["SLACK_BOT_TOKEN"]),
        (["SLACK_SIGNING_SECRET"], ["SLACK_BOT_TOKEN"]),
    ],
)
def test_slack_needs_a_bot_token_and_a_way_in(given: list[str], missing: list[str]) -> None:
    problems = problems_of({name: SECRETS[name] for name in given}, Need.SLACK)

    assert [problem.split(" is missing")[0] for problem in problems] == missing


@pytest.mark.parametrize(
    ("way_in", "is_socket"), [("SLACK_APP_TOKEN", True), ("SLACK_SIGNING_SECRET", False)]
)
def test_either_way_into_slack_will_do(way_in: str, is_socket: bool) -> None:
    environ = {name: SECRETS[name] for name in ("SLACK_BOT_TOKEN", way_in)}

    settings = Settings.from_env(environ, needs=[Need.SLACK])

    assert settings.uses_socket_mode is is_socket


def test_the_way_to_http_is_said_where_both_ways_are_missing() -> None:
    problems = problems_of({"SLACK_BOT_TOKEN": SECRETS["SLACK_BOT_TOKEN"]}, Need.SLACK)

    assert "SLACK_SIGNING_SECRET" in problems[0]


def test_nothing_is_needed_unless_a_command_asks() -> None:
    assert Settings.from_env({}, needs=[]) == Settings()


def test_no_secret_is_in_the_text_of_the_settings() -> None:
    settings = Settings.from_env(SECRETS, needs=[Need.SLACK, Need.CLAUDE])

    for secret in SECRETS.values():
        assert secret not in repr(settings)
        assert secret not in f"{settings}"


@pytest.mark.parametrize(
    "secret", [*SECRETS.values(), "postgres://me:pass-word@db.example/shop", "xoxb-ö-secret"]
)
def test_no_secret_is_in_an_error_even_in_the_wrong_variables(secret: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(dict.fromkeys(names_read(), secret))

    assert len(refused.value.problems) > 5
    assert secret not in f"{refused.value} {refused.value!r}"
    assert refused.value.__context__ is None


def test_the_example_has_every_variable_that_is_read() -> None:
    assert sorted(names_in_example()) == sorted(names_read())


def test_the_example_shows_the_defaults() -> None:
    assert Settings.from_env(names_in_example()) == Settings()


def test_the_example_explains_every_variable() -> None:
    paragraph = ""
    for line in (REPOSITORY / ".env.example").read_text("utf-8").splitlines():
        if re.match(r"#?[A-Z][A-Z0-9_]*=", line):
            assert paragraph, line
        else:
            paragraph = line


@pytest.mark.skipif(not README.exists(), reason="README.md is not written yet")
def test_the_readme_has_every_variable_that_is_read() -> None:
    table = re.findall(r"^\| `([A-Z][A-Z0-9_]*)` \|", README.read_text("utf-8"), re.MULTILINE)

    assert sorted(table) == sorted(names_read())
