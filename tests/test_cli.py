"""The commands as people type them: what they print, and what they end with."""

import asyncio
import signal
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from slackbot.cli import commands
from slackbot.domain.orders import SAMPLE_ORDERS
from slackbot.playground.bot_process import bot_environment, start_bot
from slackbot.playground.claude_faults import Stalled
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_server import LocalSlack
from slackbot.slack.manifest import render_manifest
from slackbot.store.lock import hold_lock
from tests.test_settings import names_read

GOOD = "ORD-1,shipped,Blue Tee,3 May,RM1GB,jo@example.com\n"
HEADER = "order_id,status,item,eta,tracking,customer_email\n"
SAMPLE_IDS = [order.order_id for order in SAMPLE_ORDERS]
in_processes = [pytest.mark.processes, pytest.mark.timeout(60)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty, without any of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in names_read():
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def shopmate(*arguments: str, **environ: str) -> Result:
    result = CliRunner().invoke(commands, arguments, env=environ, prog_name="shopmate")
    assert isinstance(result.exception, SystemExit | None), "it crashed"
    return result


def order_ids(**environ: str) -> list[str]:
    listed = shopmate("orders", "list", **environ).stdout
    return [line.split()[0] for line in listed.splitlines()]


class TestImport:
    def test_a_good_file_replaces_the_samples(self, folder: Path) -> None:
        (folder / "orders.csv").write_text(HEADER + GOOD)

        result = shopmate("orders", "import", "orders.csv", DATABASE_URL="sqlite:///shop.db")

        assert result.exit_code == 0
        said = "1 added, 0 updated, 0 unchanged, 3 sample orders removed\n"
        assert (result.stdout, result.stderr) == (said, "")
        assert order_ids(DATABASE_URL="sqlite:///shop.db") == ["ORD-1"]

    def test_a_second_import_says_what_is_new(self, folder: Path) -> None:
        (folder / "orders.csv").write_text(HEADER + GOOD + "ORD-2,shipped,Tee,,,\n")
        shopmate("orders", "import", "orders.csv")
        (folder / "orders.csv").write_text(
            HEADER + GOOD + "ORD-2,delivered,Tee,,,\nORD-3,shipped,Tee,,,\n"
        )

        result = shopmate("orders", "import", "orders.csv")

        assert result.stdout == "1 added, 1 updated, 1 unchanged\n"

    def test_bad_rows_are_named_by_file_and_line_and_the_others_kept(self, folder: Path) -> None:
        (folder / "orders.csv").write_text(
            HEADER + "ORD-2,lost,Tee,,,\n" + GOOD + "ORD-3,shipped,,,,\n"
        )

        result = shopmate("orders", "import", "orders.csv")

        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            "orders.csv:2: status 'lost' is none of processing, shipped, delivered",
            "orders.csv:4: item is missing",
        ]
        assert result.stdout.endswith(", 2 bad rows\n")
        assert order_ids() == ["ORD-1"]

    def test_one_bad_row_is_one_row(self, folder: Path) -> None:
        (folder / "orders.csv").write_text(HEADER + GOOD + "ORD-2,lost,Tee,,,\n")

        assert shopmate("orders", "import", "orders.csv").stdout.endswith(", 1 bad row\n")

    def test_what_is_wrong_in_json_is_named_by_item(self, folder: Path) -> None:
        one = '{"order_id": "ORD-1", "status": "shipped", "item": "Tee"}'
        (folder / "orders.json").write_text(f"[\n\n\n{one},\n\n{one}]")

        result = shopmate("orders", "import", "orders.json")

        assert result.exit_code == 1
        assert result.stderr == "orders.json:2: order_id 'ORD-1' is in item 1 already\n"
        assert order_ids() == ["ORD-1"]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            pytest.param(None, "No such file or directory", id="missing"),
            pytest.param(b"\xe9\xff", "is not text in UTF-8", id="not text"),
            pytest.param(b"", "is empty", id="empty"),
            pytest.param(b"a,b\n1,2\n", "has no column order_id, status, item", id="no orders"),
        ],
    )
    def test_a_file_that_cannot_be_read_changes_nothing(
        self, folder: Path, content: bytes | None, reason: str
    ) -> None:
        if content is not None:
            (folder / "orders.csv").write_bytes(content)

        result = shopmate("orders", "import", "orders.csv")

        assert result.exit_code == 1
        assert result.stderr.startswith(f"shopmate: 'orders.csv': {reason}")
        assert not (folder / "shopmate.db").exists()
        assert order_ids() == SAMPLE_IDS

    @pytest.mark.parametrize("rows", ["", "ORD-2,lost,Tee,,,\n"])
    def test_a_file_without_a_good_row_leaves_the_samples(self, folder: Path, rows: str) -> None:
        (folder / "orders.csv").write_text(HEADER + rows)

        result = shopmate("orders", "import", "orders.csv")

        assert result.exit_code == 1
        assert "shopmate: no order could be read: nothing was changed\n" in result.stderr
        assert order_ids() == SAMPLE_IDS

    def test_a_database_that_cannot_be_written_is_said(self, folder: Path) -> None:
        (folder / "orders.csv").write_text(HEADER + GOOD)
        order_ids()
        make_unwritable(folder / "shopmate.db")

        result = shopmate("orders", "import", "orders.csv")

        assert result.exit_code == 1
        assert result.stderr == "shopmate: database: attempt to write a readonly database\n"


