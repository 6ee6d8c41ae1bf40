import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from slackbot.domain.conversation import ChannelKind, ConversationKey, Place
from slackbot.domain.rights import AllOrders
from slackbot.domain.turns import Turn, TurnState
from slackbot.errors import SlackRefusedError, SlackUnreachableError
from slackbot.slack.calls import SlackCalls
from slackbot.slack.waiting import FIRST_STATUS, WaitingSign
from tests.virtual_time import clock, run

CHANNEL, ASKED = "C0TEST", "1700000000.000100"
STATUS = "assistant.threads.setStatus"


class RecordedCalls(SlackCalls):
    """Answers every call at once, and keeps it with its time."""

    def __init__(self, *, refused: Mapping[str, Exception] | None = None) -> None:
        super().__init__(AsyncWebClient())
        self.refused = refused or {}
        self.made: list[tuple[float, str, str]] = []  # when, method, status or reaction

    async def _call(
        self, method: str, *, token: str | None = None, **arguments: dict[str, Any]
    ) -> Any:
        assert token is None
        said = arguments["json"].get("status", arguments["json"].get("name"))
        self.made.append((round(clock(), 3), method, str(said)))
        if error := self.refused.get(method):
            raise error
        return {"ok": True}


class Posts:
    """The only thing of a PostLog that a sign asks for: whether its reaction is there."""

    def __init__(self) -> None:
        self.reactions: list[bool] = []

    async def save_reaction(self, turn_id: int, *, is_there: bool) -> None:
        assert turn_id == 1
        self.reactions.append(is_there)

    async def intend_post(self, turn_id: int, part: str) -> None: ...

    async def save_post(self, turn_id: int, part: str, ts: str) -> None: ...

    async def load_post(self, turn_id: int, part: str) -> tuple[bool, str | None]:
        return False, None

    async def forget_post(self, turn_id: int, part: str) -> None: ...


def build_turn(*, root: str = ASKED, has_reaction: bool = False) -> Turn:
    return Turn(
        id=1,
        conversation=ConversationKey("T1", CHANNEL, root),
        place=Place(ChannelKind.CHANNEL, is_shared=False),
        state=TurnState.RUNNING,
        attempts=1,
        rights=AllOrders(),
        asker="U1",
        asked_ts=ASKED,
        heard_at=datetime(2026, 11, 22, tzinfo=UTC),
        final_text=None,
        has_reaction=has_reaction,
    )


def show(
    script: Callable[[WaitingSign], Awaitable[None]],
    *,
    refused: Mapping[str, Exception] | None = None,
    turn: Turn | None = None,
) -> tuple[list[tuple[float, str, str]], list[bool]]:
    """The calls that a sign makes while `script` goes on, and what was kept of its reaction."""
    calls, posts = RecordedCalls(refused=refused), Posts()

    async def main() -> None:
        sign = WaitingSign(
            turn or build_turn(), calls=calls, posts=posts, clock=clock, sleep=asyncio.sleep
        )
        async with asyncio.TaskGroup() as group:
            shown = group.create_task(sign.show())
            await script(sign)
            shown.cancel()
        await sign.clear()

    run(main)
    return calls.made, posts.reactions


def test_a_status_is_renewed_before_slack_takes_it_away_and_cleared_at_the_end() -> None:
    async def script(_: WaitingSign) -> None:
        await asyncio.sleep(200)

    made, reactions = show(script)

    assert made == [
        (0, STATUS, FIRST_STATUS),
        (90, STATUS, FIRST_STATUS),
        (180, STATUS, FIRST_STATUS),
        (200, STATUS, ""),
    ]
    assert reactions == []


def test_a_new_status_is_shown_at_once_and_renewed_from_then_on() -> None:
    async def script(sign: WaitingSign) -> None:
        await asyncio.sleep(30)
        sign.set_status("Looking it up.")
        sign.set_status("Looking it up.")
        await asyncio.sleep(100)

    made, _ = show(script)

    assert made == [
        (0, STATUS, FIRST_STATUS),
        (30, STATUS, "Looking it up."),
        (120, STATUS, "Looking it up."),
        (130, STATUS, ""),
    ]


