"""Two worlds that differ in masked values alone, on two servers, and what a reader and a writer get in each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.model import Refusal, Terms
from broker.sql.paths import confirmed
from policies.engine.decisions import HIDE, Effect, FieldView, Mask, MaskKind, RelationFields
from tests.support.catalogue import load_catalogue, read_catalogue
from tests.support.postgres import CASES, Server, load_world, running_server

ID = frozenset({"id"})
DOCUMENT = Mask(MaskKind.KEYS, show=("name", "address.city", "tags", "open.*"))
FIELDS: FieldView = {
    "public.customers": RelationFields(clear=ID | {"name"}),
    "public.part": RelationFields(clear=ID),
    "public.staff": RelationFields(clear=ID | {"badge"}),
    "public.gone": RelationFields(clear=ID),
    'public.Upper "Case"': RelationFields(clear=ID),
    "public.parted": RelationFields(clear=ID | {"region"}),
    "public.bykey": RelationFields(clear=ID),
    "public.gen": RelationFields(clear=ID, masks={"ssn": HIDE, "known": HIDE}, others=None),
    "public.cadre": RelationFields(clear=ID | {"rank"}),
    "public.v_own": RelationFields(clear=ID),
    "public.v_maybe": RelationFields(clear=ID, rows=True),
    "public.v_maybe_one": RelationFields(clear=ID, rows=True, others=None),
    "public.v_maybe_both": RelationFields(clear=ID, rows=True, others=None),
    "public.oaths": RelationFields(clear=ID, masks={"ssn": HIDE}, others=None),
    "public.wards": RelationFields(clear=ID),
    "public.docs": RelationFields(clear=ID, masks={"profile": DOCUMENT}),
    "public.own_types": RelationFields(clear=ID),
    "public.spokes": RelationFields(clear=ID | {"hub"}),
    "public.partly": RelationFields(clear=ID),
    "public.bulky": RelationFields(clear=ID | {"bio"}),
    "public.steps": RelationFields(clear=ID | {"grp"}),
    "public.v_same": RelationFields(clear=ID, rows=True),
    "public.baskets": RelationFields(clear=ID | {"label"}),
    "public.lengths": RelationFields(
        clear=ID | {"name"}, masks={"code": Mask(MaskKind.PARTIAL, tail=4), "doc": Mask(MaskKind.KEYS, show=("name",))}
    ),
    "public.ranked": RelationFields(clear=ID | {"tag", "note"}, masks={"code": Mask(MaskKind.PARTIAL, tail=4)}),
}
CHANGES = {Effect.WRITE, Effect.DDL, Effect.ADMIN}
OBJECTS = CASES.with_name("masking_objects.sql")


@dataclass
class World:
    server: Server
    catalogue: Catalogue
    connection: psycopg.Connection[Any]
    writer: psycopg.Connection[Any]

    def run(self, sql: str) -> object:
        """What a reader gets: a refusal's rule, rows, or an error without its position."""
        return self._run(sql, self.connection, CHANGES)

    def reveal(self, sql: str) -> object:
        """What a reader gets whose reveals are all approved, without the revealed outputs themselves."""
        answer = self.run(sql)
        if not isinstance(answer, list):
            return answer
        hidden = {position for position, _, _ in inspect(sql, self.catalogue, FIELDS).revealed}
        return [
            (status, [[None if at in hidden else value for at, value in enumerate(row)] for row in rows])
            for status, rows in answer
        ]

    def write(self, sql: str) -> object:
        """What a writer gets whose writes are allowed; nothing stays. Errors are rebuilt where fields are masked."""
        return self._run(sql, self.writer, CHANGES - {Effect.WRITE})

    def alter(self, sql: str, fields: FieldView = FIELDS, but: tuple[str, ...] = ()) -> object:
        """What whoever may change the schema gets, and then sees of every table, within one transaction.

        `but` is what a rule lets nobody read.
        """
        covers = ("public.*", "evil.*", "closed.*")
        try:
            inspection = inspect(sql, self.catalogue, fields, terms=Terms(covers=covers, but=but))
        except Refusal as refusal:
            return "refused", refusal.rule
        if refusals := [one.refusal.rule for one in inspection.statements if one.refusal]:
            return "refused", refusals
        if any((one.facts.relations | one.facts.through) & set(but) for one in inspection.statements):
            return "refused", "rule"
        with self.server.connect("world", autocommit=False, prepare_threshold=None) as owner:
            try:
                owner.execute("set search_path = public, pg_temp")
                said = self._rows(inspection.rewritten, owner)
                catalogue = read_catalogue(owner)
                changed = {name for one in inspection.statements for name in one.facts.writes} | {"public.customers"}
                changed -= set(but)
                for name in sorted(changed):
                    text = f"select * from {name}"
                    if catalogue.relation(*name.split(".")) is not None:
                        again = inspect(text, catalogue, fields, terms=Terms(covers=covers, but=but)).rewritten
                        said.append((name, self._rows(again, owner)))
                return said
            except psycopg.Error as error:
                return "error", error.sqlstate
            finally:
                owner.rollback()

    def under(self, path: str, sql: str) -> object:
        """What a writer gets who has set a search path before."""
        setting = inspect(f"set search_path = {path}", self.catalogue, FIELDS).rewritten
        self.writer.execute(setting.encode())
        return self._run(sql, self.writer, CHANGES - {Effect.WRITE})

    def _run(self, sql: str, connection: psycopg.Connection[Any], denied: set[Effect]) -> object:
        (shown,) = connection.execute("show search_path").fetchone() or ("",)
        path = confirmed(shown)
        assert path is not None, shown
        try:
            inspection = inspect(sql, self.catalogue, FIELDS, terms=Terms(path=None if path == ("public",) else path))
        except Refusal as refusal:
            return "refused", refusal.rule
        for statement in inspection.statements:
            if statement.refusal or statement.facts.effects & denied:
                return "refused", statement.refusal.rule if statement.refusal else "effects"
            if statement.writable or any(not call.schema for call in statement.facts.calls):
                return "refused", "default-function"
        try:
            if connection is self.writer:
                connection.execute("begin")
            return self._rows(inspection.rewritten, connection)
        except psycopg.Error as error:
            if connection is self.writer and inspection.scrub:
                return "error", error.sqlstate
            return "error", error.sqlstate, error.diag.message_primary, error.diag.message_detail
        finally:
            connection.execute("rollback; deallocate all; reset search_path")

    def _rows(self, sql: str, connection: psycopg.Connection[Any]) -> list[object]:
        cursor = connection.cursor()
        if sql.lower().startswith("copy"):
            with cursor.copy(sql.encode()) as copy:
                return [bytes(chunk) for chunk in copy]
        cursor.execute(sql.encode())
        found: list[object] = []
        while True:
            found.append((cursor.statusmessage, cursor.fetchall() if cursor.description else None))
            if not cursor.nextset():
                return found


