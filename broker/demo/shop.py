"""Fills the shop: two databases, the roles that the broker uses, and their passwords as files."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from broker.demo.cluster import SUPERUSER
from broker.demo.people import invent_cards, invent_customers, invent_products

ROLES = {"read": "airlock_read", "write": "airlock_write"}
_SCHEMA = Path(__file__).with_name("shop.sql")
_TABLES = "customers, products, orders, order_items, payments"

# Everything about an order follows from its number, so that the shop is the same everywhere; the factors are primes.
_ITEMS = """
    insert into order_items (order_id, line, product_id, quantity, unit_price)
    select o.id, l.line, p.id, 1 + (o.id::bigint * 31 + l.line * 17) % 7 / 3, p.price
    from generate_series(1, $1::int) o(id)
    cross join lateral generate_series(1, 1 + (o.id::bigint * 7919 % 11 / 5)::int) l(line)
    join products p on p.id = 1 + (o.id::bigint * 104729 + l.line * 1299709) % 200
"""
_ORDERS = """
    insert into orders (id, customer_id, status, total, placed_at, note)
    select i.order_id,
           1 + (i.order_id::bigint * 48611 + i.order_id / 7) % $1::int,
           case when $2::int - i.order_id < 400 then (array['placed', 'paid', 'packed', 'shipped'])[1 + i.order_id % 4]
                when i.order_id % 29 = 0 then 'cancelled' when i.order_id % 41 = 0 then 'refunded' else 'delivered' end,
           sum(i.quantity * i.unit_price),
           timestamptz '2024-01-02 06:00+00'
               + (i.order_id::bigint * 88128000 / $2::int + i.order_id::bigint * 7919 % 3000) * interval '1 second',
           (array['leave with the neighbour', 'gift wrap, please', 'call before delivery', 'no plastic, thank you',
                  'replaces a broken one', 'ring twice'])[1 + (i.order_id::bigint * 15485863 % 60)::int]
    from order_items i group by i.order_id order by i.order_id
"""
_PAYMENTS = """
    insert into payments (order_id, card_id, amount, method, status, paid_at)
    select o.id, c.id, o.total,
           case when c.id is not null then 'card' when o.id % 3 = 0 then 'transfer' else 'wallet' end,
           case o.status when 'cancelled' then 'voided' when 'refunded' then 'refunded' when 'placed' then 'pending'
                else 'settled' end,
           case when o.status not in ('placed', 'cancelled') then o.placed_at + (o.id % 90) * interval '1 minute' end
    from orders o left join (select distinct on (customer_id) customer_id, id from cards order by customer_id, id) c
         on c.customer_id = o.customer_id and o.id % 5 <> 0
    order by o.id
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """One database of the demo: its name, how much is in it, and what its credentials' files begin with."""

    database: str
    customers: int
    orders: int
    credential: str
    comment: str
    covered: dict[str, str]
    """Level -> the tables that policy covers, and no others: what `airlock provision` would grant."""
    view: str = ""
    """What policy covers beside them."""


SHOPS = (
    Shop(
        "shop",
        5_000,
        120_000,
        "prod-db",
        "The invented shop, as production. Every person and payment in it is invented.",
        {"read": f"{_TABLES}, cards", "write": _TABLES},
    ),
    Shop(
        "shop_staging",
        25,
        200,
        "staging-db",
        "The invented shop, as staging. Every person and payment in it is invented.",
        dict.fromkeys(ROLES, f"{_TABLES}, cards"),
        "order_totals",
    ),
)


async def prepare(port: int, password: str, folder: Path, say: Callable[[str], None]) -> None:
    """Makes what is missing: roles, databases, credential files; what exists stays as it is."""
    admin = await _connect(port, password, "postgres")
    try:
        words = {level: _password(folder, level) for level in ROLES}
        for level, role in ROLES.items():
            await _make_role(admin, role, words[level])
        for shop in SHOPS:
            if not await admin.fetchval("select 1 from pg_database where datname = $1", shop.database):
                say(f"inventing `{shop.database}`: {shop.customers:,} customers, {shop.orders:,} orders")
                await _make_shop(admin, port, password, shop)
        # Our roles have business in the shops only.
        await admin.execute("revoke all on database postgres, template1 from public")
    finally:
        await admin.close()
    for shop in SHOPS:
        for level, role in ROLES.items():
            write_private(folder / f"{shop.credential}-{level}", f"{role}:{words[level]}\n")


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner reads, whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def _password(folder: Path, level: str) -> str:
    """The role's password: the one in its first file, or a new one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        role, _, word = (folder / f"{SHOPS[0].credential}-{level}").read_text().strip().partition(":")
    except OSError:
        role = word = ""
    return word if role == ROLES[level] and word else secrets.token_urlsafe(24)


async def _connect(port: int, password: str, database: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        host="127.0.0.1", port=port, user=SUPERUSER, password=password, database=database, ssl=False, timeout=30
    )


async def _make_role(admin: asyncpg.Connection, role: str, word: str) -> None:
    """Makes or mends a role: it may log in, and nothing else."""
    exists = await admin.fetchval("select 1 from pg_roles where rolname = $1", role)
    verb = "alter" if exists else "create"
    rights = "login nosuperuser nocreatedb nocreaterole noreplication nobypassrls"
    await admin.execute(
        await admin.fetchval(f"select format('{verb} role %I {rights} password %L', $1::text, $2::text)", role, word)
    )


async def _make_shop(admin: asyncpg.Connection, port: int, password: str, shop: Shop) -> None:
    """Makes the database under another name and renames it when it is whole."""
    unfinished = f"{shop.database}_unfinished"
    await admin.execute(f"drop database if exists {unfinished} with (force)")
    await admin.execute(f"create database {unfinished} template template0")
    inside = await _connect(port, password, unfinished)
    try:
        async with inside.transaction():
            await _fill(inside, shop)
            await _grant(inside, shop)
        await inside.execute("vacuum (analyze)")
    finally:
        await inside.close()
    roles = ", ".join(ROLES.values())
    await admin.execute(f"revoke all on database {unfinished} from public")
    await admin.execute(f"grant connect on database {unfinished} to {roles}")
    await admin.execute(f"comment on database {unfinished} is '{shop.comment}'")
    await admin.execute(f"alter database {unfinished} rename to {shop.database}")


async def _fill(inside: asyncpg.Connection, shop: Shop) -> None:
    tables, _, rest = _SCHEMA.read_text().partition("-- after the data\n")
    await inside.execute(tables)
    customers = invent_customers(shop.customers, seed=shop.customers)
    await inside.copy_records_to_table("customers", records=customers)
    await inside.copy_records_to_table("cards", records=invent_cards(customers, seed=shop.customers))
    await inside.copy_records_to_table("products", records=invent_products())
    await inside.execute(_ITEMS, shop.orders)
    await inside.execute(_ORDERS, shop.customers, shop.orders)
    await inside.execute(_PAYMENTS)
    await inside.execute(rest)
    for table in ("customers", "cards", "products", "orders"):
        last = await inside.fetchval(f"select max(id) from {table}")  # noqa: S608 - a name from the line above
        await inside.execute("select setval(pg_get_serial_sequence($1, 'id'), $2)", table, last)


async def _grant(inside: asyncpg.Connection, shop: Shop) -> None:
    await inside.execute("revoke create on schema public from public")
    for level, role in ROLES.items():
        tables = shop.covered[level]
        read = f"{tables}, {shop.view}" if shop.view else tables
        await inside.execute(f"grant usage on schema public to {role}; grant select on {read} to {role}")
        if level == "write":
            await inside.execute(f"grant insert, update, delete on {tables} to {role}")
