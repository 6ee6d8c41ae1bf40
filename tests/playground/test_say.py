"""`shopmate playground --say`: the real bot as a process, and what is left of it afterwards."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from slackbot.playground.bot_process import bot_environment, start_bot
from slackbot.playground.claude_mind import Body, Reply, TextBlock
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.say import STAND_IN, say_once
from slackbot.playground.slack_server import LocalSlack

TRACKING_LINK = "https://track.royalmail.com/tracking/RM493827651GB"
LONG_ANSWER = "write 2,500 words"

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder for temporary folders; empty once everything has ended."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(temporary: Path) -> Path:
    """A temporary folder."""
    folder = temporary / "folder"
    folder.mkdir()
    return folder


def assert_nothing_is_left(temporary: Path) -> None:
    assert list(temporary.iterdir()) == []
    assert bots_in(temporary) == []


def bots_in(temporary: Path) -> list[psutil.Process]:
    """The processes that live in a folder there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if temporary in Path(process.cwd()).parents:
                found.append(process)
    return found


@asynccontextmanager
async def playground(text: str, folder: Path, environ: Mapping[str, str]) -> AsyncIterator[Process]:
    """The command as a process in `folder`; killed, if it still runs, at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "slackbot", "playground", "--say", text),
        cwd=folder,
        env=dict(environ),
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(40):
            yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
def environ(temporary: Path) -> dict[str, str]:
    """The real environment of somebody who runs ShopMate in a workspace, behind a proxy."""
    return {
        "HOME": str(temporary.parent),
        "TMPDIR": str(temporary),
        "SLACK_BOT_TOKEN": "xoxb-of-the-workspace",
        "SLACK_APP_TOKEN": "xapp-of-the-workspace",
        "SLACK_API_URL": "http://127.0.0.1:1/",
        "ANTHROPIC_API_KEY": "sk-ant-of-the-shop",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1/",
        "SHOPMATE_CHAT_MODEL": "a-model-of-the-shop",
        "DATABASE_URL": "sqlite:////missing/of-the-shop.db",
        "HOST": "203.0.113.1",
        "PORT": "9999",
        "http_proxy": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
    }


async def test_a_question_about_an_order_is_answered_with_the_tracking_link(
    environ: dict[str, str], temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("SLACK_BOT_TOKEN=xoxb-of-the-file\nDATABASE_URL=nonsense\n")

    async with playground("Where is my order ORD-1001?", tmp_path, environ) as process:
        out, err = await process.communicate()

    said = out.decode()
    assert (process.returncode, err.decode()) == (0, "")
    assert said.startswith(STAND_IN)
    assert "\nAlex Morgan: @ShopMate Where is my order ORD-1001?\n" in said
    assert "\nShopMate: Your order ORD-1001, Sunset Gradient Tee" in said
    assert TRACKING_LINK in said
    assert_nothing_is_left(temporary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_command_ends_both(
    environ: dict[str, str], temporary: Path, tmp_path: Path, number: signal.Signals
) -> None:
    async with playground(LONG_ANSWER, tmp_path, environ) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        assert len(bots_in(temporary)) == 1
        process.send_signal(number)
        _, err = await process.communicate()

    assert (process.returncode, err.decode().strip()) == (1, "Aborted!")
    assert_nothing_is_left(temporary)


async def test_ctrl_c_reaches_both_and_ends_both(
    environ: dict[str, str], temporary: Path, tmp_path: Path
) -> None:
    async with playground(LONG_ANSWER, tmp_path, environ) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        for bot in bots_in(temporary):
            bot.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert (process.returncode, err.decode().strip()) == (1, "Aborted!")
    assert_nothing_is_left(temporary)


async def test_what_is_said_is_shown_as_it_was_typed(folder: Path) -> None:
    shown: list[str] = []

    assert await say_once("<!channel> a < b & c > d &lt;", folder=folder, show=shown.append)

    assert "\nAlex Morgan: @ShopMate <!channel> a < b & c > d &lt;" in shown


@pytest.mark.parametrize(
    "reply",
    [
        Reply((TextBlock("I had better not"),), stop_reason="refusal"),
        Reply((TextBlock("And so on"),), stop_reason="max_tokens"),
    ],
)
async def test_an_answer_that_is_not_complete_is_a_failure(folder: Path, reply: Reply) -> None:
    def answer(_: Body) -> Reply:
        return reply

    shown: list[str] = []

    assert not await say_once("hello", folder=folder, show=shown.append, mind=answer)

    assert any(line.startswith("\nShopMate: ") for line in shown)
    assert shown[-1].startswith("\nNo complete answer came.")


async def test_a_bot_that_dies_is_a_failure(temporary: Path, folder: Path) -> None:
    shown: list[str] = []
    is_running = asyncio.Event()

    def show(line: str) -> None:
        shown.append(line)
        is_running.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(say_once(LONG_ANSWER, folder=folder, show=show))
        await is_running.wait()
        bots_in(temporary)[0].kill()

    assert not task.result()
    assert shown[-1] == "\nNo complete answer came."


async def test_a_bot_that_does_not_start_is_shown_with_its_reason(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "slack_bolt.py").write_text("raise ImportError('no bolt here')")
    shown: list[str] = []

    assert not await say_once("hello", folder=folder, show=shown.append)

    assert len(shown) == 1
    assert shown[0].startswith("The bot did not start.\n")
    assert "ImportError: no bolt here" in shown[0]


def test_nothing_of_a_real_workspace_is_in_the_bots_environment(
    slack: LocalSlack,
    claude: LocalClaude,
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "of-the-workspace")

    built = bot_environment(slack, claude, tmp_path / "shop.db")

    theirs = set(environ.values()) - {environ["HOME"], environ["TMPDIR"]}
    assert theirs & set(built.values()) == set()
    assert "SLACK_SIGNING_SECRET" not in built
    assert built["HOME"] == environ["HOME"]


async def test_what_is_no_log_line_is_kept_apart(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path
) -> None:
    program = 'import sys; print("7", "words", \'{"event": "seen"}\', sep="\\n", file=sys.stderr)'
    environ = bot_environment(slack, claude, tmp_path / "shop.db")

    async with start_bot(environ, folder=tmp_path, command=("-c", program)) as bot:
        assert await bot.wait_for("seen") == {"event": "seen"}
        assert await bot.wait_for("never") is None

    assert bot.noise == ["7", "words"]
