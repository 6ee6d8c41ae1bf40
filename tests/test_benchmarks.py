"""The benchmarks in a tiny form, so that they still run when they are needed."""

import os

import psutil
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from benchmarks import (
    filled_database,
    memory,
    one_at_a_time,
    one_channel,
    thread_cost,
    throughput,
    twenty_at_once,
)
from benchmarks.__main__ import BENCHMARKS, Benchmark
from benchmarks.questions import Question
from benchmarks.report import Figure, at_least, at_most, percentile, render_table
from benchmarks.stage import Asked, Bench, Size, Stage, Verdict
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_server import LocalSlack

TINY = Bench(Size.TINY)


@pytest.fixture
def stage(slack: LocalSlack, claude: LocalClaude) -> Stage:
    """A stage without a bot: the test itself speaks for it."""
    return Stage(slack, claude, psutil.Process(os.getpid()))


@pytest.fixture
def voice(slack: LocalSlack) -> AsyncWebClient:
    """What the bot would post with."""
    return AsyncWebClient(token=slack.bot_token, base_url=slack.url)


async def _reply(voice: AsyncWebClient, asked: Asked, text: str) -> None:
    await voice.chat_postMessage(channel=asked.channel, thread_ts=asked.thread_ts, text=text)


@pytest.mark.slow  # each starts a bot of its own
@pytest.mark.processes
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "run",
    [
        filled_database.run,
        memory.run,
        one_at_a_time.run,
        one_channel.run,
        throughput.run,
        twenty_at_once.run,
    ],
)
async def test_a_benchmark_measures_its_figures(run: Benchmark) -> None:
    figures = await run(TINY)

    assert figures
    assert not [figure for figure in figures if "nan" in figure.measured]
    assert all(figure.is_ok for figure in figures if "wrong" in figure.name)


async def test_the_cost_of_a_thread_is_measured() -> None:
    figures = await thread_cost.run(TINY)

    assert len(figures) == 2 * len(thread_cost.GAPS)
    assert all(figure.is_ok for figure in figures if "largest request" in figure.name)


def test_every_benchmark_is_run_by_default() -> None:
    assert len(BENCHMARKS) == 7


def test_every_question_has_an_answer_of_its_own_and_of_the_length_it_asks_for() -> None:
    questions = [Question(number, chars) for number in range(1, 40) for chars in (60, 400)]

    answers = {question.answer for question in questions}

    assert len(answers) == len(questions)
    assert {len(answer) for answer in answers} <= {58, 59, 60, 398, 399, 400}


async def test_the_right_answer_is_right(stage: Stage, voice: AsyncWebClient) -> None:
    asked = stage.ask(stage.slack.support.id)

    await _reply(voice, asked, asked.question.answer)

    assert stage.verdict(asked) is Verdict.RIGHT


async def test_no_answer_is_missing(stage: Stage) -> None:
    asked = stage.ask(stage.slack.support.id)

    assert stage.verdict(asked) is Verdict.MISSING


async def test_half_an_answer_is_unfinished(stage: Stage, voice: AsyncWebClient) -> None:
    asked = stage.ask(stage.slack.support.id)

    await _reply(voice, asked, asked.question.answer[:100])

    assert stage.verdict(asked) is Verdict.UNFINISHED


async def test_somebody_elses_answer_is_wrong(stage: Stage, voice: AsyncWebClient) -> None:
    asked, other = stage.ask(stage.slack.support.id), stage.ask(stage.slack.copy.id)

    await _reply(voice, asked, other.question.answer)

    assert stage.verdict(asked) is Verdict.WRONG


async def test_the_same_answer_twice_is_double(stage: Stage, voice: AsyncWebClient) -> None:
    asked = stage.ask(stage.slack.support.id)

    await _reply(voice, asked, asked.question.answer)
    await _reply(voice, asked, asked.question.answer)

    assert stage.verdict(asked) is Verdict.DOUBLE


def test_a_missed_figure_is_marked() -> None:
    missed = at_most(10, "ms", name="wait", setup="alone", value=10.1)
    met = at_least(10, "/s", name="turns", setup="alone", value=10)

    table = render_table([missed, met])

    assert [line.split()[-1] for line in table.splitlines()[2:]] == ["MISSED", "ok"]


def test_a_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(1, 21)]

    assert (percentile(values, 50), percentile(values, 95)) == (10.0, 19.0)


def test_the_table_keeps_every_word() -> None:
    figure = Figure(
        name="a long name " * 5,
        setup="where and how " * 10,
        measured="1 ms",
        wanted="≤ 2 ms",
        is_ok=True,
    )

    table = render_table([figure])

    assert table.count("where") == 10
    assert table.count("name") == 5
