"""COPY through the broker, both ways: masked, under rules, within limits."""

import hashlib
from pathlib import Path

import psycopg
import pytest

from tests.integration.postgres_world import psql
from tests.integration.test_postgres_sessions import LOOPS, served
from tests.support.broker import TestBroker

__all__ = ["LOOPS", "served"]


async def test_copy_out_is_masked_and_copy_in_needs_a_rule(served: TestBroker) -> None:
    assert (await psql(served.ticket(), "copy (select ssn from people) to stdout"))[1] == "***\n***\n"
    _, _, errors = await psql(served.ticket(), "copy notes from stdin", stdin="1001\tx\n")
    assert "airlock:" in errors


async def test_copy_in_under_a_rule_reaches_the_table(served: TestBroker) -> None:
    ticket = served.ticket(role="write")
    async with await psycopg.AsyncConnection.connect(ticket.dsn(), autocommit=True) as connection:

        async def copy_in(word: str) -> None:
            async with connection.cursor() as cursor, cursor.copy("copy notes (id, body) from stdin") as copy:
                for number in range(2000, 2100):
                    await copy.write_row((number, word))

        await copy_in("copied")
        found = await connection.execute("select count(*) from notes where body = 'copied'")
        assert await found.fetchone() == (100,)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await copy_in("again")
        await connection.execute("select 1")


@pytest.mark.parametrize(
    ("options", "row"),
    [("", "1\tAnn\t***\n"), ("with (format csv, header)", "id,name,ssn\n1,Ann,***\n"), ("with (format binary)", None)],
)
async def test_copy_out_of_a_table_and_of_a_query_is_masked_in_every_format(
    served: TestBroker, options: str, row: str | None
) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as connection:
        for what in ("people", "people (id, name, ssn)", "(select * from people order by id)"):
            found = b""
            async with connection.cursor().copy(f"copy {what} to stdout {options}".encode()) as copy:
                async for piece in copy:
                    found += piece
            assert b"123-45" not in found
            assert b"***" in found
            assert row is None or found.decode().startswith(row)


async def test_psqls_copy_works_both_ways_and_its_files_digest_is_recorded(served: TestBroker, tmp_path: Path) -> None:
    out, back = tmp_path / "out.csv", tmp_path / "in.csv"
    _, _, errors = await psql(served.ticket(), rf"\copy people to {out} csv header")
    assert (errors, out.read_text()) == ("", "id,name,ssn\n1,Ann,***\n2,Bo,***\n")
    back.write_text('4001,"two\nlines"\n4002,b\n')
    _, output, errors = await psql(served.ticket(role="few"), rf"\copy notes from {back} csv")
    assert (output, errors) == ("COPY 2\n", "")
    await served.until(lambda: len(served.recorder.of("statement.finished")) == 2)
    for path, rows, done in zip((out, back), (2, 2), served.recorder.of("statement.finished"), strict=True):
        assert done["rows"] == rows
        assert done["copied"]["bytes"] == len(path.read_bytes())
        assert done["copied"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    (told,) = [one for one in served.recorder.of("statement.allowed") if one["masked"]]
    assert told["masked"] == ["public.people.ssn"]


@pytest.mark.parametrize("options", ["", "csv", "csv header"])
async def test_a_copy_in_beyond_its_limit_leaves_nothing_and_the_session_goes_on(
    served: TestBroker, tmp_path: Path, options: str
) -> None:
    path, separator = tmp_path / "rows", "," if options else "\t"
    lines = [f"{number}{separator}x\n" for number in range(6000, 6102)]
    path.write_text("".join(lines))
    copy = rf"\copy notes from {path} {options}"
    count = "select count(*) from notes where id >= 6000"
    _, _, errors = await psql(served.ticket(role="few"), copy, "select 1")
    assert "airlock: this copies more than 100 rows and 1024 bytes in: none of it was kept" in errors
    assert "DETAIL:  rules: few-in" in errors
    path.write_text("".join(lines[: 101 if "header" in options else 100]))
    _, output, errors = await psql(served.ticket(role="few"), count, copy, count)
    assert (output.split(), errors) == (["0", "COPY", "100", "100"], "")


async def test_a_copy_out_beyond_its_limit_stops_and_the_session_goes_on(served: TestBroker) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket(role="few").dsn(), autocommit=True) as connection:
        for query in ("copy notes to stdout", "copy (select g from generate_series(1, 3000000) g) to stdout"):
            seen: list[object] = []

            async def read(text: str = query, into: list[object] = seen) -> None:
                async with connection.cursor().copy(text.encode()) as copy:
                    into.extend([piece async for piece in copy])

            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="this copies more than 100 rows out"):
                await read()
            assert len(seen) <= 100
            for _ in range(3):
                assert await (await connection.execute("select 1")).fetchone() == (1,)
        async with connection.cursor().copy("copy (select * from notes where id <= 100) to stdout") as copy:
            assert len([row async for row in copy.rows()]) == 100
    outcomes = [one["sqlstate"] for one in served.recorder.of("statement.finished") if "copied" in one]
    assert outcomes == ["54000", "54000", None]


async def test_the_servers_own_files_and_programs_stay_closed_to_copy(served: TestBroker) -> None:
    for way in ("to '/tmp/x'", "from '/etc/passwd'", "to program 'cat'", "from program 'id'"):
        _, _, errors = await psql(served.ticket(role="write"), f"copy notes {way}")
        assert "the server's own files or programs is not passed" in errors
    _, _, errors = await psql(served.ticket(role="write"), "copy notes from stdin with (encoding 'SJIS')")
    assert "COPY in this encoding is not passed" in errors
