"""What drivers say to a server beyond plain statements, message by message; nothing of it stays."""

from __future__ import annotations

from dataclasses import dataclass

from broker.protocols.postgres import codec

Q, P, E, SYNC, FLUSH = codec.query, codec.parse, codec.execute, codec.SYNC, codec.FLUSH


@dataclass(frozen=True, slots=True)
class Turn:
    """What a client sends, and the types of message that it then waits for, the last of them `times` over."""

    sent: bytes
    until: str = "Z"
    times: int = 1


def bind(
    statement: str = "", portal: str = "", values: tuple[bytes | None, ...] = (), *, sent: int = 0, wanted: int = 0
) -> bytes:
    """Write a Bind; `sent` and `wanted` are 1 for binary."""
    given = b"".join(
        (-1).to_bytes(4, "big", signed=True) if value is None else len(value).to_bytes(4, "big") + value
        for value in values
    )
    formats = (1).to_bytes(2, "big") + sent.to_bytes(2, "big")
    count = len(values).to_bytes(2, "big")
    results = (1).to_bytes(2, "big") + wanted.to_bytes(2, "big")
    return codec.message(b"B", codec.string(portal) + codec.string(statement) + formats + count + given + results)


def describe(kind: str, name: str = "") -> bytes:
    return codec.message(b"D", kind.encode() + codec.string(name))


def copied(data: bytes) -> bytes:
    return codec.message(b"d", data)


def extended(sql: str, wanted: int = 0) -> bytes:
    """Write what a driver sends of a statement without parameters."""
    return P("", sql) + describe("S") + bind(wanted=wanted) + describe("P") + E("") + SYNC


COPY_DONE = codec.message(b"c")
_BEGIN, _BACK = Turn(Q("begin")), Turn(Q("rollback"))
_BINARY = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_ROW = b"\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x01x"

