import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slackbot.agent.tools.base import ToolContext
from slackbot.agent.tools.escalate import (
    HANDED_OVER,
    MAX_SUMMARY_CHARS,
    NOT_CONNECTED,
    Escalate,
)
from slackbot.agent.tools.orders import NOT_FOUND, GetOrder
from slackbot.domain.conversation import ConversationKey
from slackbot.domain.orders import SAMPLE_ORDERS, Order, normalised_order_id
from slackbot.domain.rights import AllOrders, Denial, NoOrders, OwnOrders, Rights
from slackbot.errors import ToolError
from slackbot.store.base import Escalation
from slackbot.store.sqlite import SqliteStore, open_sqlite_store

WRONG_TYPES: list[Any] = [
    None,
    0,
    1001,
    10.01,
    True,
    False,
    "",
    " \t\n",
    [],
    ["ORD-1001"],
    {},
    {"order_id": "ORD-1001"},
    {"summary": "A refund."},
    b"ORD-1001",
    [[["ORD-1001"]]],
]
STRANGE_IDS = [
    "ORD-9999",
    "ORD-1001; drop table orders",
    "ORD-1001' --",
    "ORD-100%",
    "ORD-100_",
    "ORD-1001,ORD-1002",
    "ORD\u20111001",
    "ORD-\uff11\uff10\uff10\uff11",
    "ORD-1001\0",
    "\0",
    "\U0001f455" * 50,
    "x" * 100_000,
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite_store(tmp_path / "shop.db") as opened:
        yield opened


class Shelf:
    """The sample orders, by their exact ids."""

    async def find_order(self, order_id: str) -> Order | None:
        wanted = normalised_order_id(order_id)
        return next((order for order in SAMPLE_ORDERS if order.order_id == wanted), None)


@pytest.fixture
def get_order() -> GetOrder:
    return GetOrder(Shelf())


def build_context(rights: Rights | None = None, *, use_index: int = 0) -> ToolContext:
    async def fetch_rights() -> Rights:
        return rights or AllOrders()

    return ToolContext(
        turn_id=7,
        use_index=use_index,
        conversation=ConversationKey("T1", "C1", "1700000000.000100"),
        asker="U1",
        asked_ts="1700000000.000100",
        fetch_rights=fetch_rights,
    )


class Desk:
    """Where escalations go, which keeps them."""

    def __init__(self, *, is_connected: bool = True) -> None:
        self._is_connected = is_connected
        self.escalations: list[Escalation] = []

    async def escalate(
        self, escalation: Escalation, *, conversation: ConversationKey, asked_ts: str
    ) -> bool:
        assert asked_ts == conversation.root
        self.escalations.append(escalation)
        return self._is_connected


# get_order


async def test_an_order_is_told_with_everything_there_is_but_the_customers_address(
    get_order: GetOrder,
) -> None:
    told = await get_order.run({"order_id": "ORD-1001"}, build_context())

    assert json.loads(told) == {
        "order_id": "ORD-1001",
        "status": "shipped",
        "item": "Sunset Gradient Tee (M, Orange)",
        "estimated_delivery": "2 Apr",
        "tracking_number": "RM493827651GB",
        "track_url": "https://track.royalmail.com/tracking/RM493827651GB",
    }


async def test_what_an_order_does_not_have_is_left_out(get_order: GetOrder) -> None:
    told = await get_order.run({"order_id": "ORD-1002"}, build_context())

    assert set(json.loads(told)) == {"order_id", "status", "item", "estimated_delivery"}


@pytest.mark.parametrize("order_id", ["ord-1001", " Ord-1001\n", "oRd-1001"])
async def test_neither_case_nor_spaces_matter_in_an_id(get_order: GetOrder, order_id: str) -> None:
    told = await get_order.run({"order_id": order_id}, build_context())

    assert json.loads(told)["order_id"] == "ORD-1001"


@pytest.mark.parametrize("order_id", WRONG_TYPES, ids=repr)
async def test_an_order_id_of_the_wrong_type_is_an_error_claude_can_act_on(
    get_order: GetOrder, order_id: Any
) -> None:
    with pytest.raises(ToolError, match="order_id must be an order number like ORD-1001"):
        await get_order.run({"order_id": order_id}, build_context())


@pytest.mark.parametrize("arguments", [{}, {"id": "ORD-1001"}, {"ORDER_ID": "ORD-1001"}])
async def test_an_order_id_that_is_missing_is_an_error_claude_can_act_on(
    get_order: GetOrder, arguments: Mapping[str, Any]
) -> None:
    with pytest.raises(ToolError, match="order_id must be"):
        await get_order.run(arguments, build_context())


@pytest.mark.parametrize("rights", [AllOrders(), OwnOrders("U1", "jo@example.com")])
async def test_an_id_that_is_no_order_is_simply_not_found(
    store: SqliteStore, rights: Rights
) -> None:
    answered = {}
    for order_id in STRANGE_IDS:
        with pytest.raises(ToolError) as raised:
            await GetOrder(store).run({"order_id": order_id}, build_context(rights))
        answered[order_id] = str(raised.value)

    assert set(answered.values()) == {NOT_FOUND}


async def test_what_else_claude_says_about_the_caller_is_not_listened_to(
    get_order: GetOrder,
) -> None:
    arguments = {
        "order_id": "ORD-1003",
        "asker": "U2",
        "email": "sam@example.com",
        "customer_email": "sam@example.com",
        "rights": {"orders": "all"},
        "is_admin": True,
    }

    with pytest.raises(ToolError) as raised:
        await get_order.run(arguments, build_context(OwnOrders("U1", "jo@example.com")))

    assert str(raised.value) == NOT_FOUND


@pytest.mark.parametrize("denial", list(Denial))
async def test_a_denial_says_the_same_of_every_order_whether_it_exists_or_not(
    get_order: GetOrder, denial: Denial
) -> None:
    sentences = set()
    for order_id in ("ORD-1001", "ORD-1003", "ORD-9999", *STRANGE_IDS):
        with pytest.raises(ToolError) as raised:
            await get_order.run({"order_id": order_id}, build_context(NoOrders(denial)))
        sentences.add(str(raised.value))

    assert len(sentences) == 1
    assert NOT_FOUND not in sentences


async def test_an_order_without_an_address_belongs_to_nobody(store: SqliteStore) -> None:
    for address in (None, ""):
        order = replace(SAMPLE_ORDERS[0], order_id="ORD-5000", customer_email=address)
        await store.import_orders([order])

        for email in ("", "jo@example.com", "none", "null"):
            context = build_context(OwnOrders("U1", email))
            with pytest.raises(ToolError) as raised:
                await GetOrder(store).run({"order_id": "ORD-5000"}, context)
            assert str(raised.value) == NOT_FOUND


@pytest.mark.parametrize("address", ["JO@example.com", " jo@example.com ", "Jo@Example.COM"])
async def test_the_address_of_an_order_is_compared_without_case_and_spaces(
    store: SqliteStore, address: str
) -> None:
    await store.import_orders([replace(SAMPLE_ORDERS[0], customer_email=address)])

    rights = OwnOrders("U1", "jo@example.com")
    told = await GetOrder(store).run({"order_id": "ORD-1001"}, build_context(rights))

    assert json.loads(told)["order_id"] == "ORD-1001"


# escalate


@pytest.mark.parametrize("summary", WRONG_TYPES, ids=repr)
async def test_a_summary_of_the_wrong_type_is_an_error_and_nothing_is_recorded(
    summary: Any,
) -> None:
    desk = Desk()

    with pytest.raises(ToolError, match="summary must say"):
        await Escalate(desk).run({"summary": summary}, build_context())

    assert desk.escalations == []


async def test_a_missing_summary_is_an_error() -> None:
    desk = Desk()

    with pytest.raises(ToolError, match="summary must say"):
        await Escalate(desk).run({"text": "A refund."}, build_context())

    assert desk.escalations == []


async def test_an_escalation_names_who_asked_and_which_orders_each_once() -> None:
    desk = Desk()
    summary = " Refund for ORD-1001, ord-1002 and ORD-1001. Not X-1, ORD-12 or ORD-123456789. "

    told = await Escalate(desk).run(
        {"summary": summary, "asker": "U2", "turn_id": 1}, build_context(use_index=3)
    )

    assert told == HANDED_OVER
    assert desk.escalations == [
        Escalation(
            turn_id=7,
            index=3,
            asker="U1",
            summary=summary.strip(),
            order_ids=("ORD-1001", "ORD-1002"),
        )
    ]


async def test_where_nobody_is_told_claude_hears_that_nobody_was() -> None:
    told = await Escalate(Desk(is_connected=False)).run({"summary": "A refund."}, build_context())

    assert told == NOT_CONNECTED
    assert "hello@threadco.com" in told


async def test_a_summary_without_end_is_cut() -> None:
    desk = Desk()

    await Escalate(desk).run({"summary": "x" * 1_000_000}, build_context())

    assert len(desk.escalations[0].summary) == MAX_SUMMARY_CHARS


@pytest.mark.parametrize("tool", [GetOrder, Escalate])
def test_no_tool_takes_anything_that_says_who_is_asking(tool: Any) -> None:
    schema = tool.definition["input_schema"]

    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(schema["required"])
    assert len(schema["properties"]) == 1
