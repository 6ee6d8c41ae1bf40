"""The commands. Errors become a plain sentence and an exit code: 1 failed, 2 set up wrongly.

What only some commands need, the SDKs above all, is imported by these: `shopmate orders list`
should not take two seconds.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click
from dotenv import dotenv_values

from slackbot.domain.orders import Order
from slackbot.errors import (
    ImportFileError,
    SettingsError,
    ShopMateError,
    SlackError,
    SlackRefusedError,
    SlackUnreachableError,
    StoreLockedError,
)
from slackbot.logs import set_up_logging
from slackbot.settings import Need, Settings
from slackbot.shop.order_files import read_orders
from slackbot.slack.manifest import render_manifest
from slackbot.store.base import ImportCounts
from slackbot.store.sqlite import open_sqlite_store

log = logging.getLogger(__name__)

T = TypeVar("T")

FAILED = 1
SET_UP_WRONGLY = 2
_LISTENING_ERRORS = frozenset(
    {errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL, socket.EAI_AGAIN, socket.EAI_NONAME}
)
_TOKEN_REMEDIES = {
    "auth.test": (
        "Check SLACK_BOT_TOKEN: the app's page, OAuth & Permissions, Bot User OAuth Token."
    ),
    "apps.connections.open": (
        "Check SLACK_APP_TOKEN: the app's page, Basic Information, App-Level Tokens, with the "
        "scope connections:write."
    ),
}


class _Commands(click.Group):
    """Says what went wrong in a sentence, without a traceback, and ends with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            _complain(*error.problems)
            if not Path(".env").exists():
                click.echo(f"There is no .env in {Path.cwd()}.", err=True)
            click.echo("`shopmate doctor` checks the whole set-up.", err=True)
            ctx.exit(SET_UP_WRONGLY)
        except StoreLockedError as error:
            _complain(error)
            ctx.exit(SET_UP_WRONGLY)
        except SlackError as error:
            _complain(_explain_slack(error))
            ctx.exit(FAILED)
        except BrokenPipeError:
            raise  # nobody reads any more, as with `| head`: click's to end in silence
        except (ShopMateError, OSError) as error:
            _complain(error)
            ctx.exit(FAILED)


def _complain(*problems: object) -> None:
    for problem in problems:
        click.echo(f"shopmate: {problem}", err=True)


def _explain_slack(error: SlackError) -> str:
    match error:
        case SlackRefusedError():
            return f"Slack said no to {error}\n{_TOKEN_REMEDIES.get(error.method, '')}".strip()
        case SlackUnreachableError():
            return (
                f"Slack cannot be reached ({error})\nCheck the network, and SLACK_API_URL if set."
            )
        case _:
            return str(error)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shopmate")
def commands() -> None:
    """ShopMate, ThreadCo's assistant in Slack."""


@commands.command()
def run() -> None:
    """Run the bot until it is told to stop."""
    from slackbot.bootstrap import run_bot

    settings = Settings.from_env(_environment(), needs=[Need.SLACK, Need.CLAUDE])
    set_up_logging(settings.log_format)
    try:
        asyncio.run(_until_stopped(partial(run_bot, settings)))
    except OSError as error:
        if error.errno not in _LISTENING_ERRORS:
            raise
        _complain(f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}")
        click.echo("HOST and PORT choose where it listens.", err=True)
        raise click.exceptions.Exit(FAILED) from None


@commands.command()
@click.option("--say", "text", required=True, help="What to ask ShopMate in #support.")
def playground(text: str) -> None:
    """Ask the real bot, without workspace or key."""
    from slackbot.playground.say import say_once

    # Like Ctrl-C: otherwise the bot, a process of its own, would be left behind.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with TemporaryDirectory(prefix="shopmate-playground-") as folder:
        is_answered = asyncio.run(say_once(text, folder=Path(folder), show=click.echo))
    if not is_answered:
        raise click.exceptions.Exit(FAILED)


