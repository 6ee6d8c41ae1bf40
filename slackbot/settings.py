"""The settings: one frozen value, read from the environment in one place."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from slackbot.errors import SettingsError
from slackbot.logs import LogFormat

T = TypeVar("T")
DATABASE_SCHEME = "sqlite:///"
MAX_DRAIN_S = 3600

_SECRET_NAMES = ("_TOKEN", "_SECRET", "_KEY")
# A secret in the wrong place is still one: Slack's, Claude's, or a password in a URL.
_SECRET_VALUE = re.compile(r"xox\w-|xapp-|sk-ant-|\b[0-9a-f]{32}\b|://[^/]*@", re.IGNORECASE)


class Need(StrEnum):
    """What a command cannot do without."""

    SLACK = "slack"
    CLAUDE = "claude"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that may differ between one installation and another."""

    slack_bot_token: str = field(default="", repr=False)
    slack_app_token: str = field(default="", repr=False)
    slack_signing_secret: str = field(default="", repr=False)
    slack_api_url: str = "https://slack.com/api/"
    anthropic_api_key: str = field(default="", repr=False)
    anthropic_base_url: str = "https://api.anthropic.com"
    database_path: Path = Path("shopmate.db")
    host: str = "127.0.0.1"
    port: int = 3000
    chat_model: str = "claude-sonnet-4-6"
    copy_model: str = "claude-haiku-4-5-20251001"
    team_channel: str | None = None
    trusted_teams: frozenset[str] = frozenset()
    log_format: LogFormat = LogFormat.TEXT
    drain_s: float = 20.0
    history_tokens: int = 30_000
    paces_edits: bool = True

    @property
    def uses_socket_mode(self) -> bool:
        """Whether events come over a socket that ShopMate opens, instead of HTTP requests."""
        return bool(self.slack_app_token)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, needs: Collection[Need] = ()) -> "Settings":
        """The settings in `environ`; what is empty there counts as missing.

        Raises:
            SettingsError: with every missing or bad variable at once, by name.
        """
        reader, usual = _Reader(environ), cls()
        settings = cls(
            slack_bot_token=reader.read("SLACK_BOT_TOKEN", _secret("xoxb-"), ""),
            slack_app_token=reader.read("SLACK_APP_TOKEN", _secret("xapp-"), ""),
            slack_signing_secret=reader.read("SLACK_SIGNING_SECRET", _secret(), ""),
            slack_api_url=reader.read("SLACK_API_URL", _slack_url, usual.slack_api_url),
            anthropic_api_key=reader.read("ANTHROPIC_API_KEY", _secret(), ""),
            anthropic_base_url=reader.read("ANTHROPIC_BASE_URL", _url, usual.anthropic_base_url),
            database_path=reader.read("DATABASE_URL", _database_path, usual.database_path),
            host=reader.read("HOST", str, usual.host),
            port=reader.read("PORT", _whole_number(0, 65535), usual.port),
            chat_model=reader.read("SHOPMATE_CHAT_MODEL", str, usual.chat_model),
            copy_model=reader.read("SHOPMATE_COPY_MODEL", str, usual.copy_model),
            team_channel=reader.read("SHOPMATE_TEAM_CHANNEL", _channel_id, None),
            trusted_teams=reader.read("SHOPMATE_TRUSTED_TEAMS", _team_ids, frozenset()),
            log_format=reader.read("SHOPMATE_LOG", _log_format, usual.log_format),
            drain_s=reader.read("SHOPMATE_DRAIN_S", _seconds, usual.drain_s),
            history_tokens=reader.read(
                "SHOPMATE_HISTORY_TOKENS", _whole_number(2_000, 900_000), usual.history_tokens
            ),
            paces_edits=reader.read("SHOPMATE_PACER", _switch, usual.paces_edits),
        )
        reader.require(settings, needs)
        return settings


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            given = "" if _is_secret(name, text) else f", not {text!r}"
            self._problems.append(f"{name} {error}{given}")
            return default

    def require(self, settings: Settings, needs: Collection[Need]) -> None:
        if Need.SLACK in needs:
            self._require_slack(settings)
        if Need.CLAUDE in needs and not settings.anthropic_api_key:
            self._missing("ANTHROPIC_API_KEY", "console.anthropic.com, API keys")
        if self._problems:
            raise SettingsError(tuple(self._problems))

    def _require_slack(self, settings: Settings) -> None:
        if not settings.slack_bot_token:
            self._missing("SLACK_BOT_TOKEN", "the app's page, OAuth & Permissions; xoxb-…")
        if settings.slack_app_token or settings.slack_signing_secret:
            return
        if not self._environ.get("SLACK_APP_TOKEN", "").strip():
            self._missing(
                "SLACK_APP_TOKEN",
                "for Socket Mode, the app's page, Basic Information, App-Level Tokens; xapp-…; "
                "for HTTP set SLACK_SIGNING_SECRET instead",
            )

    def _missing(self, name: str, where: str) -> None:
        if not any(problem.startswith(f"{name} ") for problem in self._problems):
            self._problems.append(f"{name} is missing (where to find it: {where})")


def _is_secret(name: str, text: str) -> bool:
    return name.endswith(_SECRET_NAMES) or bool(_SECRET_VALUE.search(text))


def _secret(prefix: str = "") -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not text.startswith(prefix):
            raise ValueError(f"must begin with {prefix!r}")
        # It is sent in an HTTP header, or is a key: a placeholder like "xoxb-…" is neither.
        if not re.fullmatch(r"[!-~]+", text):
            raise ValueError("must be one word of ASCII letters, digits and hyphens")
        return text

    return parse


def _url(text: str) -> str:
    if not _is_http_url(text):
        raise ValueError("must be an http or https URL without a password in it")
    return text


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_http = parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        return False
    return is_http and bool(parts.hostname) and "@" not in parts.netloc and " " not in text


def _slack_url(text: str) -> str:
    return _url(text).rstrip("/") + "/"


def _database_path(text: str) -> Path:
    if not text.startswith(DATABASE_SCHEME) or text == DATABASE_SCHEME:
        raise ValueError("must look like 'sqlite:///shopmate.db'")
    return Path(text.removeprefix(DATABASE_SCHEME))


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", text) or float(text) > MAX_DRAIN_S:
        raise ValueError(f"must be seconds from 0 to {MAX_DRAIN_S}")
    return float(text)


def _channel_id(text: str) -> str:
    if not re.fullmatch(r"[CG][A-Z0-9]+", text):
        raise ValueError("must be a channel's id like 'C0123456789'")
    return text


def _team_ids(text: str) -> frozenset[str]:
    ids = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not all(re.fullmatch(r"[TE][A-Z0-9]+", one) for one in ids):
        raise ValueError("must be workspace ids like 'T0123,T0456'")
    return ids


def _log_format(text: str) -> LogFormat:
    try:
        return LogFormat(text.lower())
    except ValueError:
        raise ValueError("must be 'text' or 'json'") from None


def _switch(text: str) -> bool:
    if text.lower() not in {"on", "off"}:
        raise ValueError("must be 'on' or 'off'")
    return text.lower() == "on"
