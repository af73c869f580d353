"""What drivers do by themselves works through the broker: pools, type introspection, cursors on the server."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import psycopg
import pytest

from broker.protocols.postgres import codec, work
from broker.protocols.postgres.events import Command, Event, FromClient, FromUpstream, Inspect, Ruled
from broker.protocols.postgres.machine import Machine
from broker.protocols.postgres.proxy import Session
from broker.protocols.postgres.ruling import Ruling
from broker.sql.settings import milliseconds
from tests.integration.postgres_world import SLOW, endpoint, make_world, psql
from tests.playbooks.postgres_play import Play
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server
from tests.support.require import needs_core

TYPES = (
    "create type mood as enum ('sad', 'glad')",
    "create type place as (street text, number int)",
    "create table visits (id int, moods mood[], at place, mood mood, days int4range)",
    "insert into visits values (1, '{sad,glad}', row('Elm', 7), 'glad', '[1,5)')",
    "grant select on visits to app",
)
RESET = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
TIMEOUT = "show statement_timeout"
PINS = (
    "select name, setting from pg_settings where name in ('search_path', 'statement_timeout', 'row_security', "
    "'default_transaction_read_only', 'standard_conforming_strings', 'client_connection_check_interval') order by name"
)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres)
    for statement in TYPES:
        postgres.execute(statement, "shop")
    async with serving(tmp_path, read, write=endpoint(postgres, "app_write")) as broker:
        yield broker


@dataclass
class Heard:
    """What a session's machine was told, in order: the two sides' bytes, and the rulings that were given."""

    bytes: list[tuple[bool, bytes]] = field(default_factory=list)
    rulings: dict[str, Ruling] = field(default_factory=dict)
    asked: dict[int, str] = field(default_factory=dict)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    found, handle = Heard(), Machine.handle

    def listening(machine: Machine, event: Event) -> Iterator[Command]:
        match event:
            case FromClient(data=data) | FromUpstream(data=data):
                found.bytes.append((isinstance(event, FromClient), bytes(data)))
            case Ruled(token=token, ruling=ruling):
                found.rulings[found.asked[token]] = ruling
        for command in handle(machine, event):
            if isinstance(command, Inspect):
                found.asked[command.token] = command.sql
            yield command

    monkeypatch.setattr(Machine, "handle", listening)
    return found


def replayed(heard: Heard, cut: Callable[[bytes], list[bytes]]) -> tuple[object, ...]:
    """Play a session again in other pieces; returns all that it says, but for its times."""
    play = Play(lambda sql: heard.rulings[sql])
    for client, data in heard.bytes:
        for piece in cut(data):
            play.client(piece) if client else play.upstream(piece)
    notes = [{name: value for name, value in note.items() if name != "milliseconds"} for note in play.notes]
    recorded = [entry for record in play.records for entry in record.entries]
    return play.to_upstream(), play.to_client(), notes, recorded


async def test_a_session_split_at_every_byte_is_the_same_session(
    served: TestBroker, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await connected(served, role="write") as connection:
        await connection.execute("select id, ssn from people where id = %s", (1,))
        with pytest.raises(psycopg.Error):
            await connection.execute("drop table people")
        await connection.rollback()
        async with connection.pipeline():
            await connection.execute("insert into log (what) values (%s)", ("one",), prepare=True)
            await connection.execute("insert into log (what) values (%s)", ("two",), prepare=True)
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            await connection.execute("select name::int from people")
        await connection.rollback()
        await connection.execute("prepare p as select 1; execute p")
        async with connection.cursor(name="c") as cursor:
            await cursor.execute("select id from notes order by id limit 3")
            assert len(await cursor.fetchall()) == 3
        async with connection.cursor() as cursor, cursor.copy("copy (select id from notes limit 3) to stdout") as copy:
            assert len([bytes(row) async for row in copy]) == 3
        await connection.commit()
    monkeypatch.undo()
    whole = replayed(heard, lambda data: [data])
    assert whole[0]
    assert whole[1]
    for apart, first in [(1, 0), *((32, first) for first in range(32))]:
        # Between them, these cut every chunk at its every byte.
        def cut(data: bytes, first: int = first, apart: int = apart) -> list[bytes]:
            places = [0, *range(first or apart, len(data), apart), len(data)]
            return [data[start:end] for start, end in itertools.pairwise(places)]

        assert replayed(heard, cut) == whole


async def connected(served: TestBroker, role: str = "read", *, autocommit: bool = False) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(served.ticket(role=role).dsn(), autocommit=autocommit)


async def test_an_asyncpg_pool_lends_a_connection_again_with_its_settings_reset(served: TestBroker) -> None:
    async with asyncpg.create_pool(**served.ticket().asyncpg(), min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            pid = connection.get_server_pid()
            pins = await connection.fetch(PINS)
            jit = await connection.fetchval("show jit")
            row = await connection.fetchrow("select id, moods, at, mood, days from visits")
            assert (row["id"], row["moods"], tuple(row["at"]), row["mood"]) == (1, ["sad", "glad"], ("Elm", 7), "glad")
            assert row["days"] == asyncpg.Range(1, 5)
            assert await connection.fetchval("show jit") == jit
            await connection.execute("set timezone to 'Asia/Tokyo'")
            await connection.execute("set enable_seqscan to off")
            await connection.execute("set session characteristics as transaction isolation level serializable")
        async with pool.acquire() as connection:
            assert connection.get_server_pid() == pid
            assert await connection.fetchval("show enable_seqscan") == "on"
            assert await connection.fetchval("show transaction_isolation") == "read committed"
            assert await connection.fetchval("show timezone") != "Asia/Tokyo"
            assert await connection.fetch(PINS) == pins
            assert await connection.fetchval("select ssn from people where id = 1") == "***"
    assert served.recorder.of("statement.denied") == []


async def test_a_reset_takes_back_what_was_set_and_no_pin(served: TestBroker) -> None:
    for text in (RESET, "reset all", "discard all"):
        _, output, errors = await psql(served.ticket(), PINS, "set datestyle to german", text, PINS, "show datestyle")
        assert errors == "", text
        pins = [line for line in output.splitlines() if "|" in line]
        assert pins[: len(pins) // 2] == pins[len(pins) // 2 :] != [], text
        assert output.splitlines()[-1] == "ISO, MDY", text


async def test_set_config_sets_nothing_that_set_would_not(served: TestBroker) -> None:
    for call in (
        "set_config('search_path', 'pg_temp, evil', false)",
        "set_config('statement_timeout', '0', true)",
        "set_config('client_encoding', 'SJIS', false)",
        "set_config(ssn, 'x', false) from people",
        "set_config('application_name', ssn, false) from people",
        "set_config('application_name', 'a' || 'b', false)",
        "set_config('jit', null, false)",
        "set_config('jit', 'off', id = 1) from people",
        "set_config(setting_name => 'jit', new_value => 'off', is_local => false)",
        "set_config(variadic array['jit', 'off', 'false'])",
    ):
        _, output, errors = await psql(served.ticket(), f"select {call}")
        assert output == "", call
        assert "airlock: " in errors, call


async def test_set_config_is_a_change_of_settings_for_the_policy(served: TestBroker) -> None:
    assert (await psql(served.ticket(), "select set_config('jit', 'off', false)"))[:2] == (0, "off\n")
    policy = served.policies.current.model_dump(mode="json")
    policy["statements"][0]["effects"] = ["read"]
    served.policies.current = type(served.policies.current).model_validate(policy)
    _, output, errors = await psql(served.ticket(), "select set_config('jit', 'off', false)")
    assert output == ""
    assert "changing session settings is not allowed" in errors


async def test_a_parameter_may_set_what_the_server_itself_has_no_more_values_for(served: TestBroker) -> None:
    connection = await asyncpg.connect(**served.ticket().asyncpg())
    try:
        # Django with `server_side_binding` says so of the time zone.
        for name, value in (("jit", "off"), ("TimeZone", "Asia/Tokyo"), ("lock_timeout", "5s")):
            assert await connection.fetchval(f"select set_config('{name}', $1, false)", value) == value
        for name, value in (("client_min_messages", "debug5"), ("client_encoding", "SJIS"), ("search_path", "app")):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="airlock"):
                await connection.fetchval(f"select set_config('{name}', $1, false)", value)
    finally:
        await connection.close()


async def test_timeouts_are_made_shorter_and_never_longer_than_the_access(served: TestBroker) -> None:
    options = "'-c statement_timeout=100 -c idle_in_transaction_session_timeout=30s -c lock_timeout=5s'"
    async with await psycopg.AsyncConnection.connect(
        served.ticket().dsn(options=options), autocommit=True
    ) as connection:

        async def shown(name: str = "statement_timeout") -> str:
            row = await (await connection.execute(f"show {name}")).fetchone()
            assert row is not None
            return str(row[0])

        assert (await shown("idle_in_transaction_session_timeout"), await shown("lock_timeout")) == ("30s", "5s")
        for change in ("set statement_timeout = 0", "reset all", "discard all", "set statement_timeout = '100ms'"):
            with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
                await connection.execute(SLOW)
            await connection.execute("set statement_timeout = '20min'")
            assert await shown() == "20min"
            await connection.execute(change)
            assert await shown() == "100ms"
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no timeout of this session lasts longer"):
                await connection.execute(f"set {name} = '5h'")
    found = [await psql(served.ticket(), TIMEOUT, options=f"-cstatement_timeout={n}") for n in (0, "24d")]
    longest = [milliseconds(output.strip()) or 0 for _, output, _ in [*found, await psql(served.ticket(), TIMEOUT)]]
    assert max(longest) - min(longest) < 60_000 < min(longest)


async def test_psycopg_reads_through_a_named_cursor(served: TestBroker) -> None:
    async with await connected(served) as connection:
        async with connection.cursor(name="c", scrollable=True) as cursor:
            await cursor.execute("select id, ssn from people order by id")
            assert [column.name for column in cursor.description or ()] == ["id", "ssn"]
            assert await cursor.fetchone() == (1, "***")
            await cursor.scroll(0, mode="absolute")
            assert await cursor.fetchall() == [(1, "***"), (2, "***")]
        async with connection.cursor(name="c", binary=True) as cursor:
            await cursor.execute("select id from notes where id <= %s order by id", (250,))
            assert [row[0] async for row in cursor] == list(range(1, 251))
        async with connection.cursor(name="never executed"):
            pass
        assert await (await connection.execute("select 1")).fetchone() == (1,)
    assert served.recorder.of("statement.denied") == []


@pytest.mark.parametrize("expression", ["upper(ssn)", "ssn"])
async def test_a_cursor_gives_no_rows_that_a_later_policy_masks(served: TestBroker, expression: str) -> None:
    masked = served.policies.current
    rule = masked.fields[0].model_copy(update={"clear": [*masked.fields[0].clear, "ssn"], "masks": {}})
    served.policies.current = masked.model_copy(update={"fields": [rule]})
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as connection:
        await connection.execute(f"declare h cursor with hold for select {expression} from people order by id")
        fetched = await connection.execute("fetch 1 from h")
        assert await fetched.fetchone() == ("123-45-6789",)
        served.policies.current = masked
        for text in ("fetch 1 from h", "fetch 1 from h; select 1", "move 1 in h"):
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="has changed since this cursor was declared"):
                await connection.execute(text)
        await connection.execute("close h")
        await connection.execute(f"declare h cursor with hold for select {expression} from people order by id")
        fetched = await connection.execute("fetch 1 from h")
        assert await fetched.fetchone() == ("***",)


async def test_a_cursor_with_hold_outlives_its_commit_and_not_a_rollback(served: TestBroker) -> None:
    async with await connected(served) as connection:
        async with connection.cursor(name="kept", withhold=True) as cursor:
            await cursor.execute("select id from notes order by id")
            await connection.commit()
            assert await cursor.fetchmany(2) == [(1,), (2,)]
            await connection.rollback()
            assert await cursor.fetchone() == (3,)
        await connection.execute("declare kept cursor with hold for select id, ssn from people")
        await connection.commit()
        await connection.rollback()
        # One that did not declare it asks for its columns first.
        async with connection.cursor(name="kept", withhold=True) as cursor:
            assert await cursor.fetchone() == (1, "***")
            assert [column.name for column in cursor.description or ()] == ["id", "ssn"]
        await connection.commit()
        await connection.execute("declare lost cursor with hold for select id from notes")
        await connection.rollback()
        with pytest.raises(psycopg.errors.InvalidCursorName, match="airlock"):
            await connection.cursor(name="lost").fetchone()


async def test_a_cursor_that_is_over_cannot_be_described(served: TestBroker, subtests: pytest.Subtests) -> None:
    for end in ("close c", "close all", "commit", "rollback", "commit and chain", "rollback and chain"):
        async with await connected(served, autocommit=True) as connection:
            with subtests.test(end):
                await connection.execute("begin")
                await connection.execute("declare c cursor for select id from notes")
                assert await connection.cursor(name="c").fetchone() == (1,)
                await connection.execute(end)
                with pytest.raises(psycopg.errors.InvalidCursorName):
                    await connection.cursor(name="c").fetchone()
                await connection.execute("rollback")
                assert await (await connection.execute("select 1")).fetchone() == (1,)


async def test_a_cursor_over_a_masked_table_hides_what_its_errors_would_say(served: TestBroker) -> None:
    async with await connected(served) as connection:
        async with connection.cursor(name="c") as cursor:
            await cursor.execute("select name::int from people")
            with pytest.raises(psycopg.errors.InvalidTextRepresentation) as caught:
                await cursor.fetchone()
            assert "Ann" not in str(caught.value)
        await connection.rollback()


@needs_core
@pytest.mark.parametrize("begun_with", [{}, {"search_path": "nowhere, public"}], ids=["", "own path"])
async def test_what_a_driver_repeats_goes_by_the_compiled_lane_and_every_run_has_its_end(
    served: TestBroker, begun_with: dict[str, str]
) -> None:
    texts = ["select body from notes where id = $1", "select body from notes where id = 1"]
    connection = await asyncpg.connect(**served.ticket(role="read").asyncpg(), server_settings=begun_with)
    prepared = await connection.prepare(texts[0])
    first = await prepared.fetchval(1)
    assert [await prepared.fetchval(n % 2 + 1) for n in range(10)][::2] == [first] * 5
    assert len({await connection.execute(texts[1]) for _ in range(10)}) == 1
    async with connection.transaction():
        assert [await prepared.fetchval(1) for _ in range(5)] == [first] * 5
        assert await connection.fetchval("select 1") == 1
    await connection.close()
    pressed = served.recorder.pressed
    # Ten of each pair in the pool of known texts, in a transaction one that is fetched in part is Python's.
    assert pressed >= 2 * 18
    async with await connected(served, autocommit=True) as other:
        other.prepare_threshold = None
        for number in range(10):
            found = await (await other.execute("select body from notes where id = %s", (number % 2 + 1,))).fetchone()
            masked = await (await other.execute("select ssn from people where id = %s", (1,))).fetchone()
            assert (number % 2 or found == (first,), masked) == (True, ("***",))
    assert served.recorder.pressed - pressed >= 2 * 16
    await served.until(lambda: len(served.recorder.of("session.closed")) == 2)
    allowed, finished = served.recorder.of("statement.allowed"), served.recorder.of("statement.finished")
    assert sorted(one["statement"] for one in allowed) == sorted(one["statement"] for one in finished)
    assert [one["text"] for one in allowed].count(texts[0]) == 26


async def test_nothing_passes_once_a_session_has_failed_even_while_it_is_extended(
    served: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(**served.ticket(role="read").asyncpg())
    query = "select body from notes where id = 1"
    for _ in range(3):
        await connection.execute(query)
    session = served.live.sessions[-1]
    assert isinstance(session, Session)
    sides = [stream._sink for stream in (session._client, session._upstream.stream) if stream is not None]
    before = len(served.recorder.of("statement.allowed"))

    async def fails(_until: datetime) -> None:
        session._flow.derailed(ValueError("what nobody thought of"))

    monkeypatch.setattr(session._backend, "extend", fails)
    await session.extend(served.clock.now() + timedelta(hours=1))
    for _ in range(2):
        sides[0].arrived(codec.query(query))
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert len(served.recorder.of("statement.allowed")) == before == len(served.recorder.of("statement.finished"))
    await served.until(lambda: not [one for one in served.live.sessions if one is session])
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.execute(query)
    connection.terminate()


async def test_what_waited_for_its_turn_until_a_grants_end_does_not_pass(
    served: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(**served.ticket(role="read").asyncpg())
    session = served.live.sessions[-1]
    assert isinstance(session, Session)
    client, upstream = (stream._sink for stream in (session._client, session._upstream.stream) if stream is not None)
    monkeypatch.setattr(work, "TURN_SECONDS", -1.0)
    upstream.arrived(2 * codec.fields(b"N", {"S": "WARNING", "V": "WARNING", "C": "01000", "M": "two turns"}))
    client.arrived(codec.query("select body from notes where id = 1"))
    flow = session._flow
    flow.facts = replace(flow.facts, grant=replace(flow.facts.grant, expires_at=served.clock.now()))
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert served.recorder.of("session.closed")[0]["reason"] == "expired"
    assert not any("notes" in one["text"] for one in served.recorder.of("statement.allowed"))
    connection.terminate()
