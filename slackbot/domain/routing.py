"""Whether a message is for ShopMate: DESIGN §2 as one pure function."""

from dataclasses import dataclass
from enum import StrEnum, auto

from slackbot.domain.messages import HeardMessage


class Route(StrEnum):
    """What becomes of a message."""

    IGNORE = auto()
    CONTEXT = auto()
    ANSWER = auto()
    STOP = auto()


@dataclass(frozen=True, slots=True)
class Participation:
    """How ShopMate takes part in a thread.

    `talking_with` is who mentioned it last, None once another person has written there.
    """

    talking_with: str | None
    is_muted: bool


def route_message(message: HeardMessage, participation: Participation | None) -> Route:
    """What becomes of `message`; `participation` is None in a thread ShopMate is not in."""
    if message.place.is_dm or message.mentions_shopmate:
        return Route.STOP if message.is_stop else Route.ANSWER
    if message.thread_ts is None or participation is None:
        return Route.IGNORE
    if participation.is_muted or message.author != participation.talking_with:
        return Route.CONTEXT
    return Route.STOP if message.is_stop else Route.ANSWER


def participation_after(
    message: HeardMessage, route: Route, before: Participation | None
) -> Participation:
    """How ShopMate takes part once `message` was heard."""
    if route is Route.STOP:
        # A mute ends with the next mention, and nobody mentions in a DM.
        return Participation(message.author, is_muted=not message.place.is_dm)
    if route is Route.ANSWER:
        return Participation(message.author, is_muted=False)
    if before is None:
        return Participation(None, is_muted=False)
    stays = before.talking_with if message.author == before.talking_with else None
    return Participation(stays, before.is_muted)