def make_unwritable(database: Path) -> None:
    """For everybody, root too: SQLite only reads a file of a newer write version."""
    with closing(sqlite3.connect(database)) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    with database.open("r+b") as file:
        file.seek(18)  # https://sqlite.org/fileformat.html#file_format_version_numbers
        file.write(b"\x03")


class TestOrders:
    def test_a_list_has_one_order_a_line(self) -> None:
        result = shopmate("orders", "list")

        assert result.exit_code == 0
        first = "ORD-1001  shipped     Sunset Gradient Tee (M, Orange)"
        assert result.stdout.splitlines()[0] == first
        assert order_ids() == SAMPLE_IDS

    def test_an_order_is_shown_with_all_that_is_known(self) -> None:
        result = shopmate("orders", "show", " ord-1001")

        assert result.exit_code == 0
        assert dict(line.split(maxsplit=1) for line in result.stdout.splitlines()) == {
            "order_id": "ORD-1001",
            "status": "shipped",
            "item": "Sunset Gradient Tee (M, Orange)",
            "eta": "2 Apr",
            "tracking": "RM493827651GB",
            "track_url": "https://track.royalmail.com/tracking/RM493827651GB",
            "customer_email": SAMPLE_ORDERS[0].customer_email or "-",
        }

    def test_what_is_not_known_is_a_dash(self) -> None:
        assert "tracking        -\n" in shopmate("orders", "show", "ORD-1002").stdout

    def test_an_unknown_order_is_named(self) -> None:
        result = shopmate("orders", "show", "ORD-9")

        assert (result.exit_code, result.stdout) == (1, "")
        assert "no order 'ORD-9'" in result.stderr

    @pytest.mark.parametrize("path", ["missing/shop.db", "text.db", "folder", "text.db/shop.db"])
    def test_a_database_that_cannot_be_opened_is_named(self, folder: Path, path: str) -> None:
        (folder / "text.db").write_text("This is not a database at all. " * 100)
        (folder / "folder").mkdir()

        result = shopmate("orders", "list", DATABASE_URL=f"sqlite:///{path}")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"shopmate: database '{path}': ")
        assert len(result.stderr.splitlines()) == 1

    def test_a_bad_setting_is_named(self) -> None:
        result = shopmate("orders", "list", DATABASE_URL="shop.db")

        assert result.exit_code == 2
        assert "DATABASE_URL must look like 'sqlite:///shopmate.db', not 'shop.db'" in result.stderr


