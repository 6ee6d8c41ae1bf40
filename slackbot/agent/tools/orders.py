"""The tool that looks an order up, within the rights of the turn."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from slackbot.agent.tools.base import ToolContext
from slackbot.domain.orders import Order
from slackbot.domain.rights import AllOrders, Denial, NoOrders, OwnOrders, Rights
from slackbot.errors import ToolError

NOT_FOUND = (
    "No order with this id was found. Ask the customer to double-check the order number in the "
    "confirmation e-mail."
)
_DENIED = {
    Denial.SHARED_CHANNEL: (
        "Orders cannot be looked up in a channel shared with another organisation. Offer to help "
        "in a direct message instead."
    ),
    Denial.GUEST_IN_CHANNEL: (
        "A guest takes part here, so orders can only be looked up in a direct message. Ask them to "
        "write to you there."
    ),
    Denial.NO_CONFIRMED_EMAIL: (
        "Orders cannot be looked up: this person's Slack profile has no confirmed e-mail address. "
        "Ask them to confirm it in Slack, or to write to hello@threadco.com."
    ),
    Denial.UNTRUSTED_ORGANISATION: (
        "Orders cannot be looked up for people of another organisation. Ask them to write to "
        "hello@threadco.com."
    ),
    Denial.SEVERAL_CUSTOMERS: (
        "Orders cannot be looked up while several customers take part. Offer a direct message."
    ),
    Denial.EMAIL_CHANGED: (
        "Orders cannot be looked up in this answer: this person's e-mail address in Slack has just "
        "changed. Ask them to ask again."
    ),
    Denial.PROFILE_UNREADABLE: (
        "Orders cannot be looked up: Slack does not say at the moment who is asking. Ask them to "
        "try again in a few minutes."
    ),
}


class OrderFinder(Protocol):
    """Where orders are found."""

    async def find_order(self, order_id: str) -> Order | None:
        """The order with this id, or None."""
        ...


class GetOrder:
    """`get_order(order_id)`: what one may not see answers exactly like what does not exist."""

    name = "get_order"
    definition: Mapping[str, Any] = {
        "name": name,
        "description": (
            "Looks up a ThreadCo order: status, item, estimated delivery, tracking number and "
            "tracking link. Call it for every order number before saying anything about that "
            "order. An order number looks like ORD-1001."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "order_id": {"type": "string", "description": "The order number, like ORD-1001."}
            },
            "required": ["order_id"],
            "additionalProperties": False,
        },
    }

    def __init__(self, orders: OrderFinder) -> None:
        self._orders = orders

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """The order as JSON.

        Raises:
            ToolError: there is no such order, for this turn.
        """
        order_id = arguments.get("order_id")
        if not isinstance(order_id, str) or not order_id.strip():
            raise ToolError("order_id must be an order number like ORD-1001.")
        rights = await context.fetch_rights()
        if isinstance(rights, NoOrders):
            raise ToolError(_DENIED[rights.denial])
        order = await self._orders.find_order(order_id)
        if order is None or not _may_see(rights, order):
            raise ToolError(NOT_FOUND)
        return json.dumps(_describe(order), ensure_ascii=False)


def _may_see(rights: Rights, order: Order) -> bool:
    match rights:
        case AllOrders():
            return True
        case OwnOrders(email=email):
            return bool(email) and (order.customer_email or "").strip().casefold() == email
        case _:
            return False


def _describe(order: Order) -> dict[str, str]:
    described = {
        "order_id": order.order_id,
        "status": order.status,
        "item": order.item,
        "estimated_delivery": order.eta,
        "tracking_number": order.tracking,
        "track_url": order.track_url,
    }
    return {name: value for name, value in described.items() if value}
