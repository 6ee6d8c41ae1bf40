"""The contract of every Store: the shop's orders."""

from dataclasses import replace

import pytest

from slackbot.domain.orders import SAMPLE_ORDERS, Order
from slackbot.errors import StoreError
from slackbot.store.base import ImportCounts, Store

TEE = Order(
    order_id="ORD-2001",
    status="processing",
    item="Tide Tee (M, Blue)",
    eta=None,
    tracking=None,
    customer_email="ann@example.com",
)


def counts(
    *, added: int = 0, updated: int = 0, unchanged: int = 0, samples_removed: int = 0
) -> ImportCounts:
    return ImportCounts(
        added=added, updated=updated, unchanged=unchanged, samples_removed=samples_removed
    )


async def test_a_fresh_database_has_the_samples(store: Store) -> None:
    assert await store.list_orders() == list(SAMPLE_ORDERS)
    assert await store.has_sample_orders()


@pytest.mark.parametrize("asked", ["ORD-1001", "ord-1001", "  Ord-1001\n"])
async def test_an_order_is_found_whatever_the_case(store: Store, asked: str) -> None:
    assert await store.find_order(asked) == SAMPLE_ORDERS[0]


@pytest.mark.parametrize("asked", ["ORD-9999", "", "' or 1=1 --", "ORD-100%"])
async def test_an_order_that_is_not_there_is_none(store: Store, asked: str) -> None:
    assert await store.find_order(asked) is None


async def test_the_first_import_takes_the_samples_away(store: Store) -> None:
    imported = await store.import_orders([TEE])

    assert imported == counts(added=1, samples_removed=3)
    assert await store.list_orders() == [TEE]
    assert not await store.has_sample_orders()


async def test_a_sample_that_is_imported_stays(store: Store) -> None:
    changed = replace(SAMPLE_ORDERS[1], status="shipped")

    imported = await store.import_orders([SAMPLE_ORDERS[0], changed])

    assert imported == counts(updated=1, unchanged=1, samples_removed=1)
    assert await store.list_orders() == [SAMPLE_ORDERS[0], changed]
    assert not await store.has_sample_orders()


async def test_a_later_import_adds_and_updates_and_leaves_the_others(store: Store) -> None:
    other = replace(TEE, order_id="ORD-2002")
    await store.import_orders([TEE, other])
    shipped = replace(TEE, status="shipped", tracking="RM1GB", eta="4 Apr")

    imported = await store.import_orders([shipped, replace(TEE, order_id="ORD-2003")])

    assert imported == counts(added=1, updated=1)
    assert [order.order_id for order in await store.list_orders()] == [
        "ORD-2001",
        "ORD-2002",
        "ORD-2003",
    ]
    assert await store.find_order("ORD-2001") == shipped


async def test_the_same_import_again_changes_nothing(store: Store) -> None:
    await store.import_orders([TEE])

    assert await store.import_orders([TEE]) == counts(unchanged=1)


async def test_of_an_order_imported_twice_at_once_the_later_counts(store: Store) -> None:
    later = replace(TEE, status="delivered")

    imported = await store.import_orders([TEE, later])

    assert imported == counts(added=1, samples_removed=3)
    assert await store.list_orders() == [later]


async def test_an_import_that_fails_changes_nothing(store: Store) -> None:
    without_item = replace(TEE, order_id="ORD-2002", item=None)  # type: ignore[arg-type]  # bad row

    with pytest.raises(StoreError):
        await store.import_orders([TEE, without_item])

    assert await store.list_orders() == list(SAMPLE_ORDERS)
    assert await store.has_sample_orders()
