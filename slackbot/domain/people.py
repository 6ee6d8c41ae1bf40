"""Who somebody is, as far as ShopMate needs to know."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person in Slack. `email` is confirmed by Slack, or None."""

    id: str
    name: str
    team: str
    is_member: bool
    is_guest: bool
    email: str | None

    @property
    def is_customer(self) -> bool:
        """Whether what they may see hangs on their e-mail: guests, other organisations."""
        return self.is_guest or not self.is_member
