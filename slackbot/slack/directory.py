"""Who people are: users.info, kept for ten minutes at most.

Only full members are kept. What others may see hangs on their e-mail address, and they may have
confirmed it just now, because ShopMate asked them to.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any

from slackbot.domain.people import Person
from slackbot.errors import SlackError
from slackbot.slack.calls import SlackCalls, insist

log = logging.getLogger(__name__)

MAX_AGE_S = 600.0
MAX_PEOPLE = 5_000
MAX_LOOKUPS_AT_ONCE = 8
MAX_TRIES = 3  # people wait meanwhile


class Directory:
    """People by id."""

    def __init__(
        self,
        *,
        calls: SlackCalls,
        team: str,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._sleep = sleep
        self._calls = calls
        self._team = team
        self._clock = clock
        self._kept: dict[str, tuple[float, Person]] = {}
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS_AT_ONCE)

    async def fetch_people(
        self, user_ids: Collection[str], *, fresh: bool = False
    ) -> Mapping[str, Person | None]:
        """Everybody by id; None for whom Slack does not say. `fresh` asks Slack anew."""
        found = {user: None if fresh else self._recall(user) for user in user_ids}
        unknown = [user for user, person in found.items() if person is None]
        if unknown:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    user: group.create_task(self._fetch(user), name=f"users.info {user}")
                    for user in unknown
                }
            found |= {user: task.result() for user, task in tasks.items()}
        return found

    def _recall(self, user: str) -> Person | None:
        at, person = self._kept.get(user, (0.0, None))
        return person if person and self._clock() - at < MAX_AGE_S else None

    async def _fetch(self, user: str) -> Person | None:
        async with self._lookups:
            try:
                answer = await insist(
                    partial(self._calls.fetch_user, user), sleep=self._sleep, tries=MAX_TRIES
                )
            except SlackError as error:
                log.warning("person.unknown", extra={"user": user, "reason": error.reason})
                return None
        person = parse_person(answer, self._team)
        self._keep(person)
        return person

    def _keep(self, person: Person) -> None:
        self._kept.pop(person.id, None)
        if person.is_customer:
            return
        if len(self._kept) >= MAX_PEOPLE:
            self._kept.pop(next(iter(self._kept)))
        self._kept[person.id] = (self._clock(), person)


def parse_person(user: Mapping[str, Any], team: str) -> Person:
    """The person a users.info answer describes, seen from the workspace `team`."""
    profile = user.get("profile") or {}
    home = str(user.get("team_id") or "")
    is_stranger = bool(user.get("is_stranger")) or home != team
    email = str(profile.get("email") or "").strip().casefold()
    is_confirmed = bool(user.get("is_email_confirmed")) and not user.get("deleted")
    name = profile.get("display_name") or profile.get("real_name") or user.get("real_name")
    return Person(
        id=str(user["id"]),
        name=str(name or user.get("name") or "Somebody"),
        team=home,
        is_member=not is_stranger and not user.get("deleted"),
        is_guest=bool(user.get("is_restricted") or user.get("is_ultra_restricted")),
        email=email if email and is_confirmed else None,
    )
