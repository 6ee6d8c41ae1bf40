"""The tables, and every step that led to them. A step that was released never changes."""

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from slackbot.domain.orders import SAMPLE_ORDERS

migrations = Migrations("shopmate")

_FIRST_TABLES = """
create table conversations (
    id integer primary key,
    team text not null,
    channel text not null,
    root text not null,              -- the thread's root ts, or session:<ts> in a DM
    kind text not null,              -- channel, group, mpim, im
    is_shared integer not null,      -- with another organisation
    talking_with text,               -- who may go on without a mention
    is_muted integer not null default 0,
    needs_context integer not null default 0, -- what people wrote before is not read yet
    history_from integer not null default 1,
    last_heard_at text not null,
    unique (team, channel, root)
);
create table messages (
    id integer primary key,
    conversation_id integer not null references conversations,
    team text not null,
    channel text not null,
    ts text not null,
    author text not null,
    author_team text not null,
    kind text not null,              -- question, context, stop, dropped
    text text not null,
    mentions text not null,          -- JSON list of user ids
    file_count integer not null,
    heard_at text not null,
    turn_id integer references turns,
    block integer,                   -- which block of the turn's first history row it is
    told_prefix text,                -- what stands before its text there: who says it
    unique (team, channel, ts)
);
create index messages_waiting on messages (conversation_id) where turn_id is null;
create index messages_of_turn on messages (turn_id);
create table turns (
    id integer primary key,
    conversation_id integer not null references conversations,
    number integer not null,
    state text not null,             -- running, written, done, superseded, undeliverable
    attempts integer not null,
    rights text not null,            -- JSON: what it could see
    asker text not null,
    asked_ts text not null,
    heard_at text not null,
    has_reaction integer not null default 0,
    is_stopped integer not null default 0,
    final_text text,
    ending text,                     -- complete, truncated, apology, stopped
    input_tokens integer not null default 0,
    started_at text not null,
    finished_at text,
    unique (conversation_id, number)
);
create index turns_unfinished on turns (id) where state in ('running', 'written');
create table posts (
    turn_id integer not null references turns,
    part text not null,              -- 0, 1, 2 … of the answer; or what else it is
    ts text,                         -- null: intended, perhaps posted
    intended_at text not null,
    primary key (turn_id, part)
) without rowid;
create table history (
    turn_id integer not null references turns,
    position integer not null,
    role text not null,
    content text not null,           -- JSON content blocks
    primary key (turn_id, position)
) without rowid;
create table usage (
    id integer primary key,
    turn_id integer references turns,
    model text not null,
    input_tokens integer not null,
    cache_write_5m_tokens integer not null,
    cache_write_1h_tokens integer not null,
    cache_read_tokens integer not null,
    output_tokens integer not null,
    cost_usd real not null,
    at text not null
);
create index usage_of_turn on usage (turn_id);
create table orders (
    order_id text primary key,
    status text not null,
    item text not null,
    eta text,
    tracking text,
    customer_email text,
    is_sample integer not null default 0
);
create table escalations (
    turn_id integer not null references turns,
    number integer not null,
    asker text not null,
    summary text not null,
    order_ids text not null,         -- JSON list
    at text not null,
    primary key (turn_id, number)
);
create table heartbeat (id integer primary key check (id = 1), at text not null);
"""


@migrations()
def first_tables(db: Database) -> None:
    """Conversations, turns, orders."""
    for statement in _FIRST_TABLES.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations()
def sample_orders(db: Database) -> None:
    """Three orders to try ShopMate with; the first import takes them away."""
    db.conn.executemany(
        "insert into orders values (?, ?, ?, ?, ?, ?, 1)",
        [
            (o.order_id, o.status, o.item, o.eta, o.tracking, o.customer_email)
            for o in SAMPLE_ORDERS
        ],
    )
