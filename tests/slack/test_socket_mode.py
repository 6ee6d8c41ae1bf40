import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slackbot.bootstrap import run_bot
from slackbot.errors import SlackRefusedError
from slackbot.playground.bot_process import bot_environment
from slackbot.playground.claude_server import LocalClaude
from slackbot.playground.slack_faults import ServerBroken
from slackbot.playground.slack_limits import SlackLimits
from slackbot.playground.slack_server import LocalSlack, open_local_slack
from slackbot.settings import Settings
from slackbot.slack.socket_mode import SocketConnection, WatchdogTimes, open_socket
from tests.scenarios.harness import answers, running_bot
from tests.slack.listening import Notes, open_listener

# The SDK notices the end of a socket, and tries again, once every `ping_s`.
QUICK = WatchdogTimes(check_s=0.02, disconnected_s=0.1, hello_s=0.3, silence_s=60, ping_s=0.2)


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    """Impatient: what is not acknowledged comes again soon."""
    async with open_local_slack(
        limits=SlackLimits.none(), ack_timeout_s=0.3, retry_delays_s=[0.1] * 50
    ) as server:
        yield server


@asynccontextmanager
async def connected(
    slack: LocalSlack, *, times: WatchdogTimes = QUICK
) -> AsyncIterator[tuple[SocketConnection, Notes]]:
    """The watched socket of an app that notes what it hears."""
    async with (
        open_listener(slack) as listener,
        open_socket(
            listener.app,
            app_token=slack.app_token,
            client=listener.client,
            calls=listener.calls,
            clock=time.monotonic,
            times=times,
        ) as connection,
    ):
        yield connection, listener.notes


async def hear_once(slack: LocalSlack, notes: Notes, text: str) -> None:
    """Returns once `text`, said now, was heard and acknowledged."""
    slack.say(slack.alex.id, slack.support.id, text)
    async with asyncio.timeout(6):
        await notes.wait_until(lambda: text in notes.texts)
        await slack.wait_until(lambda: not slack.unacked)


async def test_what_comes_over_the_socket_is_heard_and_acknowledged(slack: LocalSlack) -> None:
    async with connected(slack) as (connection, notes):
        await hear_once(slack, notes, "hello")

        assert connection.is_connected
    assert notes.texts == ["hello"]
    assert slack.connected_sockets == 0


@pytest.mark.parametrize(
    ("variable", "token", "method"),
    [
        ("SLACK_BOT_TOKEN", "xoxb-of-nobody", "auth.test"),
        ("SLACK_APP_TOKEN", "xapp-of-nobody", "apps.connections.open"),
    ],
)
async def test_a_token_that_slack_does_not_accept_ends_the_start_and_is_named(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, variable: str, token: str, method: str
) -> None:
    environ = bot_environment(slack, claude, tmp_path / "shop.db", **{variable: token})

    with pytest.raises(SlackRefusedError) as caught:
        async with asyncio.timeout(3):
            await run_bot(Settings.from_env(environ), asyncio.Event())

    assert (caught.value.method, caught.value.reason) == (method, "invalid_auth")


async def test_a_ticket_that_is_not_accepted_any_more_is_replaced_by_a_new_one(
    slack: LocalSlack,
) -> None:
    slack.refuse_tickets = True
    async with connected(slack) as (_, notes):
        await slack.wait_until(lambda: slack.tickets_refused == 1)
        slack._delivery._tickets.clear()  # as when they have expired
        slack.refuse_tickets = False
        await hear_once(slack, notes, "hello")

    assert slack.sockets_opened == 1


async def test_slack_being_away_while_a_new_socket_is_opened_is_survived(
    slack: LocalSlack,
) -> None:
    async with connected(slack) as (_, notes):
        await hear_once(slack, notes, "before")
        slack.faults.add(ServerBroken(method="apps.connections.open", times=2))
        slack.drop_sockets()
        await hear_once(slack, notes, "after")

    assert notes.texts == ["before", "after"]


async def test_a_socket_that_went_deaf_is_replaced(slack: LocalSlack) -> None:
    # So few pings that the SDK would notice after three seconds, and act after four.
    times = WatchdogTimes(check_s=0.02, disconnected_s=0.1, hello_s=5, silence_s=0.3, ping_s=2)
    async with connected(slack, times=times) as (_, notes):
        await hear_once(slack, notes, "before")
        slack.deafen()
        async with asyncio.timeout(3):
            await hear_once(slack, notes, "while it was deaf")

        assert slack.sockets_opened == 2


async def test_a_socket_whose_pings_are_not_answered_is_replaced(slack: LocalSlack) -> None:
    async with connected(slack) as (_, notes):
        await hear_once(slack, notes, "before")
        slack.deafen()
        await hear_once(slack, notes, "while it was deaf")


async def test_a_socket_that_never_says_hello_is_replaced(slack: LocalSlack) -> None:
    slack.deafen(also_new=True)
    async with connected(slack) as (connection, notes):
        await slack.wait_until(lambda: slack.sockets_opened == 1)
        was_connected = connection.is_connected
        slack.deafen(also_new=False)
        await slack.wait_until(lambda: slack.sockets_opened == 2)
        await hear_once(slack, notes, "hello")

        assert (was_connected, connection.is_connected) == (False, True)


@pytest.mark.parametrize("reason", ["warning", "refresh_requested", "link_disabled"])
async def test_around_a_disconnect_notice_everything_is_answered_once(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, reason: str
) -> None:
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        mention = f"<@{slack.bot_user_id}> hello"
        before = [slack.say(slack.alex.id, slack.support.id, mention) for _ in range(10)]
        slack.disconnect_sockets(reason)  # type: ignore[arg-type] # one of the three, as above
        after = [slack.say(slack.sam.id, slack.support.id, mention) for _ in range(10)]
        async with asyncio.timeout(8):
            await slack.wait_until(lambda: len(answers(slack, slack.support.id)) == 20)
            await slack.wait_until(lambda: not slack.unacked)

    threads = Counter(message.thread_ts for message in answers(slack, slack.support.id))
    assert threads == Counter(before + after)
    assert slack.lost == []


async def test_events_around_a_dropped_connection_are_heard(slack: LocalSlack) -> None:
    async with connected(slack) as (_, notes):
        await hear_once(slack, notes, "before")
        slack.say(slack.alex.id, slack.support.id, "during")
        slack.drop_sockets()
        await hear_once(slack, notes, "after")

    assert set(notes.texts) == {"before", "during", "after"}
    assert slack.lost == []


async def test_a_burst_of_events_asks_only_once_who_the_bot_is(slack: LocalSlack) -> None:
    async with connected(slack) as (_, notes):
        for number in range(50):
            slack.say(slack.alex.id, slack.support.id, f"event {number}")
        await slack.wait_until(lambda: len(slack.acks) == 50)

    assert len(notes.texts) == 50
    assert [call.method for call in slack.calls].count("auth.test") == 1


async def test_the_credentials_of_another_app_in_the_environment_change_nothing(
    slack: LocalSlack, claude: LocalClaude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CLIENT_ID", "CLIENT_SECRET", "SCOPES", "BOT_TOKEN", "SIGNING_SECRET"):
        monkeypatch.setenv(f"SLACK_{name}", "of-another-app")
    async with running_bot(slack, claude, tmp_path / "shop.db"):
        slack.say(slack.alex.id, slack.support.id, f"<@{slack.bot_user_id}> hello")
        async with asyncio.timeout(5):
            await slack.wait_until(lambda: bool(answers(slack, slack.support.id)))

    assert {call.token for call in slack.calls} == {slack.bot_token, slack.app_token}
