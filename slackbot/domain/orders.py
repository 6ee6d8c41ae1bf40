"""The shop's orders."""

from dataclasses import dataclass

TRACKING_URL = "https://track.royalmail.com/tracking/{}"
STATUSES = ("processing", "shipped", "delivered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order. `eta` is free text; `tracking` Royal Mail's number; None where there is none."""

    order_id: str
    status: str
    item: str
    eta: str | None
    tracking: str | None
    customer_email: str | None

    @property
    def track_url(self) -> str | None:
        """Where the parcel can be followed."""
        return TRACKING_URL.format(self.tracking) if self.tracking else None


SAMPLE_ORDERS = (
    Order(
        order_id="ORD-1001",
        status="shipped",
        item="Sunset Gradient Tee (M, Orange)",
        eta="2 Apr",
        tracking="RM493827651GB",
        customer_email="jo@example.com",
    ),
    Order(
        order_id="ORD-1002",
        status="processing",
        item="Wave Print Crop Tee (S, Slate)",
        eta="4 Apr",
        tracking=None,
        customer_email="kit@example.com",
    ),
    Order(
        order_id="ORD-1003",
        status="delivered",
        item="Midnight Pocket Tee (L, Black)",
        eta=None,
        tracking="RM381726495GB",
        customer_email="sam@example.com",
    ),
)


def normalised_order_id(order_id: str) -> str:
    """An order id as orders are kept: without spaces around it, in capitals."""
    return order_id.strip().upper()
