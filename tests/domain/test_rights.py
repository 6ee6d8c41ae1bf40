from itertools import permutations, product

import pytest

from slackbot.domain.rights import (
    AllOrders,
    Denial,
    NoOrders,
    OwnOrders,
    Rights,
    covers,
    least_rights,
)

JO = OwnOrders("U1", "jo@example.com")
KIT = OwnOrders("U2", "kit@example.com")
JO_ELSEWHERE = OwnOrders("U1", "jo@elsewhere.example")
NONE = tuple(NoOrders(denial) for denial in Denial)
EVERYTHING: tuple[Rights, ...] = (AllOrders(), JO, KIT, JO_ELSEWHERE, *NONE)


def what_is_seen(rights: Rights) -> Rights | None:
    """Rights without the reason why there are none."""
    return None if isinstance(rights, NoOrders) else rights


def test_both_cover_what_both_may_see() -> None:
    for one, other in product(EVERYTHING, repeat=2):
        least = least_rights([one, other])

        assert covers(one, least), (one, other)
        assert covers(other, least), (one, other)


def test_the_order_of_people_does_not_matter() -> None:
    for people in product(EVERYTHING, repeat=3):
        seen = {what_is_seen(least_rights(one)) for one in permutations(people)}

        assert len(seen) == 1, people


def test_adding_somebody_never_shows_more() -> None:
    for one, two, three in product(EVERYTHING, repeat=3):
        before, after = least_rights([one, two]), least_rights([one, two, three])

        assert covers(before, after), (one, two, three)


def test_covering_is_transitive() -> None:
    for one, two, three in product(EVERYTHING, repeat=3):
        covers_both = covers(one, two) and covers(two, three)

        assert covers(one, three) or not covers_both, (one, two, three)


@pytest.mark.parametrize("rights", EVERYTHING)
def test_everybody_may_read_what_was_said_with_her_own_rights(rights: Rights) -> None:
    assert covers(rights, rights)
    assert least_rights([rights, rights]) == rights


@pytest.mark.parametrize("rights", EVERYTHING)
def test_a_member_sees_as_much_as_whoever_is_with_her(rights: Rights) -> None:
    assert covers(AllOrders(), rights)
    assert least_rights([AllOrders(), rights]) == rights


def test_only_those_who_may_see_the_orders_may_read_of_them() -> None:
    for rights, needed in product(EVERYTHING, repeat=2):
        is_allowed = isinstance(needed, NoOrders) or rights in (AllOrders(), needed)

        assert covers(rights, needed) == is_allowed, (rights, needed)


def test_where_one_may_see_nothing_nobody_does() -> None:
    denied = NoOrders(Denial.UNTRUSTED_ORGANISATION)

    assert least_rights([AllOrders(), denied, JO]) == denied


def test_several_customers_see_nothing_of_each_other() -> None:
    assert least_rights([JO, KIT]) == NoOrders(Denial.SEVERAL_CUSTOMERS)


def test_a_customer_whose_address_changed_sees_nothing_of_either() -> None:
    assert isinstance(least_rights([JO, JO_ELSEWHERE]), NoOrders)
    assert not covers(JO_ELSEWHERE, JO)


def test_nobody_holds_nobody_back() -> None:
    assert least_rights([]) == AllOrders()