@pytest.fixture(scope="module", params=["wheel", "debian"])
def worlds(request: pytest.FixtureRequest) -> Iterator[tuple[World, World]]:
    # Two servers, so that oids and transaction ids are the same in both.
    with running_server(request.param) as left, running_server(request.param) as right:
        yield _world(left, "A"), _world(right, "B")


def _world(server: Server, name: str) -> World:
    load_world(server, "world", name)
    done = server.psql(OBJECTS, "world")
    assert done.returncode == 0, done.stderr
    # At the start, as the broker pins them: RESET ALL brings them back. Parallel workers would answer in any order.
    pins = "-c search_path=public,pg_temp -c max_parallel_workers_per_gather=0"
    reading = f"{pins} -c default_transaction_read_only=on"
    connection = server.connect("world", "lvl_read", prepare_threshold=None, options=reading)
    # What is rolled back leaves tables larger, by the length of its rows, and hashed groups come in an order by that.
    writing = f"{pins} -c enable_hashagg=off"
    writer = server.connect("world", "lvl_write", prepare_threshold=None, options=writing)
    return World(server, load_catalogue(server, "world"), connection, writer)


def texts() -> list[tuple[str, str, str]]:
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    texts = [
        (case["id"], op[1] if op[0] == "Q" else op[2], case["expect"])
        for case in cases
        for op in case["ops"]
        if op[0] in "QP"
    ]
    lines = (CASES.with_name("masking.sql")).read_text().splitlines()
    return texts + [(f"masking.sql:{at}", line, "SAME") for at, line in enumerate(lines, 1) if line[:2] != "--"]
