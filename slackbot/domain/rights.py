"""What a turn may see of the shop's orders."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Denial(StrEnum):
    """Why nothing may be seen. The sentence Claude is told hangs on it, never on an order."""

    SHARED_CHANNEL = "shared_channel"
    GUEST_IN_CHANNEL = "guest_in_channel"
    NO_CONFIRMED_EMAIL = "no_confirmed_email"
    UNTRUSTED_ORGANISATION = "untrusted_organisation"
    SEVERAL_CUSTOMERS = "several_customers"
    EMAIL_CHANGED = "email_changed"
    PROFILE_UNREADABLE = "profile_unreadable"


@dataclass(frozen=True, slots=True)
class AllOrders:
    """Every order of the shop."""


@dataclass(frozen=True, slots=True)
class OwnOrders:
    """Only orders of the customer with this e-mail, which is casefolded."""

    person: str
    email: str


@dataclass(frozen=True, slots=True)
class NoOrders:
    """None at all."""

    denial: Denial


Rights: TypeAlias = AllOrders | OwnOrders | NoOrders


def least_rights(rights: Iterable[Rights]) -> Rights:
    """What everybody of them may see; all orders where there is nobody."""
    least: Rights = AllOrders()
    for one in rights:
        least = _lesser(least, one)
    return least


def covers(rights: Rights, needed: Rights) -> bool:
    """Whether what was said with the rights `needed` may be read with `rights`."""
    return isinstance(needed, NoOrders) or _lesser(rights, needed) == needed


def _lesser(one: Rights, other: Rights) -> Rights:
    match one, other:
        case NoOrders(), _:
            return one
        case _, NoOrders():
            return other
        case AllOrders(), _:
            return other
        case _, AllOrders():
            return one
        case OwnOrders(person), OwnOrders(another) if person != another:
            return NoOrders(Denial.SEVERAL_CUSTOMERS)
        case _:
            return one if one == other else NoOrders(Denial.EMAIL_CHANGED)
