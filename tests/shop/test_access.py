"""Who may see which orders: every row of DESIGN §6."""

import pytest

from slackbot.domain.conversation import ChannelKind, Place
from slackbot.domain.people import Person
from slackbot.domain.rights import AllOrders, Denial, NoOrders, OwnOrders, Rights
from slackbot.shop.access import rights_in

HOME, PARTNER, STRANGE = "T1", "T2", "T3"
TRUSTED = frozenset({PARTNER})

DM = Place(ChannelKind.IM, is_shared=False)
SHARED_DM = Place(ChannelKind.IM, is_shared=True)
GROUP_DM = Place(ChannelKind.MPIM, is_shared=False)
CHANNEL = Place(ChannelKind.CHANNEL, is_shared=False)
PRIVATE = Place(ChannelKind.GROUP, is_shared=False)
SHARED = Place(ChannelKind.CHANNEL, is_shared=True)
SHARED_GROUP_DM = Place(ChannelKind.MPIM, is_shared=True)

ALL = AllOrders()


def person(
    name: str,
    *,
    team: str = HOME,
    is_member: bool = True,
    is_guest: bool = False,
    has_email: bool = True,
) -> Person:
    return Person(
        id=f"U-{name}",
        name=name,
        team=team,
        is_member=is_member,
        is_guest=is_guest,
        email=f"{name}@example.com" if has_email else None,
    )


def own(one: Person) -> OwnOrders:
    return OwnOrders(one.id, f"{one.name}@example.com")


MEMBER = person("member")
MEMBER_WITHOUT_EMAIL = person("bare", has_email=False)
GUEST = person("guest", is_guest=True)
OTHER_GUEST = person("other", is_guest=True)
GUEST_WITHOUT_EMAIL = person("shy", is_guest=True, has_email=False)
PARTNERS = person("partner", team=PARTNER, is_member=False)
PARTNER_WITHOUT_EMAIL = person("quiet", team=PARTNER, is_member=False, has_email=False)
STRANGER = person("stranger", team=STRANGE, is_member=False)
DELETED = person("gone", is_member=False, has_email=False)

IN_CHANNEL = NoOrders(Denial.GUEST_IN_CHANNEL)
IS_SHARED = NoOrders(Denial.SHARED_CHANNEL)
UNTRUSTED = NoOrders(Denial.UNTRUSTED_ORGANISATION)
NO_EMAIL = NoOrders(Denial.NO_CONFIRMED_EMAIL)


@pytest.mark.parametrize(
    ("one", "place", "rights"),
    [
        (MEMBER, DM, ALL),
        (MEMBER, GROUP_DM, ALL),
        (MEMBER, CHANNEL, ALL),
        (MEMBER, PRIVATE, ALL),
        (MEMBER, SHARED, IS_SHARED),
        (MEMBER, SHARED_GROUP_DM, IS_SHARED),
        (MEMBER_WITHOUT_EMAIL, CHANNEL, ALL),
        (GUEST, DM, own(GUEST)),
        (GUEST, GROUP_DM, IN_CHANNEL),
        (GUEST, CHANNEL, IN_CHANNEL),
        (GUEST, PRIVATE, IN_CHANNEL),
        (GUEST, SHARED, IS_SHARED),
        (GUEST_WITHOUT_EMAIL, DM, NO_EMAIL),
        (GUEST_WITHOUT_EMAIL, CHANNEL, IN_CHANNEL),
        (PARTNERS, DM, own(PARTNERS)),
        (PARTNERS, SHARED_DM, own(PARTNERS)),
        (PARTNERS, CHANNEL, IN_CHANNEL),
        (PARTNERS, SHARED, IS_SHARED),
        (PARTNER_WITHOUT_EMAIL, DM, NO_EMAIL),
        (STRANGER, DM, UNTRUSTED),
        (STRANGER, SHARED_DM, UNTRUSTED),
        (STRANGER, CHANNEL, UNTRUSTED),
        (STRANGER, SHARED, UNTRUSTED),
        (DELETED, DM, UNTRUSTED),
        (DELETED, CHANNEL, UNTRUSTED),
    ],
)
def test_one_person_sees_what_the_design_says(one: Person, place: Place, rights: Rights) -> None:
    assert rights_in(place, [one], TRUSTED) == rights


@pytest.mark.parametrize("place", [DM, GROUP_DM, CHANNEL, SHARED])
def test_somebody_whose_profile_cannot_be_read_sees_nothing(place: Place) -> None:
    assert rights_in(place, [None], TRUSTED) == NoOrders(Denial.PROFILE_UNREADABLE)


def test_nobody_is_trusted_unless_named() -> None:
    assert rights_in(DM, [PARTNERS], frozenset()) == UNTRUSTED


def test_a_deleted_person_is_no_member_even_where_the_own_team_is_trusted() -> None:
    assert rights_in(DM, [DELETED], {HOME}) == NO_EMAIL


def test_an_empty_address_is_none() -> None:
    nameless = Person(id="U9", name="x", team=HOME, is_member=True, is_guest=True, email="")

    assert rights_in(DM, [nameless], TRUSTED) == NO_EMAIL


@pytest.mark.parametrize(
    ("people", "place", "rights"),
    [
        ([MEMBER, MEMBER_WITHOUT_EMAIL], CHANNEL, ALL),
        ([MEMBER, GUEST], CHANNEL, IN_CHANNEL),
        ([GUEST, MEMBER], CHANNEL, IN_CHANNEL),
        ([MEMBER, STRANGER], CHANNEL, UNTRUSTED),
        ([MEMBER, None], CHANNEL, NoOrders(Denial.PROFILE_UNREADABLE)),
        ([GUEST, GUEST], DM, own(GUEST)),
        ([MEMBER, GUEST], DM, own(GUEST)),
        ([GUEST, OTHER_GUEST], DM, NoOrders(Denial.SEVERAL_CUSTOMERS)),
    ],
)
def test_a_turn_sees_the_least_of_everybody_in_it(
    people: list[Person | None], place: Place, rights: Rights
) -> None:
    assert rights_in(place, people, TRUSTED) == rights
