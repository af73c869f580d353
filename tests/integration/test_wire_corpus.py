"""The corpus through the broker, byte by byte: two worlds look the same, and nothing denied passes or takes effect."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import pytest

from broker.protocols.postgres import codec
from tests.integration.masking_cases import OF_SESSIONS
from tests.integration.postgres_world import Raw, endpoint, enter, kinds, problem
from tests.support.broker import TestBroker, serving
from tests.support.postgres import CASES, LEVELS, Server, load_world, running_server

POLICY = """
resources:
  prod-db:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: world, tls: disable}
    roles:
      lvl_read: {credential: "env:X", relations: ["public.*"]}
      lvl_write: {credential: "env:X", relations: ["public.*"], hold: refuse}
      lvl_ddl: {credential: "env:X", relations: ["public.*"]}
      lvl_asked: {credential: "env:X", relations: ["public.*"], hold: refuse}
  open-db:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: world, tls: disable}
    roles:
      lvl_read: {credential: "env:X", relations: ["*.*"]}
      lvl_asked: {credential: "env:X", relations: ["*.*"], hold: refuse}
groups: {devs: "", dbas: ""}
people:
  alice: {name: Alice, groups: [devs]}
  bob: {name: Bob, groups: [dbas]}
statements:
  - {id: reads, decision: allow, effects: [read, session]}
  - {id: writes, decision: ask, roles: [lvl_write], effects: [write], reviewers: {groups: [dbas]}}
  - {id: changes, decision: allow, roles: [lvl_ddl], effects: [write, ddl, admin]}
  - {id: code, decision: allow, roles: [lvl_ddl], effects: [read, write, ddl, admin], functions: ["*.*"]}
  - {id: asked, decision: ask, roles: [lvl_asked], effects: [write, ddl, admin], reviewers: {groups: [dbas]}}
fields:
  - {id: customers, resource: prod-db, relation: public.customers, clear: [id, name]}
  - {id: part, resource: prod-db, relation: public.part, clear: [id]}
