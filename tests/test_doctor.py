"""What the doctor finds between the two local servers, one problem at a time."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from slackbot.cli import commands
from slackbot.doctor import Finding, examine
from slackbot.domain.orders import Order
from slackbot.playground.bot_process import bot_environment
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_faults import RateLimited, ServerBroken
from slackbot.playground.slack_server import LocalSlack
from slackbot.slack.manifest import BOT_SCOPES
from slackbot.store.sqlite import open_sqlite_store
from tests.scenarios.harness import running_bot

SIGNING_SECRET = "0123456789abcdef0123456789abcdef"
WELL = {
    "settings",
    "SLACK_BOT_TOKEN",
    "SLACK_APP_TOKEN",
    "database",
    "orders",
    "SHOPMATE_CHAT_MODEL",
    "SHOPMATE_COPY_MODEL",
}


@pytest.fixture
def environ(slack: LocalSlack, claude: LocalClaude, tmp_path: Path) -> dict[str, str]:
    return bot_environment(slack, claude, tmp_path / "shop.db")


async def findings_in(environ: dict[str, str]) -> dict[str, Finding]:
    return {finding.subject: finding async for finding in examine(environ)}


async def problem_in(environ: dict[str, str]) -> Finding:
    """The one thing that is not well; everything else was looked at all the same."""
    problems = [finding async for finding in examine(environ) if not finding.is_well]
    assert len(problems) == 1, problems
    assert problems[0].remedy
    return problems[0]


async def test_a_whole_set_up_is_well(environ: dict[str, str], tmp_path: Path) -> None:
    findings = await findings_in(environ)

    assert set(findings) == WELL
    assert [finding for finding in findings.values() if not finding.is_well] == []
    assert findings["SLACK_BOT_TOKEN"].said == "works in the workspace Local"
    assert findings["database"].said == f"{tmp_path / 'shop.db'} can be written"
    assert "the first import removes them" in findings["orders"].said


async def test_http_needs_no_app_token(environ: dict[str, str]) -> None:
    environ |= {"SLACK_APP_TOKEN": "", "SLACK_SIGNING_SECRET": SIGNING_SECRET}

    findings = await findings_in(environ)

    assert "SLACK_APP_TOKEN" not in findings
    assert findings["SLACK_SIGNING_SECRET"].is_well


async def test_orders_of_the_shop_are_nothing_to_report(
    environ: dict[str, str], tmp_path: Path
) -> None:
    async with open_sqlite_store(tmp_path / "shop.db") as store:
        await store.import_orders(
            [
                Order(
                    order_id="ORD-1",
                    status="shipped",
                    item="Tee",
                    eta=None,
                    tracking=None,
                    customer_email=None,
                )
            ]
        )

    assert set(await findings_in(environ)) == WELL - {"orders"}


async def test_every_setting_that_is_missing_is_a_finding() -> None:
    findings = [finding async for finding in examine({"PORT": "http"})]

    assert [finding.said.split()[0] for finding in findings] == [
        "PORT",
        "SLACK_BOT_TOKEN",
        "SLACK_APP_TOKEN",
        "ANTHROPIC_API_KEY",
    ]
    assert {finding.remedy for finding in findings} == {"Set it in .env, or in the environment."}


class TestSlack:
    async def test_a_bot_token_that_is_refused(self, environ: dict[str, str]) -> None:
        problem = await problem_in({**environ, "SLACK_BOT_TOKEN": "xoxb-wrong"})

        assert (problem.subject, problem.said) == (
            "SLACK_BOT_TOKEN",
            "Slack refuses it (invalid_auth)",
        )
        assert "OAuth & Permissions" in str(problem.remedy)

    async def test_scopes_that_are_missing(
        self, environ: dict[str, str], slack: LocalSlack
    ) -> None:
        slack.scopes = frozenset(BOT_SCOPES) - {"users:read.email", "im:write"}

        problem = await problem_in(environ)

        assert problem.said == "works, but lacks the scopes im:write, users:read.email"
        assert "reinstall" in str(problem.remedy)

    async def test_an_app_token_that_is_refused(self, environ: dict[str, str]) -> None:
        problem = await problem_in({**environ, "SLACK_APP_TOKEN": "xapp-wrong"})

        assert (problem.subject, problem.said) == (
            "SLACK_APP_TOKEN",
            "Slack refuses it (invalid_auth)",
        )
        assert "connections:write" in str(problem.remedy)

    async def test_a_slack_that_does_not_listen(self, environ: dict[str, str]) -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unheard.getsockname()[1]}/api/"
            problem = await problem_in({**environ, "SLACK_API_URL": url})

        assert problem.subject == "Slack"
        assert problem.said.startswith(f"{url} cannot be asked (auth.test: ")
        assert "SLACK_API_URL" in str(problem.remedy)

    async def test_a_slack_that_is_broken(self, environ: dict[str, str], slack: LocalSlack) -> None:
        slack.faults.add(ServerBroken(method="auth.test"))

        assert "cannot be asked (auth.test: " in (await problem_in(environ)).said

    async def test_a_slack_that_says_later(
        self, environ: dict[str, str], slack: LocalSlack
    ) -> None:
        slack.faults.add(RateLimited(method="apps.connections.open", retry_after_s=30))

        assert "rate limited for 30 s" in (await problem_in(environ)).said


class TestDatabase:
    async def test_a_running_bot_is_named_and_no_problem(
        self, environ: dict[str, str], slack: LocalSlack, claude: LocalClaude, tmp_path: Path
    ) -> None:
        async with running_bot(slack, claude, tmp_path / "shop.db"):
            findings = [finding async for finding in examine(environ)]

        said = [finding.said for finding in findings if finding.subject == "database"]
        assert [finding for finding in findings if not finding.is_well] == []
        assert said[0].startswith("in use by process ")
        assert said[0].endswith(": ShopMate is running")
        assert said[1].endswith("can be written")

    async def test_a_folder_that_is_missing(self, environ: dict[str, str], tmp_path: Path) -> None:
        path = tmp_path / "missing" / "shop.db"

        problem = await problem_in({**environ, "DATABASE_URL": f"sqlite:///{path}"})

        assert problem.subject == "database"
        assert str(path) in problem.said
        assert "DATABASE_URL" in str(problem.remedy)

    async def test_a_file_that_is_no_database(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        (tmp_path / "shop.db").write_text("This is not a database at all. " * 100)

        problem = await problem_in(environ)

        assert str(tmp_path / "shop.db") in problem.said
        assert "DATABASE_URL" in str(problem.remedy)

    async def test_a_file_that_cannot_be_written(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        async with open_sqlite_store(tmp_path / "shop.db"):
            pass
        with (tmp_path / "shop.db").open("r+b") as file:
            file.seek(18)  # of a newer write version: read-only, for root too
            file.write(b"\x03")

        problem = await problem_in(environ)

        assert "readonly" in problem.said
        assert "who owns the file" in str(problem.remedy)


class TestClaude:
    async def test_a_key_that_is_refused(self, environ: dict[str, str]) -> None:
        findings = await findings_in({**environ, "ANTHROPIC_API_KEY": "sk-ant-wrong"})

        problems = [finding for finding in findings.values() if not finding.is_well]
        assert [problem.subject for problem in problems] == [
            "SHOPMATE_CHAT_MODEL",
            "SHOPMATE_COPY_MODEL",
        ]
        for problem in problems:
            assert "401 authentication_error" in problem.said
            assert "Check ANTHROPIC_API_KEY" in str(problem.remedy)

    @pytest.mark.parametrize("name", ["SHOPMATE_CHAT_MODEL", "SHOPMATE_COPY_MODEL"])
    async def test_a_model_that_does_not_exist(self, environ: dict[str, str], name: str) -> None:
        problem = await problem_in({**environ, name: "claude-unheard-of"})

        assert problem.subject == name
        assert problem.said.startswith("claude-unheard-of: ")
        assert "404 not_found_error" in problem.said
        assert name in str(problem.remedy)

    async def test_a_claude_that_cannot_be_asked_is_said_once(
        self, environ: dict[str, str]
    ) -> None:
        async with broken_server() as url:
            problem = await problem_in({**environ, "ANTHROPIC_BASE_URL": url})

        assert problem.subject == "Claude"
        assert problem.said.startswith(f"{url} cannot be asked (")
        assert "ANTHROPIC_BASE_URL" in str(problem.remedy)


@asynccontextmanager
async def broken_server() -> AsyncIterator[str]:
    """A server that can do nothing, and asks not to be tried again."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"x-should-retry": "false"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class TestCommand:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    async def test_all_well_ends_with_0(self, environ: dict[str, str]) -> None:
        result = await asyncio.to_thread(CliRunner().invoke, commands, ["doctor"], env=environ)

        lines = result.stdout.splitlines()
        assert (result.exit_code, result.stderr) == (0, "")
        assert len(lines) == len(WELL)
        assert [line for line in lines if not line.startswith("ok   ")] == []

    async def test_a_problem_ends_with_1_and_its_remedy(self, environ: dict[str, str]) -> None:
        environ["SLACK_BOT_TOKEN"] = "xoxb-wrong"

        result = await asyncio.to_thread(CliRunner().invoke, commands, ["doctor"], env=environ)

        lines = result.stdout.splitlines()
        assert result.exit_code == 1
        bad = lines.index("BAD  SLACK_BOT_TOKEN: Slack refuses it (invalid_auth)")
        assert lines[bad + 1].startswith("     → Copy it anew")
        assert len(lines) == len(WELL) + 1

    @pytest.mark.parametrize("changes", [{}, {"SLACK_API_URL": "http://127.0.0.1:1/"}])
    async def test_no_secret_is_printed(
        self, environ: dict[str, str], changes: dict[str, str]
    ) -> None:
        secrets = {
            "SLACK_BOT_TOKEN": "xoxb-hidden",
            "SLACK_APP_TOKEN": "xapp-hidden",
            "ANTHROPIC_API_KEY": "sk-ant-hidden",
        }
        environ |= {**secrets, **changes}

        result = await asyncio.to_thread(CliRunner().invoke, commands, ["doctor"], env=environ)

        assert result.exit_code == 1
        assert "hidden" not in result.output
