"""Orders and escalations, as rows."""

from collections.abc import Sequence
from datetime import datetime
from sqlite3 import Row

from sqlite_utils import Database

from slackbot.domain.orders import Order, normalised_order_id
from slackbot.store.base import Escalation, ImportCounts
from slackbot.store.rows import parse_order, to_json, to_time


def find_order(db: Database, order_id: str) -> Order | None:
    """The order with this id."""
    row = db.execute(
        "select * from orders where order_id = ?", (normalised_order_id(order_id),)
    ).fetchone()
    return parse_order(row) if row else None


def list_orders(db: Database) -> list[Order]:
    """Every order, by id."""
    return [parse_order(row) for row in db.execute("select * from orders order by order_id")]


def has_sample_orders(db: Database) -> bool:
    """Whether untouched samples are there."""
    return db.execute("select 1 from orders where is_sample limit 1").fetchone() is not None


def import_orders(db: Database, orders: Sequence[Order]) -> ImportCounts:
    """Adds and updates orders; untouched samples go."""
    imported = {order.order_id: order for order in orders}  # of two the later counts
    samples = db.execute("select order_id from orders where is_sample").fetchall()
    untouched = [row["order_id"] for row in samples if row["order_id"] not in imported]
    db.conn.executemany("delete from orders where order_id = ?", [(one,) for one in untouched])
    before = {row["order_id"]: row for row in db.execute("select * from orders")}
    changed = [o for o in imported.values() if not _is_kept(o, before.get(o.order_id))]
    db.conn.executemany(
        "insert or replace into orders values (?, ?, ?, ?, ?, ?, 0)",
        [
            (o.order_id, o.status, o.item, o.eta, o.tracking, o.customer_email)
            for o in imported.values()
        ],
    )
    updated = sum(order.order_id in before for order in changed)
    return ImportCounts(
        added=len(changed) - updated,
        updated=updated,
        unchanged=len(imported) - len(changed),
        samples_removed=len(untouched),
    )


def record_escalation(db: Database, escalation: Escalation, now: datetime) -> None:
    """Records it; one that is known already stays as it is."""
    db.execute(
        "insert into escalations values (?, ?, ?, ?, ?, ?) on conflict do nothing",
        (
            escalation.turn_id,
            escalation.index,
            escalation.asker,
            escalation.summary,
            to_json(escalation.order_ids),
            to_time(now),
        ),
    )


def _is_kept(order: Order, row: Row | None) -> bool:
    return row is not None and parse_order(row) == order
