"""Log lines: an event's name and its fields, as text for people or JSON for machines."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

_thread_ts: ContextVar[str | None] = ContextVar("thread_ts", default=None)
_turn_id: ContextVar[int | None] = ContextVar("turn_id", default=None)

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
BOLT_LOGGER = "slackbot.slack.bolt"


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


def set_up_logging(log_format: LogFormat, *, level: int = logging.INFO) -> None:
    """Sends log lines to standard error in `log_format`: ours from `level` on.

    The SDKs log whole requests, with what people wrote: theirs only from WARNING on.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    # By way of the root logger: Bolt gives each logger of its own the root's level.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("slackbot").setLevel(level)
    # Bolt warns at every start that its own ways of finding a token are not used.
    logging.getLogger(BOLT_LOGGER).setLevel(logging.ERROR)


@contextmanager
def turn_logged(*, thread_ts: str | None, turn_id: int) -> Iterator[None]:
    """Adds the thread and the turn to every line logged inside."""
    thread_token, turn_token = _thread_ts.set(thread_ts), _turn_id.set(turn_id)
    try:
        yield
    finally:
        _thread_ts.reset(thread_token)
        _turn_id.reset(turn_token)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
    context = {"thread_ts": _thread_ts.get(), "turn_id": _turn_id.get()}
    return {name: value for name, value in context.items() if value is not None} | fields


def _as_word(value: Any) -> str:
    text = str(value)
    is_word = text.isprintable() and not set(text) & {" ", '"'}
    return text if is_word else json.dumps(text, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:00:00 INFO turn.finished steps=2 …`, a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = "".join(f" {name}={_as_word(value)}" for name, value in _fields(record).items())
        line = f"{time} {record.levelname} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Twice: its own places come first, and no field takes one of them.
        return json.dumps(line | _fields(record) | line, ensure_ascii=False, default=str)
