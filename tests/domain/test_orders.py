import pytest

from slackbot.domain.orders import SAMPLE_ORDERS, STATUSES, normalised_order_id


def test_a_parcel_can_be_followed_by_its_number() -> None:
    shipped, processing, _ = SAMPLE_ORDERS

    assert shipped.track_url == "https://track.royalmail.com/tracking/RM493827651GB"
    assert processing.track_url is None


@pytest.mark.parametrize("asked", ["ORD-1001", "ord-1001", " Ord-1001\n"])
def test_an_order_has_one_id_however_it_is_written(asked: str) -> None:
    assert normalised_order_id(asked) == "ORD-1001"


def test_samples_are_orders_like_any_other() -> None:
    assert {order.status for order in SAMPLE_ORDERS} == set(STATUSES)
    assert all(normalised_order_id(order.order_id) == order.order_id for order in SAMPLE_ORDERS)
