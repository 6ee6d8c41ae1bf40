"""`shopmate doctor`: what is set up, what is not, and what to do about it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from slackbot.claude.client import open_claude
from slackbot.errors import (
    ClaudeError,
    ClaudeMisconfiguredError,
    ClaudeUnreachableError,
    SettingsError,
    SlackError,
    SlackRefusedError,
    StoreError,
    StoreLockedError,
)
from slackbot.settings import Need, Settings
from slackbot.slack.calls import SlackCalls, open_web_client
from slackbot.slack.manifest import build_manifest
from slackbot.store.lock import hold_lock
from slackbot.store.sqlite import open_sqlite_store

TRY_AGAIN = "Check the network and try again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `remedy` says what to do, where there is something to do."""

    subject: str
    is_well: bool
    said: str
    remedy: str | None = None


async def examine(environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Everything that is found, in the order of a set-up, as it is found."""
    try:
        settings = Settings.from_env(environ, needs=[Need.SLACK, Need.CLAUDE])
    except SettingsError as error:
        for problem in error.problems:
            yield _bad("settings", problem, "Set it in .env, or in the environment.")
        return
    yield _well("settings", "complete")
    for look in (_examine_slack, _examine_database, _examine_claude):
        async for finding in look(settings):
            yield finding


async def _examine_slack(settings: Settings) -> AsyncIterator[Finding]:
    async with open_web_client(
        token=settings.slack_bot_token, base_url=settings.slack_api_url
    ) as client:
        calls = SlackCalls(client)
        try:
            yield await _examine_bot_token(calls)
            if settings.uses_socket_mode:
                yield await _examine_app_token(calls, settings.slack_app_token)
        except SlackError as error:
            said = f"{settings.slack_api_url} cannot be asked ({error})"
            yield _bad("Slack", said, f"{TRY_AGAIN} SLACK_API_URL is another address of Slack's.")
        if not settings.uses_socket_mode:
            yield _well("SLACK_SIGNING_SECRET", "set; Slack's first request shows if it is right")


async def _examine_bot_token(calls: SlackCalls) -> Finding:
    subject = "SLACK_BOT_TOKEN"
    try:
        identity, granted = await calls.check_token()
    except SlackRefusedError as error:
        return _bad(
            subject,
            f"Slack refuses it ({error.reason})",
            "Copy it anew from the app's page, OAuth & Permissions; install the app if needed.",
        )
    needed = build_manifest()["oauth_config"]["scopes"]["bot"]
    missing = sorted(set(needed) - set(granted))
    if missing:
        return _bad(
            subject,
            f"works, but lacks the scopes {', '.join(missing)}",
            "Put the output of `shopmate manifest` on the app's page, App Manifest, and reinstall.",
        )
    return _well(subject, f"works in the workspace {identity.get('team') or identity['team_id']}")


async def _examine_app_token(calls: SlackCalls, app_token: str) -> Finding:
    subject = "SLACK_APP_TOKEN"
    try:
        await calls.open_connection(app_token)
    except SlackRefusedError as error:
        return _bad(
            subject,
            f"Slack refuses it ({error.reason})",
            "Make one on the app's page, Basic Information, App-Level Tokens, with the scope "
            "connections:write, and switch Socket Mode on.",
        )
    return _well(subject, "opens a Socket Mode connection")


async def _examine_database(settings: Settings) -> AsyncIterator[Finding]:
    path = settings.database_path
    try:
        async with hold_lock(path, wait_s=0):
            pass
    except StoreLockedError as error:
        yield _well("database", f"in use by {error.holder}: ShopMate is running")
    except StoreError as error:
        yield _bad("database", str(error), "Choose a folder that ShopMate may write, DATABASE_URL.")
        return
    try:
        async with open_sqlite_store(path) as store:
            await store.check_writable()
            yield _well("database", f"{path.absolute()} can be written")
            if await store.has_sample_orders():
                yield _well(
                    "orders",
                    "the samples of a fresh database are there (the first import removes them)",
                )
    except StoreError as error:
        yield _bad("database", str(error), "Check DATABASE_URL, the disk, and who owns the file.")


async def _examine_claude(settings: Settings) -> AsyncIterator[Finding]:
    async with open_claude(
        api_key=settings.anthropic_api_key, base_url=settings.anthropic_base_url
    ) as claude:
        for name, model in (
            ("SHOPMATE_CHAT_MODEL", settings.chat_model),
            ("SHOPMATE_COPY_MODEL", settings.copy_model),
        ):
            try:
                await claude.check_model(model)
            except ClaudeMisconfiguredError as error:
                yield _bad(name, f"{model}: {error}", f"Check ANTHROPIC_API_KEY and {name}.")
            except ClaudeUnreachableError as error:
                said = f"{settings.anthropic_base_url} cannot be asked ({error})"
                yield _bad("Claude", said, f"{TRY_AGAIN} ANTHROPIC_BASE_URL is another address.")
                return
            except ClaudeError as error:
                yield _bad(name, f"{model}: {error}", TRY_AGAIN)
            else:
                yield _well(name, f"{model} answers")


def _well(subject: str, said: str) -> Finding:
    return Finding(subject=subject, is_well=True, said=said)


def _bad(subject: str, said: str, remedy: str) -> Finding:
    return Finding(subject=subject, is_well=False, said=said, remedy=remedy)