def test_a_long_status_is_cut_and_shown_once_however_often_it_is_set() -> None:
    async def script(sign: WaitingSign) -> None:
        for second in (1, 2, 3):
            await asyncio.sleep(second)
            sign.set_status("Looking everything up. " * 20)

    made, _ = show(script)

    assert [len(status) for _, _, status in made] == [len(FIRST_STATUS), 100, 0]


def test_a_status_that_slack_took_away_with_the_first_post_is_neither_renewed_nor_cleared() -> None:
    async def script(sign: WaitingSign) -> None:
        await asyncio.sleep(5)
        sign.note_post(clock())
        await asyncio.sleep(200)

    made, _ = show(script)

    assert made == [(0, STATUS, FIRST_STATUS)]


def test_a_status_set_while_the_first_post_was_under_way_is_cleared() -> None:
    async def script(sign: WaitingSign) -> None:
        began_at = clock()
        await asyncio.sleep(5)
        sign.set_status("Looking it up.")
        await asyncio.sleep(1)
        sign.note_post(began_at)

    made, _ = show(script)

    assert made[-1] == (6, STATUS, "")


def test_a_refused_status_is_not_asked_for_again_and_becomes_a_reaction_after_a_moment() -> None:
    async def script(sign: WaitingSign) -> None:
        sign.set_status("Looking it up.")
        await asyncio.sleep(300)

    made, reactions = show(script, refused={STATUS: SlackRefusedError(STATUS, "missing_scope")})

    assert made[1:] == [(0.8, "reactions.add", "eyes"), (300, "reactions.remove", "eyes")]
    assert reactions == [True, False]


def test_an_answer_posted_within_the_moment_needs_no_reaction() -> None:
    async def script(sign: WaitingSign) -> None:
        await asyncio.sleep(0.7)
        sign.note_post(clock())
        await asyncio.sleep(1)

    made, reactions = show(script, turn=build_turn(root=f"session:{ASKED}"))

    assert [method for _, method, _ in made] == [STATUS, STATUS]
    assert reactions == []


def test_at_the_top_level_of_a_dm_the_reaction_comes_beside_the_status() -> None:
    async def script(_: WaitingSign) -> None:
        await asyncio.sleep(2)

    made, _ = show(script, turn=build_turn(root=f"session:{ASKED}"))

    assert [(at, method) for at, method, _ in made] == [
        (0, STATUS),
        (0.8, "reactions.add"),
        (2, STATUS),
        (2, "reactions.remove"),
    ]


def test_a_status_that_failed_for_now_is_tried_again_when_it_would_be_renewed() -> None:
    async def script(_: WaitingSign) -> None:
        await asyncio.sleep(100)

    made, reactions = show(script, refused={STATUS: SlackUnreachableError(STATUS, "503")})

    assert [(at, method) for at, method, _ in made] == [(0, STATUS), (90, STATUS), (100, STATUS)]
    assert reactions == []


def test_a_reaction_an_earlier_process_left_is_taken_off_and_not_added_again() -> None:
    async def script(_: WaitingSign) -> None:
        await asyncio.sleep(2)

    turn = build_turn(root=f"session:{ASKED}", has_reaction=True)
    made, reactions = show(script, turn=turn)

    assert [method for _, method, _ in made] == [STATUS, STATUS, "reactions.remove"]
    assert reactions == [False]


def test_a_reaction_is_taken_off_even_where_the_status_cannot_be_cleared() -> None:
    async def script(_: WaitingSign) -> None:
        await asyncio.sleep(2)

    made, reactions = show(
        script,
        refused={STATUS: SlackUnreachableError(STATUS, "503")},
        turn=build_turn(root=f"session:{ASKED}"),
    )

    assert made[-1] == (2, "reactions.remove", "eyes")
    assert reactions == [True, False]