"""
EFFECTS = (
    *(f"select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from {table} t"
      for table in ("customers", "orders", "part", "part2", "audit_log", "am")),
    "select count(*) from pg_largeobject_metadata",
    "select last_value, is_called from s1",
    "select count(*) from pg_class where oid >= 16384",
    "select count(*) from pg_proc where oid >= 16384",
    "select coalesce(md5(string_agg(s::text, '|')), '') from pg_db_role_setting s",
    "select coalesce(md5(string_agg(rolname || coalesce(rolpassword, ''), '|' order by 1)), '') from pg_authid",
)  # fmt: skip
OF_A_PROCESS = {
    *(b"pid", b"leader_pid", b"client_port", b"backend_xid", b"backend_xmin"),
    *(b"application_name", b"backend_start", b"xact_start", b"query_start", b"state_change"),
}
"""Columns of the catalogue that differ between two servers which hold the same."""

OWNED = (
    "grant create on schema public, evil to lvl_write",
    *(f"alter table {name} owner to lvl_write" for name in ("customers", "orders", "part", "part_a", "kid", "am")),
    *(f"alter view {name} owner to lvl_write" for name in ("v_cust", "v2")),
    "alter materialized view mv_cust owner to lvl_write",
)
"""The upstream itself would let most changes of the schema pass."""

Op = list[Any]
Case = tuple[str, str, list[Op], str]


def corpus(turn: int) -> list[Case]:
    """Every case as (id, role, operations, expectation); the texts of masking.sql in two turns.

    test_masking_corpus tries each of those on every server, and here each is tried through the broker on one.
    """
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    found: list[Case] = [(case["id"], case["role"], case["ops"], case["expect"]) for case in cases]
    found += [
        (
            f"{case['id']} extended",
            case["role"],
            [["P", "", op[1]], ["B", "", ""], ["D", "P", ""], ["E", ""], ["S"]],
            "SAME",
        )
        for case in cases
        for op in case["ops"]
        if op[0] == "Q" and ";" not in op[1]
    ]
    for at, line in enumerate(CASES.with_name("masking.sql").read_text().splitlines(), 1):
        if not line.startswith("--") and line not in OF_SESSIONS and at % 2 == turn:
            found.append((f"masking.sql:{at}", "lvl_read", [["Q", line]], "SAME"))
    return found + changes() + typed() + called()


ASKED_OR_DENIED = ("lvl_asked", "lvl_read", "open-db lvl_asked", "open-db lvl_read")
"""Roles under which no change of the schema runs unasked, where fields are masked and where nothing is."""


def changes() -> list[Case]:
    """Each change of the schema: where the rules allow, ask or deny it, under masks and without; nothing is kept."""
    found: list[Case] = []
    harmless = False
    for at, line in enumerate(CASES.with_name("ddl.sql").read_text().splitlines(), 1):
        if line.startswith("-- "):
            harmless = line == "-- harmless"
            continue
        within: list[Op] = [["Q", "begin"], ["Q", line], ["Q", "select ssn from customers"], ["Q", "rollback"]]
        found.append((f"ddl.sql:{at}", "lvl_ddl", within, "PASS" if harmless else "DENY"))
        if harmless:
            pipelined: list[Op] = [
                *(["P", "", line], ["B", "", ""], ["E", ""]),
                *(["P", "", "select ssn, note from customers, orders"], ["B", "", ""], ["E", ""], ["S"]),
            ]
            found.append((f"ddl.sql:{at} pipelined", "lvl_ddl", pipelined, "NO ROWS"))
        # The role is in the text, so that the upstream's log tells which of them reached it. In turns, for their time.
        for role in ASKED_OR_DENIED if harmless else [ASKED_OR_DENIED[at % 4]]:
            found.append((f"ddl.sql:{at} {role}", role, [["Q", f"{line} -- {role}"]], "DENY"))
    return found


TYPES = (
    "create type evil.held as (a int, d evil.d)",
    "create type evil.mood as enum ('sad', 'ok')",
    "create function evil.number(evil.mood) returns int language sql as 'select public.bump()'",
    "create cast (evil.mood as int) with function evil.number(evil.mood) as implicit",
    "create type evil.plain as enum ('sad', 'ok')",
)
OLDER = (
    ("json_value", "text, text"), ("json_query", "text, text"), ("json_exists", "text, text"), ("json_scalar", "text"),
    ("json_serialize", "text"), ("json", "text"), ("json_array", "int, int"), ("json_arrayagg", "int"),
    ("json_object", ""), ("json_object", "int, int"), ("merge_action", ""),
)  # fmt: skip
"""Functions of users' that an older server calls where a newer one has syntax."""
PEEKS = tuple(
    f'create function public."{name}"({arguments}) returns text language plpgsql as $$ begin '
    "insert into public.audit_log values ('peeked'); return (select ssn from public.customers where id = 1); end $$"
    for name, arguments in OLDER
)
CODED = {"evil.d": "x", "evil.d[]": "{x}", "evil.held": "(1,x)", "evil.mood": "ok"}
HARMLESS = {"evil.plain": "ok", "customers": "(1,a,b,c,,)", "orders[]": "{}"}
"""Types of users' that run code of theirs, and others, each with a value of its own."""


def typed() -> list[Case]:
    """Parse messages that give a parameter a type of users': its checks and casts would run with its value."""
    found: list[Case] = []
    for name, value in (CODED | HARMLESS).items():
        texts = ("select $1", "select $1::text", "select $1 is null", "select $1 + 1")
        for role in ("lvl_read", "lvl_write", "open-db lvl_read"):
            for sql in texts:
                ops: list[Op] = [["P", "", sql, name], ["B", "", "", [], [], [value]], ["E", ""], ["S"]]
                honest = name in HARMLESS and not sql.endswith("1")
                found.append((f"typed {name} {role}: {sql}", role, ops, "ALLOW" if honest else "SAME"))
        declared: list[Op] = [["P", "own", "select $1::text", name], ["S"], ["Q", f"execute own('{value}')"]]
        bound: list[Op] = [["B", "", "own", [], [], [value]], ["E", ""], ["S"]]
        found.append((f"typed {name}: by name", "lvl_write", [*declared, *bound], "SAME"))
    return found


