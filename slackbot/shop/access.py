"""Who may see which orders: DESIGN §6 as pure functions."""

from collections.abc import Collection, Iterable

from slackbot.domain.conversation import Place
from slackbot.domain.people import Person
from slackbot.domain.rights import (
    AllOrders,
    Denial,
    NoOrders,
    OwnOrders,
    Rights,
    least_rights,
)


def rights_in(
    place: Place, people: Iterable[Person | None], trusted_teams: Collection[str]
) -> Rights:
    """What a turn may see in which Claude is given new text of all these people.

    None is somebody whose profile could not be read.
    """
    return least_rights(_rights_of(person, place, trusted_teams) for person in people)


def _rights_of(person: Person | None, place: Place, trusted_teams: Collection[str]) -> Rights:
    if person is None:
        return NoOrders(Denial.PROFILE_UNREADABLE)
    if not person.is_member and person.team not in trusted_teams:
        return NoOrders(Denial.UNTRUSTED_ORGANISATION)
    if place.is_shared and not place.is_dm:
        return NoOrders(Denial.SHARED_CHANNEL)
    if not person.is_customer:
        return AllOrders()
    if not place.is_dm:
        return NoOrders(Denial.GUEST_IN_CHANNEL)
    if not person.email:
        return NoOrders(Denial.NO_CONFIRMED_EMAIL)
    return OwnOrders(person.id, person.email)