class TestSettings:
    def test_a_file_in_the_current_folder_counts(self, folder: Path) -> None:
        (folder / ".env").write_text("DATABASE_URL=sqlite:///from_file.db\n")

        shopmate("orders", "list")

        assert (folder / "from_file.db").exists()

    def test_the_real_environment_goes_before_it(self, folder: Path) -> None:
        (folder / ".env").write_text("DATABASE_URL=sqlite:///from_file.db\n")

        shopmate("orders", "list", DATABASE_URL="sqlite:///real.db")

        assert (folder / "real.db").exists()
        assert not (folder / "from_file.db").exists()

    def test_an_empty_variable_hides_nothing(self, folder: Path) -> None:
        (folder / ".env").write_text("DATABASE_URL=sqlite:///from_file.db\n")

        shopmate("orders", "list", DATABASE_URL="")

        assert (folder / "from_file.db").exists()

    def test_a_name_without_a_value_is_missing(self, folder: Path) -> None:
        (folder / ".env").write_text("DATABASE_URL\n")

        shopmate("orders", "list")

        assert (folder / "shopmate.db").exists()

    def test_a_file_in_another_encoding_is_named(self, folder: Path) -> None:
        (folder / ".env").write_bytes("SLACK_BOT_TOKEN=xoxb-é".encode("latin-1"))

        result = shopmate("orders", "list")

        assert result.exit_code == 2
        assert f"shopmate: .env in {folder} is not text in UTF-8" in result.stderr

    def test_a_byte_order_mark_hides_no_variable(self, folder: Path) -> None:
        (folder / ".env").write_text("\ufeffDATABASE_URL=sqlite:///marked.db\n", encoding="utf-8")

        shopmate("orders", "list")

        assert (folder / "marked.db").exists()

    def test_run_names_all_that_is_missing(self, folder: Path) -> None:
        result = shopmate("run")

        assert result.exit_code == 2
        for name in ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "ANTHROPIC_API_KEY"):
            assert f"shopmate: {name} is missing" in result.stderr
        assert f"There is no .env in {folder}." in result.stderr

    def test_run_shows_no_secret_that_is_wrong(self) -> None:
        result = shopmate(
            "run",
            SLACK_BOT_TOKEN="xapp-hidden",
            SLACK_APP_TOKEN="xoxb-hidden",
            ANTHROPIC_API_KEY="sk-ant hidden",
            PORT="xoxb-hidden",
        )

        assert result.exit_code == 2
        assert len([line for line in result.stderr.splitlines() if " must be" in line]) == 4
        assert "hidden" not in result.output


class TestManifest:
    @pytest.mark.parametrize("url", [None, "https://shopmate.example.com"])
    def test_it_is_printed_for_either_way(self, url: str | None) -> None:
        result = shopmate("manifest", *(["--url", url] if url else []))

        assert (result.exit_code, result.stdout) == (0, render_manifest(url))
        assert yaml.safe_load(result.stdout)["settings"]["socket_mode_enabled"] is (url is None)

    @pytest.mark.parametrize("url", ["", "shopmate.example.com", "http://shopmate.example.com"])
    def test_a_url_that_slack_cannot_use_is_named(self, url: str) -> None:
        result = shopmate("manifest", "--url", url)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "Invalid value for --url" in result.stderr
        assert f"not {url!r}" in result.stderr


class TestHelp:
    @pytest.mark.parametrize(
        ("group", "names"),
        [
            ([], ["doctor", "manifest", "orders", "playground", "run"]),
            (["orders"], ["import", "list", "show"]),
        ],
    )
    def test_it_lists_every_command_with_a_whole_line(
        self, group: list[str], names: list[str]
    ) -> None:
        result = shopmate(*group, "--help")

        listed = result.stdout.partition("Commands:\n")[2].splitlines()
        assert result.exit_code == 0
        assert [line.split()[0] for line in listed] == names
        assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []

    @pytest.mark.parametrize("arguments", [["sing"], ["orders", "sing"], ["run", "--sing"]])
    def test_what_is_unknown_is_named(self, arguments: list[str]) -> None:
        result = shopmate(*arguments)

        assert result.exit_code == 2
        assert "sing" in result.stderr


class Ended:
    """A `shopmate run` that has ended by itself."""

    def __init__(self, code: int, lines: list[Mapping[str, Any]], noise: list[str]) -> None:
        self.code = code
        self.lines = lines
        self.noise = noise


async def run_to_its_end(environ: Mapping[str, str], folder: Path) -> Ended:
    async with asyncio.timeout(20), start_bot(environ, folder=folder) as bot:
        code = await bot.wait()
    return Ended(code, bot.lines, bot.noise)