def called() -> list[Case]:
    """Calls of functions of users' in words that are syntax by now, which no rule lets be called."""
    texts: list[str] = []
    for name, arguments in OLDER:
        values = ["1" if kind == "int" else "'x'" for kind in arguments.split(", ") if kind]
        texts.append(f"select {name}({', '.join(values)})")
    return [(f"called {sql}", role, [["Q", sql]], "SAME") for sql in texts for role in ("lvl_read", "lvl_write")]


def encoded(op: Op, types: Mapping[str, int]) -> bytes:
    """The message of one operation; a Query of raw bytes is `QX`."""
    match op:
        case ["Q", sql]:
            return codec.query(sql)
        case ["QX", raw]:
            return codec.message(b"Q", bytes.fromhex(raw) + b"\0")
        case ["P", name, sql, *named]:
            return codec.parse(name, sql, [types[one] for one in named])
        case ["B", portal, name, *more]:
            _, results, values = [*more, *[[]] * (3 - len(more))]
            listed = b"".join(code.to_bytes(2, "big") for code in results)
            bound = b"".join(len(one).to_bytes(4, "big") + one.encode() for one in values)
            head = codec.string(portal) + codec.string(name) + b"\0\0" + len(values).to_bytes(2, "big")
            return codec.message(b"B", head + bound + len(results).to_bytes(2, "big") + listed)
        case ["D", kind, name]:
            return codec.message(b"D", kind.encode() + codec.string(name))
        case ["E", portal]:
            return codec.execute(portal)
        case ["S"]:
            return codec.message(b"S")
        case ["F", _]:
            return codec.message(b"F", b"\0\0\4\0\0\0\0\0\0\0")
    raise AssertionError(op)


@dataclass
class World:
    server: Server
    broker: TestBroker
    open: dict[str, Raw] = field(default_factory=dict)

    @cached_property
    def types(self) -> dict[str, int]:
        """The oids of the types that corpora name."""
        return {
            name: self.server.execute(f"select '{name}'::regtype::oid::int8", "world")[0][0]
            for name in CODED | HARMLESS
        }

    def run(self, role: str, ops: list[Op]) -> list[tuple[str, bytes]]:
        """What a client receives for a case, up to the end of its connection where that comes."""
        if ops[0][0] == "STARTUP":
            return self._started(role, ops[0][1], ops[1:])
        client = self.open.get(role) or self._enter(role)
        self.open[role] = client
        frames: list[codec.Frame] = []
        try:
            for op in [*ops, ["Q", "rollback; deallocate all"]]:
                client.send(encoded(op, self.types))
                if op[0] in ("Q", "QX", "S", "F"):
                    frames += client.until("ZG")
                    if frames[-1].type == ord("G"):
                        client.send(codec.message(b"f", codec.string("no")))
                        frames += client.until("Z")
        except (EOFError, OSError):
            self.open.pop(role).close()
            frames.append(codec.Frame(ord("X"), b"gone"))
        return [(chr(frame.type), frame.body) for frame in frames]

    def _enter(self, role: str) -> Raw:
        client = Raw(self.broker.port)
        resource, _, name = role.rpartition(" ")
        greeting = enter(client, self.broker.ticket(role=name, resource=resource or "prod-db"))
        assert kinds(greeting)[-1] == "Z", problem(greeting[-1])
        return client

    def _started(self, role: str, words: list[str], ops: list[Op]) -> list[tuple[str, bytes]]:
        ticket = self.broker.ticket(role=role)
        client = Raw(self.broker.port)
        try:
            pairs = list(zip(words[::2], words[1::2], strict=True))
            frames = enter(client, ticket, *[pair for pair in pairs if pair[0] not in ("user", "database")])
            for op in ops:
                client.send(encoded(op, self.types))
                frames += client.until("Z")
            return [(chr(frame.type), frame.body) for frame in frames]
        except (EOFError, OSError):
            return [("X", b"gone")]
        finally:
            client.close()

    def effects(self) -> list[object]:
        return [self.server.execute(query, "world") for query in EFFECTS]


SERVERS = ("wheel", "debian")


