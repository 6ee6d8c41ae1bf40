import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from slack_bolt.async_app import AsyncApp
from slack_bolt.logger import get_bolt_logger

from slackbot.logs import LogFormat, set_up_logging, turn_logged
from slackbot.settings import Need, Settings

log = logging.getLogger("slackbot.somewhere")
SDKS = ("slack_bolt", "slack_sdk.web.async_base_client", "anthropic", "httpx2", "aiohttp.access")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("slackbot")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    root.handlers.clear()  # pytest's own would be closed
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def read_json(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def fail() -> None:
    raise ValueError("no such order")


def test_a_text_line_has_the_time_the_level_the_event_and_its_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(LogFormat.TEXT)

    log.info("turn.finished", extra={"steps": 3, "duration_s": 4.2})

    time, _, rest = capsys.readouterr().err.partition(" ")
    assert len(time.split(":")) == 3
    assert rest == "INFO turn.finished steps=3 duration_s=4.2\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("C0123", "C0123"),
        ("chat.update: not in channel", '"chat.update: not in channel"'),
        ('say "no"', r'"say \"no\""'),
        ("no\n12:00:00 ERROR forged", r'"no\n12:00:00 ERROR forged"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("Crème", "Crème"),
        (None, "None"),
    ],
)
def test_a_field_stays_one_word_of_its_text_line(
    capsys: pytest.CaptureFixture[str], value: Any, shown: str
) -> None:
    set_up_logging(LogFormat.TEXT)

    log.warning("post.unknown", extra={"reason": value})

    assert capsys.readouterr().err.endswith(f" WARNING post.unknown reason={shown}\n")


def test_a_json_line_is_one_object_with_the_fields_beside_the_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(LogFormat.JSON)

    log.info("turn.finished", extra={"steps": 3, "model": "a\nb", "place": {1}})

    [line] = read_json(capsys)
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "event": "turn.finished",
        "logger": "slackbot.somewhere",
        "steps": 3,
        "model": "a\nb",
        "place": "{1}",
    }


def test_no_field_takes_the_place_of_the_event(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.JSON)

    log.info("turn.finished", extra={"event": "other", "level": "NONE"})

    [line] = read_json(capsys)
    assert (line["event"], line["level"]) == ("turn.finished", "INFO")


def test_a_traceback_is_below_a_text_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.TEXT)

    try:
        fail()
    except ValueError:
        log.exception("tool.failed", extra={"tool": "get_order"})

    first, second, *_, last = capsys.readouterr().err.splitlines()
    assert first.endswith(" ERROR tool.failed tool=get_order")
    assert second == "Traceback (most recent call last):"
    assert last == "ValueError: no such order"


def test_a_traceback_is_a_field_of_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.JSON)

    try:
        fail()
    except ValueError:
        log.exception("tool.failed")

    [line] = read_json(capsys)
    assert line["traceback"].startswith("Traceback (most recent call last):")
    assert line["traceback"].endswith("ValueError: no such order")


@pytest.mark.parametrize("log_format", LogFormat)
def test_the_turn_is_on_every_line_inside_it_only(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    set_up_logging(log_format)

    with turn_logged(thread_ts="1.2", turn_id=7):
        log.info("inside")
        with turn_logged(thread_ts=None, turn_id=8):
            log.info("nested")
        log.info("inside again")
    log.info("outside")

    inside, nested, again, outside = capsys.readouterr().err.splitlines()
    assert "thread_ts" in inside
    assert "1.2" in inside
    assert "turn_id" in inside
    assert "thread_ts" not in nested
    assert "8" in nested.partition("turn_id")[2]
    assert "7" in again.partition("turn_id")[2]
    assert "turn_id" not in outside


async def test_turns_side_by_side_keep_their_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.JSON)
    both_started = asyncio.Barrier(2)

    async def run_turn(turn_id: int) -> None:
        with turn_logged(thread_ts=f"{turn_id}.0", turn_id=turn_id):
            await both_started.wait()
            log.info("turn.finished", extra={"expected": turn_id})

    async with asyncio.TaskGroup() as group:
        group.create_task(run_turn(1), name="turn 1")
        group.create_task(run_turn(2), name="turn 2")

    lines = read_json(capsys)
    assert sorted(line["expected"] for line in lines) == [1, 2]
    assert all(line["turn_id"] == line["expected"] for line in lines)
    assert all(line["thread_ts"] == f"{line['expected']}.0" for line in lines)


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
@pytest.mark.parametrize("name", SDKS)
def test_the_sdks_are_heard_from_warning_on(
    capsys: pytest.CaptureFixture[str], name: str, level: int
) -> None:
    set_up_logging(LogFormat.TEXT, level=level)

    logging.getLogger(name).info("a request with what people wrote")
    logging.getLogger(name).warning("sdk.warning")

    assert capsys.readouterr().err.endswith(" WARNING sdk.warning\n")


def test_a_logger_that_bolt_makes_is_heard_from_warning_on() -> None:
    set_up_logging(LogFormat.TEXT, level=logging.DEBUG)

    made = get_bolt_logger(AsyncApp)

    assert made.getEffectiveLevel() == logging.WARNING


@pytest.mark.parametrize(("level", "heard"), [(logging.INFO, 1), (logging.DEBUG, 2)])
def test_our_own_lines_are_heard_from_the_level_on(
    capsys: pytest.CaptureFixture[str], level: int, heard: int
) -> None:
    set_up_logging(LogFormat.TEXT, level=level)

    log.debug("step.started")
    log.info("turn.finished")

    assert len(capsys.readouterr().err.splitlines()) == heard


def test_setting_up_twice_still_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.TEXT)
    set_up_logging(LogFormat.JSON)

    log.info("turn.finished")

    assert [line["event"] for line in read_json(capsys)] == ["turn.finished"]


@pytest.mark.parametrize("log_format", LogFormat)
def test_no_secret_is_in_a_line_that_has_the_settings(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    secrets = {"SLACK_BOT_TOKEN": "xoxb-1-bot", "ANTHROPIC_API_KEY": "sk-ant-api03-key"}
    secrets["SLACK_APP_TOKEN"] = "xapp-1-app"
    settings = Settings.from_env(secrets, needs=[Need.SLACK, Need.CLAUDE])
    set_up_logging(log_format)

    log.info("shopmate.ready", extra={"settings": settings})

    line = capsys.readouterr().err
    assert "shopmate.db" in line
    assert not any(secret in line for secret in secrets.values())