class TestRun:
    pytestmark = in_processes

    @pytest.fixture
    def environ(self, slack: LocalSlack, claude: LocalClaude, folder: Path) -> dict[str, str]:
        return bot_environment(slack, claude, folder / "shop.db")

    @pytest.mark.parametrize(
        ("name", "wrong", "remedy"),
        [
            ("SLACK_BOT_TOKEN", "xoxb-wrong", "OAuth & Permissions"),
            ("SLACK_APP_TOKEN", "xapp-wrong", "scope connections:write"),
        ],
    )
    async def test_a_token_that_slack_refuses_is_named_with_its_remedy(
        self, environ: dict[str, str], folder: Path, name: str, wrong: str, remedy: str
    ) -> None:
        ended = await run_to_its_end({**environ, name: wrong}, folder)

        assert ended.code == 1
        said, *help_lines = ended.noise
        assert said.startswith("shopmate: Slack said no to ")
        assert said.endswith(": invalid_auth")
        assert f"Check {name}" in help_lines[0]
        assert remedy in help_lines[0]
        assert len(help_lines) == 1
        assert [line for line in ended.lines if line["level"] != "INFO"] == []

    async def test_a_slack_that_cannot_be_reached_is_no_fault_of_the_token(
        self, environ: dict[str, str], folder: Path
    ) -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unheard.getsockname()[1]}/api/"
            ended = await run_to_its_end({**environ, "SLACK_API_URL": url}, folder)

        assert ended.code == 1
        assert "Slack cannot be reached (auth.test: " in ended.noise[0]
        assert ended.noise[1:] == ["Check the network, and SLACK_API_URL if set."]

    async def test_a_database_in_use_is_named_with_its_holder(
        self, environ: dict[str, str], folder: Path
    ) -> None:
        async with hold_lock(folder / "shop.db", wait_s=0):
            ended = await run_to_its_end({**environ, "SHOPMATE_DRAIN_S": "0"}, folder)

        assert ended.code == 2
        assert len(ended.noise) == 1
        assert f"database '{folder / 'shop.db'}' is in use by process " in ended.noise[0]

    async def test_a_database_in_a_folder_that_is_missing_is_named(
        self, environ: dict[str, str], folder: Path
    ) -> None:
        url = "sqlite:///missing/shop.db"

        ended = await run_to_its_end({**environ, "DATABASE_URL": url}, folder)

        assert ended.code == 1
        assert len(ended.noise) == 1
        assert "'missing/shop.db': No such file or directory" in ended.noise[0]

    async def test_a_port_in_use_is_named(self, environ: dict[str, str], folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            ended = await run_to_its_end({**environ, "PORT": port}, folder)

        assert ended.code == 1
        assert f"cannot listen on 127.0.0.1, port {port}: " in ended.noise[0]
        assert "in use" in ended.noise[0]
        assert ended.noise[1:] == ["HOST and PORT choose where it listens."]

    async def test_an_address_of_another_machine_is_named(
        self, environ: dict[str, str], folder: Path
    ) -> None:
        ended = await run_to_its_end({**environ, "HOST": "203.0.113.1"}, folder)

        assert ended.code == 1
        assert "cannot listen on 203.0.113.1, port 0: " in ended.noise[0]
        assert len(ended.noise) == 2

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_a_signal_ends_it_cleanly(
        self, environ: dict[str, str], folder: Path, number: signal.Signals
    ) -> None:
        async with asyncio.timeout(30), start_bot(environ, folder=folder) as bot:
            await bot.wait_for("socket.connected")
            bot.send_signal(number)
            code = await bot.wait()

        assert code == 0
        assert bot.noise == []
        assert bot.lines[-1]["event"] == "shopmate.stopped"
        assert not (folder / "shop.db-wal").exists()

    async def test_the_second_ctrl_c_ends_it_at_once(
        self, environ: dict[str, str], folder: Path, slack: LocalSlack, claude: LocalClaude
    ) -> None:
        stalled = Stalled()
        claude.add(stalled)
        environ["SHOPMATE_DRAIN_S"] = "60"
        async with asyncio.timeout(30), start_bot(environ, folder=folder) as bot:
            await bot.wait_for("socket.connected")
            slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> hello")
            await stalled.reached.wait()
            bot.send_signal(signal.SIGINT)
            await bot.wait_for("shopmate.stopping")
            bot.send_signal(signal.SIGINT)
            async with asyncio.timeout(2):
                code = await bot.wait()

        assert code == -signal.SIGINT
        assert bot.noise == []
        assert "shopmate.stopped" not in [line["event"] for line in bot.lines]