@commands.command()
def doctor() -> None:
    """Check the set-up, and say for each problem what to do."""
    from slackbot.doctor import examine

    environ = _environment()

    async def show_findings() -> bool:
        is_all_well = True
        async for finding in examine(environ):
            is_all_well = is_all_well and finding.is_well
            click.echo(f"{'ok  ' if finding.is_well else 'BAD '} {finding.subject}: {finding.said}")
            if finding.remedy:
                click.echo(f"     → {finding.remedy}")
        return is_all_well

    if not asyncio.run(show_findings()):
        raise click.exceptions.Exit(FAILED)


@commands.command()
@click.option("--url", help="Where Slack reaches ShopMate, for HTTP: https://…")
def manifest(url: str | None) -> None:
    """Print the app's manifest, for Socket Mode or HTTP."""
    try:
        click.echo(render_manifest(url=url), nl=False)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error


@commands.group()
def orders() -> None:
    """The shop's orders."""


@orders.command("import")
@click.argument("file", type=click.Path(path_type=Path))
def import_orders(file: Path) -> None:
    """Add and update orders from FILE, CSV or JSON.

    Bad rows are reported, the others kept.
    """
    read = read_orders(file)
    for problem in read.problems:
        click.echo(f"{file}:{problem.line}: {problem.reason}", err=True)
    counts = _run(_import(_database_path(), read.orders))
    click.echo(_summarise(counts, bad=len(read.problems)))
    if read.problems:
        raise click.exceptions.Exit(FAILED)


@orders.command("list")
def list_orders() -> None:
    """Every order, one a line."""
    for order in _run(_load_orders(_database_path())):
        click.echo(f"{order.order_id}  {order.status:<10}  {order.item}")


@orders.command("show")
@click.argument("order_id")
def show_order(order_id: str) -> None:
    """One order, with everything that is known of it."""
    order = _run(_find_order(_database_path(), order_id))
    if order is None:
        raise click.ClickException(f"no order {order_id!r}")
    for name in ("order_id", "status", "item", "eta", "tracking", "track_url", "customer_email"):
        click.echo(f"{name:<15} {getattr(order, name) or '-'}")


def main() -> None:
    """The entry point of `shopmate`."""
    try:
        commands(prog_name="shopmate")
    except Exception:  # a bug: shown with its traceback, once
        log.exception("shopmate.crashed")
        raise SystemExit(FAILED) from None


def _environment() -> Mapping[str, str]:
    """The real environment before `.env` in the current folder."""
    try:
        written = dotenv_values(".env")
    except UnicodeDecodeError as error:
        raise SettingsError((f".env in {Path.cwd()} is not text in UTF-8",)) from error
    kept = {name: value for name, value in written.items() if value is not None}
    real = {name: value for name, value in os.environ.items() if value}
    return {**kept, **real}


def _database_path() -> Path:
    return Settings.from_env(_environment()).database_path


async def _until_stopped(run_until: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        # The second Ctrl-C ends the process at once, as a crash would, whatever it waits for.
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop.set()
        log.info("shopmate.stopping")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    await run_until(stop)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def _import(path: Path, found: tuple[Order, ...]) -> ImportCounts:
    if not found:
        raise ImportFileError("no order could be read: nothing was changed")
    async with open_sqlite_store(path) as store:
        return await store.import_orders(found)


async def _load_orders(path: Path) -> list[Order]:
    async with open_sqlite_store(path) as store:
        return await store.list_orders()


async def _find_order(path: Path, order_id: str) -> Order | None:
    async with open_sqlite_store(path) as store:
        return await store.find_order(order_id)


def _summarise(counts: ImportCounts, *, bad: int) -> str:
    told = f"{counts.added} added, {counts.updated} updated, {counts.unchanged} unchanged"
    if counts.samples_removed:
        told += f", {_count(counts.samples_removed, 'sample order')} removed"
    if bad:
        told += f", {_count(bad, 'bad row')}"
    return told


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