@pytest.fixture(params=SERVERS)
async def worlds(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[World]]:
    async with AsyncExitStack() as stack:
        made: list[World] = []
        for name in "AB":
            # Two servers, so that oids and transaction ids are the same in both.
            server = stack.enter_context(running_server(request.param, {"log_statement": "all"}))
            load_world(server, "world", name)
            roles = {level: endpoint(server, level, "world", password=server.passwords[level]) for level in LEVELS}
            for statement in (*OWNED, *TYPES, *PEEKS):
                server.execute(statement, "world")
            roles |= dict.fromkeys(("lvl_ddl", "lvl_asked"), roles["lvl_write"])
            broker = await stack.enter_async_context(
                serving(tmp_path / name, roles["lvl_read"], policy=POLICY, **roles)
            )
            made.append(World(server, broker))
        yield made
        for world in made:
            for client in world.open.values():
                client.close()


def answer(transcript: list[tuple[str, bytes]], at: int) -> list[tuple[str, bytes]]:
    """What came between two ReadyForQuery."""
    ends = [-1, *(place for place, (kind, _) in enumerate(transcript) if kind == "Z")]
    return transcript[ends[at] + 1 : ends[at + 1]]


def denied(transcript: list[tuple[str, bytes]]) -> bool:
    return any(kind == "E" and b"Mairlock: " in body for kind, body in transcript)


def shown(transcript: list[tuple[str, bytes]], ops: list[Op]) -> list[tuple[str, bytes]]:
    """What must be the same in both worlds; how many processes a server has, and since when, need not be."""
    # A backend key is random, and server_version_num and the like are the same in both.
    found = [(kind, body) for kind, body in transcript if kind not in "KS"]
    if not any(name in str(ops) for name in ("pg_stat_activity", "pg_stat_ssl")):
        return found
    kept: list[bool] = []
    distinct: set[tuple[str, bytes]] = set()
    for kind, body in found:
        if kind == "T":
            kept = [one.name not in OF_A_PROCESS for one in codec.read_row_description(body)]
        if kind == "D":
            distinct.add((kind, repr(list(compress(codec.read_data_row(body), kept))).encode()))
        elif kind != "C":
            distinct.add((kind, body))
    return sorted(distinct)


@pytest.mark.timeout(300)
async def test_the_corpus_through_the_broker(worlds: list[World]) -> None:
    left, right = worlds
    before = left.effects(), right.effects()
    skipped = [world.server.log.stat().st_size for world in worlds]
    wrong: list[str] = []
    refused: list[str] = []
    for case, role, ops, expect in corpus(SERVERS.index(left.server.label)):
        a, b = await asyncio.gather(*(asyncio.to_thread(world.run, role, ops) for world in worlds))
        if shown(a, ops) != shown(b, ops):
            wrong.append(f"{case}: the worlds differ: {ops}: {a} / {b}")
        if expect == "ALLOW" and any(kind in "EX" for kind, _ in a):
            wrong.append(f"{case}: an honest statement was refused: {ops}: {a}")
        if expect == "KILL" and not any(kind == "X" or (kind == "E" and b"FATAL" in body) for kind, body in a):
            wrong.append(f"{case}: the session went on: {ops}: {a}")
        if len(ops) == 1 and ops[0][0] == "Q" and denied(a):
            refused.append(ops[0][1])
        if expect == "NO ROWS" and any(kind == "D" for kind, _ in a):
            wrong.append(f"{case}: rows were read under a schema that was not seen yet: {ops}: {a}")
        if (
            case.startswith("ddl.sql")
            and expect != "NO ROWS"
            and denied(answer(a, 1 if len(ops) == 4 else 0)) == (expect == "PASS")
        ):
            wrong.append(f"{case}: {'refused' if expect == 'PASS' else 'not refused'}: {ops}: {a}")
        if case.startswith("ddl.sql") and expect == "DENY" and ops[0] == ["Q", "begin"]:
            refused.append(ops[1][1])
    assert wrong == [], "\n".join(wrong)
    assert (left.effects(), right.effects()) == before
    for world, start in zip(worlds, skipped, strict=True):
        passed = world.server.log.read_bytes()[start:].decode(errors="replace")
        told = [sql for sql in refused if f": {sql}\n" in passed]
        assert told == [], "denied statements reached the upstream"
    assert len(refused) > 150
    await _alive(left)


async def _alive(world: World) -> None:
    """After every hostile statement a second client is served at once."""
    transcript = await asyncio.to_thread(world.run, "lvl_read", [["Q", "select 1"]])
    assert "".join(kind for kind, _ in transcript).startswith("TDCZ")