TALKS: dict[str, tuple[Turn, ...]] = {
    "empty": (Turn(Q("")), Turn(Q(";;")), Turn(Q("-- nothing")), Turn(extended(""))),
    "several statements": (Turn(Q("select 1; select 'a'::text, null; show datestyle")),),
    "several statements, one of which fails": (
        Turn(Q("select 1; select 1/0; select 2")),
        Turn(Q("begin; select 1; select 1/0; select 2")),
        Turn(Q("select 1")),
        _BACK,
    ),
    "errors": (
        Turn(Q("selec 1")),
        Turn(Q("select 'a'::int")),
        Turn(Q("select nothing from orders")),
        Turn(Q("select * from orders where 'é' = no_such_column")),
        Turn(Q("select no_such_function(1)")),
        Turn(Q("insert into orders (id, customer_id) values (1, 1)")),
        Turn(Q("insert into orders (id, customer_id) values (7, null)")),
        Turn(extended("select 1/0")),
        Turn(extended("selec 1")),
    ),
    "names that are unknown": (
        Turn(Q("select * from no_such_table")),
        Turn(Q("select * from no_such_schema.orders")),
        Turn(Q("execute nothing")),
        Turn(Q("fetch nothing")),
        Turn(Q("deallocate nothing")),
        Turn(bind("nothing") + SYNC),
        Turn(describe("S", "nothing") + SYNC),
        Turn(describe("P", "nothing") + SYNC),
        Turn(E("nothing") + SYNC),
        Turn(codec.close("S", "nothing") + codec.close("P", "nothing") + SYNC),
    ),
    "transactions": (
        _BEGIN,
        _BEGIN,
        Turn(Q("savepoint a")),
        Turn(Q("select 1/0")),
        Turn(Q("select 1")),
        Turn(Q("rollback to a")),
        Turn(Q("release a")),
        Turn(Q("set local timezone = 'Asia/Tokyo'")),
        Turn(Q("commit")),
        Turn(Q("commit")),
        _BACK,
        Turn(Q("start transaction isolation level serializable, read only, deferrable")),
        Turn(Q("insert into log values (1)")),
        Turn(Q("commit")),
        Turn(Q("begin; select 1; commit and chain")),
        _BACK,
    ),
    "read-only transactions": (
        Turn(Q("begin read only")),
        Turn(Q("truncate loaded")),
        _BACK,
        Turn(Q("start transaction isolation level repeatable read read write")),
        Turn(Q("set transaction read only")),
        _BACK,
        Turn(Q("set session characteristics as transaction read only")),
        Turn(Q("insert into loaded values (1)")),
        Turn(Q("set session characteristics as transaction read write")),
        Turn(Q("show default_transaction_read_only")),
    ),
    "a failing commit": (
        Turn(Q("begin; insert into log values (1); insert into log values (1)")),
        Turn(Q("commit")),
        _BEGIN,
        Turn(Q("insert into log values (1), (1)")),
        Turn(Q("set constraints all immediate")),
        _BACK,
    ),
    "settings": (
        Turn(Q("set timezone = 'Asia/Tokyo'")),
        Turn(Q("set datestyle = 'german'")),
        Turn(Q("set intervalstyle = 'iso_8601'")),
        Turn(Q("select now() is null, '1 day 2 hours'::interval, date '2024-02-03'")),
        Turn(Q("set extra_float_digits = 0; select 0.1::float8 + 0.2::float8")),
        Turn(Q("set bytea_output = escape; select '\\x6162'::bytea")),
        Turn(Q("show timezone")),
        Turn(Q("show transaction isolation level")),
        Turn(Q("set session characteristics as transaction isolation level repeatable read")),
        Turn(Q("show default_transaction_isolation")),
        Turn(Q("reset timezone")),
        Turn(Q("reset all")),
        Turn(Q("discard all")),
        Turn(Q("select set_config('timezone', 'UTC', true)")),
    ),
    "what its name is": (Turn(Q("set application_name = 'mine'")), Turn(Q("show application_name"))),
    "a prepared statement": (
        Turn(P("s", "select $1::int + 1, $2::text", (23, 25)) + describe("S", "s") + SYNC),
        Turn(bind("s", values=(b"1", b"a")) + E("") + SYNC),
        Turn(bind("s", values=((5).to_bytes(4, "big"), None), sent=1, wanted=1) + describe("P") + E("") + SYNC),
        Turn(P("s", "select 2") + SYNC),
        Turn(bind("s", values=(b"x", b"a")) + E("") + SYNC),
        Turn(bind("s", values=(b"1",)) + E("") + SYNC),
        Turn(Q("select name, statement, parameter_types from pg_prepared_statements")),
        Turn(codec.close("S", "s") + SYNC),
        Turn(bind("s", values=(b"1", b"a")) + SYNC),
        Turn(Q("prepare q as select 1; execute q; deallocate all")),
    ),
    "pgJDBC, with autocommit off": (
        Turn(P("", "SET extra_float_digits = 3") + bind() + E("", 1) + SYNC),
        Turn(P("", "BEGIN") + bind() + E("") + P("", "select id, name from customers where id = $1", (23,))
             + bind(values=((1).to_bytes(4, "big"),), sent=1) + describe("P") + E("", 2) + SYNC),
        Turn(P("S_1", "select name from customers where id = $1", (23,)) + describe("S", "S_1")
             + bind("S_1", values=(b"2",)) + describe("P") + E("") + SYNC),
        Turn(bind("S_1", "C_1", values=((3).to_bytes(4, "big"),), sent=1, wanted=1) + E("C_1", 1) + SYNC),
        Turn(E("C_1", 1) + SYNC),
        Turn(codec.close("P", "C_1") + P("S_2", "COMMIT") + bind("S_2") + E("", 1) + SYNC),
        Turn(codec.close("S", "S_1") + P("", "ROLLBACK") + bind() + E("", 1) + SYNC),
        Turn(Q("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")),
        Turn(Q("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")),
    ),
    "psycopg, in pipeline mode": (
        Turn(P("", "BEGIN") + bind() + describe("P") + E("") + P("_pg3_0", "select $1::int8 + 1", (20,)) + FLUSH, "C1"),
        Turn(bind("_pg3_0", values=(b"41",)) + describe("P") + E("") + FLUSH, "C"),
        Turn(bind("_pg3_0", values=(b"x",)) + describe("P") + E("") + bind("_pg3_0", values=(b"1",)) + E("") + SYNC),
        Turn(P("", "ROLLBACK") + bind() + describe("P") + E("") + SYNC),
        Turn(Q("DEALLOCATE ALL")),
    ),
    "Django 5.2's ORM": (
        Turn(Q("SELECT set_config('TimeZone', 'Europe/Berlin', false)")),
        Turn(P("", "SELECT set_config('TimeZone', $1, false)") + bind(values=(b"UTC",)) + describe("P") + E("") + SYNC),
        _BEGIN,
        Turn(Q("""INSERT INTO "orders" ("customer_id", "note") SELECT * FROM UNNEST(('{1,2}')::integer[], """
               """('{"a","b"}')::varchar[]) RETURNING "orders"."note\"""")),
        Turn(Q("""INSERT INTO "loaded" ("id", "what") VALUES (1, 'a'), (2, 'b') ON CONFLICT DO NOTHING""")),
        Turn(Q('SAVEPOINT "s1_x1"')),
        Turn(Q("""INSERT INTO "orders" ("id", "customer_id") VALUES (1000, NULL)""")),
        Turn(Q('ROLLBACK TO SAVEPOINT "s1_x1"')),
        Turn(Q('RELEASE SAVEPOINT "s1_x1"')),
        Turn(Q("""SELECT "orders"."id", "customers"."name" FROM "orders" INNER JOIN "customers" ON """
               """("orders"."customer_id" = "customers"."id") WHERE (("orders"."body" -> 'a') = '1'::jsonb AND """
               """UPPER("orders"."note"::text) LIKE UPPER('%1%')) ORDER BY "orders"."id" ASC LIMIT 3 """
               """FOR UPDATE OF "orders" SKIP LOCKED""")),
        Turn(Q("""SELECT "customers"."id", COUNT("orders"."id") AS "n", ROW_NUMBER() OVER (PARTITION BY """
               """"customers"."mood" ORDER BY "customers"."id" DESC) AS "r", CASE WHEN "customers"."paid" > 20 """
               """THEN 'dear' ELSE 'cheap' END AS "c", EXISTS(SELECT 1 AS "a" FROM "orders" U0 WHERE """
               """U0."customer_id" = ("customers"."id") LIMIT 1) AS "has" FROM "customers" LEFT OUTER JOIN """
               """"orders" ON ("customers"."id" = "orders"."customer_id") GROUP BY "customers"."id", 4, 5 """
               """HAVING COUNT("orders"."id") > 1 ORDER BY "customers"."id" ASC""")),
        Turn(Q('DECLARE "_django_curs_1_sync_1" NO SCROLL CURSOR FOR SELECT "orders"."id" FROM "orders" ORDER BY 1')),
        Turn(Q('FETCH FORWARD 7 FROM "_django_curs_1_sync_1"')),
        Turn(Q('CLOSE "_django_curs_1_sync_1"')),
        _BACK,
        Turn(P("", 'DECLARE "_django_curs_1_sync_2" NO SCROLL CURSOR WITH HOLD FOR SELECT "customers"."id", '
               '"customers"."tags" FROM "customers" WHERE "customers"."id" < $1', (20,))
             + bind(values=(b"9",)) + describe("P") + E("") + SYNC),
        Turn(describe("P", "_django_curs_1_sync_2") + SYNC),
        Turn(Q('FETCH FORWARD 3 FROM "_django_curs_1_sync_2"')),
        Turn(Q('CLOSE "_django_curs_1_sync_2"')),
        Turn(Q("EXPLAIN (FORMAT json) SELECT 1")),
    ),
    "a search path that it begins with": (
        Turn(Q("select current_schemas(false)")),
        Turn(Q("select what from loaded")),
        Turn(Q("begin; savepoint a; set local search_path to public")),
        Turn(Q("select what from loaded")),
        _BACK,
        Turn(Q("set search_path to public")),
        Turn(extended("select what from loaded")),
        Turn(Q("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;")),
        Turn(extended("select what from loaded")),
        Turn(Q("set search_path to public")),
        Turn(Q("discard all")),
        Turn(extended("select what from loaded")),
        Turn(Q("show jit")),
    ),
    "portals": (
        _BEGIN,
        Turn(P("", "select g from generate_series(1, 7) g") + bind(portal="c") + E("c", 3) + SYNC),
        Turn(E("c", 3) + SYNC),
        Turn(Q("fetch 1 from c")),
        Turn(E("c", 3) + SYNC),
        Turn(codec.close("P", "c") + SYNC),
        Turn(E("c") + SYNC),
        _BACK,
        Turn(P("", "select g from generate_series(1, 7) g") + bind() + E("", 3) + E("", 3) + E("", 3) + SYNC),
    ),
    "cursors": (
        _BEGIN,
        Turn(Q("declare c scroll cursor for select id, name from customers order by id")),
        Turn(Q("fetch 2 from c")),
        Turn(Q("fetch backward 1 from c; move 3 in c; fetch all from c")),
        Turn(Q("close c")),
        Turn(Q("fetch c")),
        _BACK,
        Turn(Q("declare h cursor with hold for select 1")),
        Turn(Q("begin; declare h cursor with hold for select 1; commit; fetch h; close all")),
    ),
    "a pipeline": (
        Turn(extended("select 1") * 3, times=3),
        Turn(P("", "select 1/0") + bind() + E("") + P("", "select 2") + bind() + E("") + SYNC + extended("select 3"),
             times=2),
        Turn(P("a", "select 1") + bind("a") + E("") + bind("a") + E("") + SYNC),
        Turn(P("", "begin") + bind() + E("") + P("", "select 1/0") + bind() + E("") + SYNC),
        Turn(extended("select 1") + extended("rollback"), times=2),
    ),
    "flushes": (
        Turn(P("", "select id, name from customers where id = $1") + describe("S") + FLUSH, "tT"),
        Turn(bind(values=(b"3",)) + E("") + FLUSH, "C"),
        Turn(SYNC),
        Turn(P("", "selec") + FLUSH, "E"),
        Turn(P("", "select 1") + FLUSH + SYNC),
    ),
    "copying out": (
        Turn(Q("copy customers (id, name) to stdout")),
        Turn(Q("copy (select 1, 'a,b') to stdout (format csv, header)")),
        Turn(Q("copy customers (id) to stdout (format binary)")),
        Turn(extended("copy (select 1) to stdout")),
        Turn(Q("copy (select 1/(3 - g) from generate_series(1, 5) g) to stdout")),
    ),
    "copying in": (
        _BEGIN,
        Turn(Q("copy loaded from stdin"), "G"),
        Turn(copied(b"1\ta\n2\t") + copied(b"b\n") + COPY_DONE),
        Turn(Q("copy loaded (what) from stdin (format csv)"), "G"),
        Turn(copied(b'"a ""b"""\n') + COPY_DONE),
        Turn(Q("copy loaded from stdin (format binary)"), "G"),
        Turn(copied(_BINARY) + copied(_ROW + b"\xff\xff") + COPY_DONE),
        Turn(Q("table loaded")),
        Turn(Q("copy loaded from stdin"), "G"),
        Turn(codec.copy_fail("enough")),
        _BACK,
        _BEGIN,
        Turn(P("", "copy loaded from stdin") + bind() + E("") + FLUSH, "G"),
        Turn(copied(b"9\tz\n") + COPY_DONE + SYNC),
        Turn(Q("copy loaded from stdin"), "G"),
        Turn(copied(b"x\n") + COPY_DONE),
        _BACK,
    ),
    "notices": (
        Turn(Q("do $$ begin raise notice 'a %', 1; raise warning 'b'; raise info 'c'; end $$")),
        Turn(Q("set client_min_messages = warning; do $$ begin raise notice 'a'; end $$")),
        Turn(Q("reset client_min_messages; begin")),
        Turn(Q("insert into parted values (1, 'north')")),
        Turn(Q("do $$ begin raise 'mine' using errcode = 'AB123', detail = 'd', hint = 'h'; end $$")),
        _BACK,
        Turn(Q("drop table if exists no_such_table")),
    ),
    "notifications": (
        Turn(Q("listen news")),
        Turn(Q("notify news, 'hello'")),
        Turn(Q("unlisten *")),
        Turn(Q("notify news, 'hello'")),
    ),
    "changes": (
        _BEGIN,
        Turn(Q("insert into orders (id, customer_id) values (1000, 1) returning id, at")),
        Turn(Q("update orders set note = 'x' where id = 1000 returning *")),
        Turn(Q("delete from orders where id = 1000")),
        Turn(Q("insert into loaded values (1, 'a') on conflict do nothing")),
        Turn(Q("truncate loaded")),
        Turn(Q("lock loaded in share mode")),
        Turn(Q("select id from orders order by id limit 1 for update")),
        _BACK,
    ),
    "types": (
        Turn(extended("select c, c.home, c.tags, c.paid, c.mood, c.born from customers c where id < 4", wanted=1)),
        Turn(extended("select body, at at time zone 'UTC' from orders order by id limit 2", wanted=1)),
        Turn(Q("select null::short, 'glad'::mood, row(1, 'a'), array[[1, 2], [3, 4]], int4range(1, 5), '{}'::jsonb")),
        Turn(Q("select 'infinity'::date, 'nan'::float8, 1e400::numeric, '\\x00ff'::bytea, b'101', '1 y'::interval")),
    ),
    "functions": (
        Turn(Q("select public.total(1)")),
        Turn(Q("select pg_sleep(0), pg_try_advisory_lock(7), pg_advisory_unlock(7)")),
        Turn(Q("select count(*) from pg_locks where locktype = 'advisory'")),
    ),
    "a copy that is failed once it is complete (postgres.js)": (
        _BEGIN,
        Turn(Q("copy loaded from stdin"), "G"),
        Turn(copied(b"1\ta\n") + COPY_DONE),
        Turn(codec.copy_fail("null") + Q("table loaded")),
        _BACK,
    ),
    "a path of nothing": tuple(
        Turn(Q(text))
        for text in (
            "set search_path = pg_catalog",
            "select current_schema(), (current_schemas(false))[1], pg_my_temp_schema()",
            "select count(*) from public.orders",
            "select count(*) from pg_class where relname = 'orders'",
            "select * from orders",
            "reset search_path",
        )
    ),
    "names that say their database (dbt)": tuple(
        Turn(Q(text))
        for text in (
            'select count(*) from "postgres"."public"."orders" o join postgres.public.customers on true',
            'select count(*) from "postgres".INFORMATION_SCHEMA.columns where table_name = \'orders\'',
            'begin; create table "postgres"."tools"."made" as (select 1 as id, \'x\' as what)',
            'comment on column "postgres"."tools"."made".id is $$key$$',
            'create index if not exists "made_id" on "postgres"."tools"."made" using btree (id)',
            'update "postgres"."tools"."made" set what = s.w from (values (1, \'y\')) s (i, w) '
            'where s.i = "postgres"."tools"."made".id',
            'alter table "postgres"."tools"."made" rename to "made2"',
            'select string_agg(what, $$,$$) from "postgres"."tools"."made2"',
            'select * from "postgres"."tools"."made2" where id = 1 / 0',
            "rollback",
            'drop table if exists "postgres"."tools"."made2" cascade',
        )
    ),
    "a message out of place": (Turn(codec.message(b"d", b"x") + COPY_DONE + Q("select 1")),),
}  # fmt: skip
"""Name -> what is said on a connection of its own."""

BEGUN_WITH = {"a search path that it begins with": [("options", r"-csearch_path=tools,\ public --jit=off")]}
"""What stands in the startup packet of one, beside who it is."""
