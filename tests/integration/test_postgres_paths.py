"""A search path that clients set: random pipelines around it, in which no masked value ever arrives.

`AIRLOCK_FUZZ=N` tries N / 20 sessions, `AIRLOCK_SEED` begins elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from broker.protocols.postgres import codec
from tests.integration.postgres_world import Raw, endpoint, enter, make_world, raw
from tests.support.broker import POLICY, serving
from tests.support.postgres import Server

COUNT = int(os.environ.get("AIRLOCK_FUZZ", "150")) // 20
SEED = int(os.environ.get("AIRLOCK_SEED", "0"))
PIPELINES = 15

SET_UP = (
    *(f"create schema {name}" for name in ("open", "hidden")),
    *(f"create table {name}.t (id int, m text)" for name in ("open", "hidden", "public")),
    *(f"insert into {name}.t select g, '{name}-value' from generate_series(1, 3) g" for name in ("open", "hidden")),
    "insert into public.t values (1, 'public-value')",
    "create table sink (m text)",
    "create table changed (id int)",
    "create function peek() returns text stable language plpgsql as 'begin return (select m from t limit 1); end'",
    "create function peeks() returns setof text stable language sql as 'select m from t'",
    "create function seen() returns trigger language plpgsql as "
    "'begin insert into public.sink select m from t; return null; end'",
    "create constraint trigger late after insert on changed deferrable initially deferred "
    "for each row execute function seen()",
    "create view asking as select m from open.t where current_schema = 'hidden'",
    "grant usage on schema open, hidden to app_write",
    "grant select on all tables in schema open, hidden, public to app_write",
    "grant insert on changed, sink to app_write",
)
"""`m` is masked in `hidden.t`; under another path a function and a deferred trigger would show it, and a view that."""
RULES = (
    "  - {id: peeks, decision: allow, roles: [write], effects: [read], functions: [public.peek, public.peeks]}\n"
    "fields:\n"
    "  - {id: hidden, resource: prod-db, relation: hidden.t, clear: [id]}"
)
COVERED = '["public.*", "open.*", "hidden.*"]'

PATHS = ("open", "hidden", "public", "hidden, open", "open, hidden", "nowhere, hidden", "''", "public")
READS = """
    select m from t|table t|select upper(m) from t limit 1|select m, current_setting('search_path') from t|select peek()
    |select public.peek()|select * from public.peeks()|select m from public.asking|select m from public.sink
    |select m from sink|copy t to stdout|explain select * from t|fetch 1 from c|fetch all from h|move 1 in h
    |fetch 1 from q|execute p
"""
CHANGES = """
    begin|begin|commit|commit|rollback|rollback|savepoint x|rollback to x|release x|commit and chain|rollback and chain
    |reset search_path|reset all|discard all|select 1/0|close all|deallocate all|set constraints all immediate
    |insert into public.changed values (1)|insert into public.changed values (1)|insert into changed values (1)
    |prepare p as select m from t|prepare p as select public.peek()|declare c cursor for select m from t
    |declare h cursor with hold for select m from t|declare h cursor with hold for select public.peek()
    |begin; set local search_path to hidden|rollback; select m from t|begin; insert into public.changed values (1)
    |insert into public.changed values (1); set search_path to hidden
    |begin; declare h cursor with hold for select public.peek(); set local search_path to hidden
"""
PREPARED = (
    *("select m from t", "select public.peek()", "set search_path to hidden", "insert into public.changed values (1)"),
    *("begin", "commit", "rollback"),
)


def listed(texts: str) -> list[str]:
    return [text.strip() for text in texts.split("|")]


def statement(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.35:
        return chance.choice(listed(READS))
    if kind < 0.6:
        return f"set {chance.choice(['', 'local '])}search_path to {chance.choice(PATHS)}"
    if kind < 0.65:
        return f"select set_config('search_path', '{chance.choice(PATHS[:-2])}', {chance.choice(['true', 'false'])})"
    return chance.choice(listed(CHANGES))


def segment(chance: random.Random) -> bytes:
    """What ends in one ReadyForQuery: a simple query, or messages up to a Sync."""
    if chance.random() < 0.3:
        return codec.query(f"select m from t where id = {chance.choice([1, 2])}")  # What the express lanes are for.
    if chance.random() < 0.4:
        return codec.query(statement(chance))
    sent = b""
    for _ in range(chance.randint(1, 4)):
        portal = chance.choice(["", "", "q"])
        sent += chance.choice(
            [
                *[codec.parse("", statement(chance)) + codec.bind("", "") + codec.execute("")] * 3,
                codec.parse("s", chance.choice(PREPARED)),
                codec.bind(portal, "s"),
                codec.execute(portal),
                codec.close("S", "s"),
            ]
        )
    return sent + codec.SYNC


def played(client: Raw, chance: random.Random) -> tuple[bytes, bytes]:
    """Send a pipeline, cut anywhere; returns it, and the rows and copied data that came of it."""
    segments = [segment(chance) for _ in range(chance.choice([1, 1, chance.randint(1, 5)]))]
    if chance.random() < 0.4:
        segments.insert(0, codec.query("rollback"))  # Nothing runs in a transaction that has failed.
    sent = b"".join(segments)
    cut = chance.randrange(len(sent)) if chance.random() < 0.5 else 0
    client.send(sent[:cut])
    client.send(sent[cut:])
    answers = [frame for _ in segments for frame in client.until("Z")]
    return sent, b"".join(frame.body for frame in answers if frame.type in b"Dd")


async def test_no_pipeline_around_a_search_path_shows_a_masked_value(postgres: Server, tmp_path: Path) -> None:
    read = make_world(postgres)
    with postgres.connect("shop") as connection:
        for text in SET_UP:
            connection.execute(text.encode())
    policy = POLICY.replace('["public.*"]', COVERED).replace("fields:", RULES)
    shown = {b"***": 0, b"open-value": 0, b"public-value": 0}
    async with serving(tmp_path, read, policy=policy, write=endpoint(postgres, "app_write")) as broker:
        for number in range(SEED, SEED + COUNT):
            chance = random.Random(number)
            with raw(broker.port) as client:
                begun = [("search_path", chance.choice(PATHS[:6]))] if chance.random() < 0.5 else []
                await asyncio.to_thread(enter, client, broker.ticket(role="write"), *begun)
                for _ in range(PIPELINES):
                    sent, rows = await asyncio.to_thread(played, client, chance)
                    assert b"hidden-value" not in rows.lower(), (number, sent)
                    shown = {what: count + rows.count(what) for what, count in shown.items()}
    assert shown[b"***"] > 0, shown
    assert sum(shown.values()) > shown[b"***"], shown
