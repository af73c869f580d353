"""Row bounds where a change is spread over what runs later: cursors, bits of a portal, triggers that wait."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.protocols.postgres import codec
from policies.engine.load import read_texts
from tests.integration.postgres_world import Raw, endpoint, enter, kinds, make_world, problem, psql, raw
from tests.integration.test_postgres_bounds import BOUNDED, MORE, count
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server

POLICY = BOUNDED.replace(
    "\nfields",
    "\n  - {id: calls, decision: allow, roles: [write], effects: [write], functions: [public.noted], max_rows: 10}"
    "\n  - {id: locks, decision: allow, roles: [write], effects: [admin], verbs: [LOCK TABLE]}"
    "\n  - {id: empties, decision: allow, roles: [write], effects: [write], verbs: [TRUNCATE], max_rows: 10}"
    "\n  - {id: code, decision: allow, roles: [clear], verbs: [DO], effects: [read, write, ddl, session, admin],"
    " max_rows: 10}"
    "\nfields",
).replace("      write: {", "      clear: {credential: 'file:x', relations: ['public.*']}\n      write: {")
_MAKES = "create temp table few (id int); insert into few values (1); drop table few"
CALLS = "select noted('x') from generate_series(1, 40)"


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    more = ("grant truncate on audit to app_write", "alter function noted volatile", "grant select on log to app_write")
    read = make_world(postgres, *MORE, *more)
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, read, policy=POLICY, write=write, clear=write) as broker:
        yield broker


async def test_deferred_triggers_that_set_constraints_runs_count(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="write")
    for immediate in ("set constraints all immediate", "set constraints audited immediate"):
        _, output, errors = await psql(ticket, stdin=f"begin;\ninsert into late values (15);\n{immediate};\ncommit;\n")
        assert output.split() == "BEGIN INSERT 0 1 ROLLBACK".split()
        assert "this touched 15 rows, triggers and cascades included, and may touch 9" in errors
    inserted = "begin;\ninsert into late values (3);\n"
    _, output, errors = await psql(ticket, stdin=f"{inserted}set constraints all immediate\\; select 1;\nrollback;\n")
    assert "what completes a change with a row bound is sent by itself" in errors
    within = f"{inserted}set constraints all immediate;\nset constraints all deferred;\ninsert into late values (2);\n"
    _, _, errors = await psql(ticket, stdin=f"{within}commit;\n")
    assert (errors, count(postgres, "audit"), count(postgres, "late")) == ("", 5, 2)
    sent = run("insert into late values (15)") + run("set constraints all immediate") + codec.SYNC
    (told,) = await heard(served, sent)
    assert "this touched 15 rows" in told
    assert (count(postgres, "audit"), count(postgres, "late")) == (5, 2)


async def test_changes_that_touch_nothing_leave_nothing_over_for_the_triggers_of_others(
    served: TestBroker, postgres: Server
) -> None:
    nothing = "update owners set name = 'x' where id = -1;\n" * 3
    for before, after in ((nothing, ""), ("", nothing)):
        script = f"begin;\n{before}insert into late values (15);\n{after}commit;\n"
        assert "this touched 16 rows" in (await psql(served.ticket(role="write"), stdin=script))[2]
    assert (count(postgres, "audit"), count(postgres, "late")) == (0, 0)


async def test_a_portal_that_is_executed_bit_by_bit_is_one_change(served: TestBroker, postgres: Server) -> None:
    (told,) = await heard(served, run(CALLS, 4) + codec.execute("", 4) * 5 + codec.SYNC)
    assert "this touched 12 rows" in told
    assert count(postgres, "log") == 0
    assert await heard(served, run(CALLS, 4) + codec.execute("", 4) + codec.SYNC) == []
    assert count(postgres, "log") == 8


async def test_a_change_with_a_bound_is_not_put_off_into_a_cursor(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="write")
    for hold in ("", "with hold "):
        _, _, errors = await psql(ticket, f"begin; declare c cursor {hold}for {CALLS}; fetch all from c; commit")
        assert "a cursor's changes have no row bound" in errors or "not sent in one message" in errors
        _, _, errors = await psql(ticket, stdin=f"begin;\ndeclare c cursor {hold}for {CALLS};\nfetch all from c;\n")
        assert "a cursor's changes have no row bound" in errors
    bound = codec.parse("", CALLS) + codec.bind("named", "")
    told = await heard(served, codec.query("begin"), bound + codec.SYNC, codec.query("fetch 4 from named"))
    assert "a change with a row bound is not fetched by name" in told[0]
    assert count(postgres, "log") == 0
    script = "begin;\ndeclare c cursor for select id from owners for update;\nfetch 2 from c;\ncommit;\n"
    assert (await psql(ticket, stdin=script))[2] == ""


async def test_a_table_that_was_locked_before_is_not_emptied_unseen(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="write")
    postgres.execute("insert into audit select 'x' from generate_series(1, 20)", "shop")
    for emptying in ("truncate audit", "insert into emptying values (1)"):
        script = f"begin;\nlock table audit in access exclusive mode;\n{emptying};\ncommit;\n"
        assert "emptied, altered or dropped a table" in (await psql(ticket, stdin=script))[2]
    assert count(postgres, "audit") == 20
    script = "begin;\nlock table audit in access exclusive mode;\ninsert into audit values ('y');\ncommit;\n"
    assert (await psql(ticket, stdin=script))[2] == ""


async def test_a_table_that_a_trigger_drops_is_no_change_within_a_bound(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="write")
    for drops, told in (("drop table audit", "emptied, altered or dropped a table"), (_MAKES, "")):
        body = f"$$ begin {drops}; return new; end $$"
        postgres.execute(f"create or replace function empties() returns trigger language plpgsql as {body}", "shop")
        postgres.execute("alter function empties() security definer", "shop")
        assert told in (errors := (await psql(ticket, "insert into emptying values (1)"))[2])
        assert bool(told) == bool(errors)
    assert (count(postgres, "audit"), count(postgres, "emptying")) == (0, 1)


async def test_a_foreign_table_that_a_trigger_changes_is_no_change_within_a_bound(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="write")
    options = f"host '127.0.0.1', port '{postgres.port}', dbname 'shop'"
    for text in (
        "create extension postgres_fdw",
        f"create server itself foreign data wrapper postgres_fdw options ({options})",
        "create user mapping for app_write server itself options (user 'app_write', password 'app_write-password')",
        "create foreign table far (what text) server itself options (table_name 'audit')",
        "grant select, insert, update, delete, truncate on far to app_write",
    ):
        postgres.execute(text, "shop")
    for body, told in (
        ("insert into far select 'far' from generate_series(1, 50)", "changed a foreign table"),
        ("delete from far where what = 'none'", "changed a foreign table"),
        ("truncate far", "changed a foreign table"),
        ("perform count(*) from far", ""),
    ):
        if "truncate" in body and postgres.major < 14:
            continue  # A foreign table could not be emptied.
        body = f"$$ begin {body}; return new; end $$"
        postgres.execute(f"create or replace function empties() returns trigger language plpgsql as {body}", "shop")
        change = "insert into emptying values (1)"
        for sent in ([change], ["begin", change, "commit"]):
            _, _, errors = await psql(ticket, stdin=";\n".join(sent) + ";\n")
            assert told in errors
            assert bool(told) == bool(errors)
    assert (count(postgres, "audit"), count(postgres, "emptying")) == (0, 2)


async def test_code_that_could_commit_by_itself_is_not_prepared_under_a_bound(
    served: TestBroker, postgres: Server
) -> None:
    code = "do $$ begin insert into audit select 'x' from generate_series(1, 40); commit; end $$"
    # Nothing is masked: DO passes nowhere else.
    served.policies.current = read_texts({"test.yaml": POLICY.partition("fields:")[0]})
    (told,) = await heard(served, run(code) + codec.SYNC, role="clear")
    assert "a DO with a row bound is not prepared" in told
    assert "invalid transaction termination" in (await psql(served.ticket(role="clear"), code))[2]
    assert count(postgres, "audit") == 0


def run(sql: str, most: int = 0) -> bytes:
    return codec.parse("", sql) + codec.bind("", "") + codec.execute("", most)


async def heard(served: TestBroker, *sent: bytes, role: str = "write") -> list[str]:
    """What a client is told of what fails, each part sent behind the answer to the one before."""

    def talk(client: Raw) -> list[str]:
        enter(client, served.ticket(role=role))
        told: list[str] = []
        for part in sent:
            client.send(part)
            answer = client.until("Z")
            assert kinds(answer)[-1] == "Z"
            told += [problem(frame)["M"] for frame in answer if frame.type == ord("E")]
        return told

    with raw(served.port) as client:
        return await asyncio.to_thread(talk, client)
