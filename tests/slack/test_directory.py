import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from slackbot.domain.people import Person
from slackbot.playground.slack_calls import ApiCall
from slackbot.playground.slack_faults import RateLimited, Refused, ServerBroken
from slackbot.playground.slack_limits import SlackLimits
from slackbot.playground.slack_server import LocalSlack, open_local_slack
from slackbot.slack.calls import SlackCalls, open_web_client
from slackbot.slack.directory import (
    MAX_AGE_S,
    MAX_LOOKUPS_AT_ONCE,
    MAX_TRIES,
    Directory,
    parse_person,
)


class Clock:
    def __init__(self) -> None:
        self.now = 50_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def directory(slack: LocalSlack, clock: Clock) -> AsyncIterator[Directory]:
    async with open_directory(slack, clock) as opened:
        yield opened


async def brief_sleep(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.1))


@asynccontextmanager
async def open_directory(slack: LocalSlack, clock: Clock) -> AsyncIterator[Directory]:
    async with open_web_client(token=slack.bot_token, base_url=slack.url) as client:
        yield Directory(
            calls=SlackCalls(client), team=slack.team_id, clock=clock, sleep=brief_sleep
        )


def lookups(slack: LocalSlack) -> list[ApiCall]:
    return [call for call in slack.calls if call.method == "users.info"]


async def test_everybody_is_told_by_id(slack: LocalSlack, directory: Directory) -> None:
    people = await directory.fetch_people({slack.alex.id, slack.jo.id})

    alex, jo = people[slack.alex.id], people[slack.jo.id]
    assert alex == Person(
        id=slack.alex.id,
        name="alex",
        team=slack.team_id,
        is_member=True,
        is_guest=False,
        email="alex@example.com",
    )
    assert jo is not None
    assert jo.is_guest


async def test_a_person_is_looked_up_once_in_ten_minutes(
    slack: LocalSlack, directory: Directory, clock: Clock
) -> None:
    await directory.fetch_people([slack.alex.id])
    clock.now += MAX_AGE_S - 1
    await directory.fetch_people([slack.alex.id])

    assert len(lookups(slack)) == 1


async def test_after_ten_minutes_a_person_is_looked_up_anew(
    slack: LocalSlack, directory: Directory, clock: Clock
) -> None:
    await directory.fetch_people([slack.alex.id])
    slack.change_member(slack.alex.id, is_restricted=True)
    clock.now += 600
    people = await directory.fetch_people([slack.alex.id])

    alex = people[slack.alex.id]
    assert alex is not None
    assert alex.is_guest


async def test_fresh_people_are_asked_for_anew_and_remembered(
    slack: LocalSlack, directory: Directory
) -> None:
    await directory.fetch_people([slack.alex.id])
    slack.change_member(slack.alex.id, email="alex.morgan@example.com")
    fresh = await directory.fetch_people([slack.alex.id], fresh=True)
    again = await directory.fetch_people([slack.alex.id])

    alex = fresh[slack.alex.id]
    assert alex is not None
    assert alex.email == "alex.morgan@example.com"
    assert again == fresh
    assert len(lookups(slack)) == 2


async def test_whose_email_opens_orders_is_never_answered_from_memory(
    slack: LocalSlack, directory: Directory
) -> None:
    await directory.fetch_people([slack.jo.id])
    slack.change_member(slack.jo.id, email="jo.reed@example.com")
    people = await directory.fetch_people([slack.jo.id])

    jo = people[slack.jo.id]
    assert jo is not None
    assert jo.email == "jo.reed@example.com"


async def test_a_lookup_waits_as_long_as_slack_asks(
    slack: LocalSlack, directory: Directory
) -> None:
    slack.faults.add(RateLimited(method="users.info", retry_after_s=0.1))

    people = await directory.fetch_people([slack.alex.id])

    refused, answered = lookups(slack)
    assert people[slack.alex.id] is not None
    assert answered.arrived_at - refused.answered_at >= 0.09


async def test_who_slack_does_not_know_is_nobody(slack: LocalSlack, directory: Directory) -> None:
    people = await directory.fetch_people({"U0NOBODY001", slack.alex.id})

    assert people["U0NOBODY001"] is None
    assert people[slack.alex.id] is not None


@pytest.mark.parametrize(
    "fault",
    [
        Refused(method="users.info", error="account_inactive"),
        ServerBroken(method="users.info", times=MAX_TRIES),
        RateLimited(method="users.info", retry_after_s=0.01, times=MAX_TRIES),
    ],
)
async def test_a_failed_lookup_is_not_remembered(
    slack: LocalSlack, directory: Directory, fault: Any
) -> None:
    slack.faults.add(fault)
    first = await directory.fetch_people([slack.alex.id])
    second = await directory.fetch_people([slack.alex.id])

    assert first[slack.alex.id] is None
    assert second[slack.alex.id] is not None


async def test_one_passing_failure_of_slack_makes_nobody_unknown(
    slack: LocalSlack, directory: Directory
) -> None:
    slack.faults.add(ServerBroken(method="users.info"))

    people = await directory.fetch_people([slack.alex.id])

    assert people[slack.alex.id] is not None


async def test_two_hundred_people_are_looked_up_at_most_eight_at_once(clock: Clock) -> None:
    async with (
        open_local_slack(limits=SlackLimits.none(), latency_s=0.01) as slack,
        open_directory(slack, clock) as directory,
    ):
        crowd = [slack.add_member().id for _ in range(200)]
        people = await directory.fetch_people(crowd)

        assert sum(person is not None for person in people.values()) == 200
        assert most_at_once(lookups(slack)) == MAX_LOOKUPS_AT_ONCE == 8


def most_at_once(calls: Sequence[ApiCall]) -> int:
    """How many of `calls` were under way together, at the busiest moment."""
    began = [(call.arrived_at, 1) for call in calls]
    ended = [(call.answered_at, -1) for call in calls]
    running = most = 0
    for _, change in sorted(began + ended):
        running += change
        most = max(most, running)
    return most


USER = {
    "id": "U0GUEST0001",
    "team_id": "T0THREADCO1",
    "name": "jo",
    "real_name": "Jo Reed",
    "is_email_confirmed": True,
    "profile": {"display_name": "jo", "real_name": "Jo Reed", "email": " Jo.Reed@Example.com "},
}


def test_an_email_is_compared_without_case_and_spaces() -> None:
    assert parse_person(USER, "T0THREADCO1").email == "jo.reed@example.com"


@pytest.mark.parametrize(
    "changes",
    [
        {"is_email_confirmed": False},
        {"is_email_confirmed": None},
        {"deleted": True},
        {"profile": {"display_name": "jo"}},
        {"profile": None},
    ],
)
def test_an_email_that_slack_does_not_vouch_for_is_none(changes: dict[str, Any]) -> None:
    assert parse_person({**USER, **changes}, "T0THREADCO1").email is None


@pytest.mark.parametrize(
    "changes", [{"team_id": "T0PARTNER01"}, {"is_stranger": True}, {"deleted": True}]
)
def test_who_is_not_of_this_workspace_is_no_member(changes: dict[str, Any]) -> None:
    assert not parse_person({**USER, **changes}, "T0THREADCO1").is_member
