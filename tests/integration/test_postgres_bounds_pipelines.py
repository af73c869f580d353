"""Row bounds where the client says its messages by hand: pipelines, and the order of what it hears."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest

from broker.protocols.postgres import codec
from tests.integration.postgres_world import endpoint, enter, kinds, make_world, problem, raw
from tests.integration.test_postgres_bounds import BOUNDED, MORE, count
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server

MARK = "show datestyle"
"""What is said last, to hear everything before its answer."""


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres, *MORE)
    async with serving(tmp_path, read, policy=BOUNDED, write=endpoint(postgres, "app_write")) as broker:
        yield broker


async def test_a_query_among_messages_that_wait_for_sync_opens_no_transaction_that_is_not_counted(
    served: TestBroker, postgres: Server, subtests: pytest.Subtests
) -> None:
    # Servers since 18 end the transaction of such a Query with the Sync behind it, and say until then that one is open.
    joined, begun = _run("select 1") + codec.query("select 2"), _run("select 1") + codec.query("begin; select 2")
    late, update = "insert into late values (15)", codec.query("update notes set body = 'x'")
    parts = {
        "deferred": ([joined, _run(late) + codec.SYNC], "touched 16 rows"),
        "deferred, at once": ([joined + _run(late) + codec.SYNC], "touched 16 rows"),
        "query": ([joined, update, codec.SYNC], "not sent by Query while other messages wait for Sync"),
        "query, at once": ([joined + codec.query("select 3") + update + codec.SYNC], "wait for Sync"),
        "begun": ([begun, codec.query(late), codec.SYNC, codec.query("commit")], "touched 16 rows"),
    }
    for name, (sent, told) in parts.items():
        with subtests.test(name):
            errors = [problem(frame)["M"] for frame in await _heard(served, sent) if frame.type == ord("E")]
            assert [told in error for error in errors] == [True]
            assert (count(postgres, "audit"), count(postgres, "late")) == (0, 0)
            assert postgres.execute("select count(*) from notes where body = 'x'", "shop") == [(0,)]
    within = [begun, codec.query("insert into late values (4)"), codec.SYNC, codec.query("commit")]
    assert kinds(await _heard(served, within)) == "12DCCTDCZCZZCZ"
    assert (count(postgres, "audit"), count(postgres, "late")) == (4, 1)


async def test_what_a_text_with_bounded_changes_is_answered_with_is_in_its_order(
    served: TestBroker, postgres: Server
) -> None:
    within = "insert into watched values (3) returning id; select 5; insert into watched values (4); select 6"
    kept = await _heard(served, [codec.query(within)])
    assert kinds(kept) == "TDCTDCCTDCZ"
    tags = [codec.read_tag(frame.body) for frame in kept if frame.type == ord("C")]
    assert tags == ["INSERT 0 1", "SELECT 1", "INSERT 0 1", "SELECT 1"]
    undone = await _heard(served, [codec.query("insert into watched values (15); select 5")])
    assert kinds(undone) == "CTDEZ"
    assert "touched 16 rows" in problem(undone[3])["M"]
    assert (count(postgres, "watched"), count(postgres, "audit")) == (2, 7)
    allowed = [one["statement"] for one in served.recorder.of("statement.allowed") if one["text"] != MARK]
    counted = [(one["statement"], one["rows"], one["kept"]) for one in served.recorder.of("statement.counted")]
    assert counted == [(allowed[0], 9, True), (allowed[4], 16, False)]
    finished = [one for one in served.recorder.of("statement.finished") if one["statement"] in allowed]
    assert [one["statement"] for one in finished] == allowed
    assert [one["outcome"] for one in finished] == ["ok"] * 5 + ["failed"]


@pytest.mark.parametrize(("rows", "told"), [(3, "12GCZ"), (11, "12GEZ")])
@pytest.mark.parametrize("waits", [True, False])
async def test_a_copy_in_the_extended_protocol_is_counted_before_its_client_says_sync(
    served: TestBroker, postgres: Server, rows: int, told: str, waits: bool
) -> None:
    lines = b"".join(b"%d\tx\n" % number for number in range(5000, 5000 + rows))
    begin = [_run("copy notes from stdin"), codec.message(b"H")]
    end = [codec.message(b"d", lines), codec.message(b"c"), codec.SYNC]
    if waits:
        heard = await _heard(served, [b"".join(begin), b"".join(end)], until=["G", "Z"])
    else:
        heard = await _heard(served, [b"".join((*begin, *end))])
    assert kinds(heard) == told
    kept = rows if told.endswith("CZ") else 0
    assert postgres.execute("select count(*) from notes where id >= 5000", "shop") == [(kept,)]


def _run(sql: str) -> bytes:
    return codec.parse("", sql) + codec.bind("", "") + codec.execute("")


async def _heard(served: TestBroker, parts: list[bytes], until: Sequence[str] = ()) -> list[codec.Frame]:
    """Say each part once what came before it is answered; returns everything that comes until the session ends."""

    def play() -> list[codec.Frame]:
        with raw(served.port) as client:
            enter(client, served.ticket(role="write"))
            found: list[codec.Frame] = []
            for part, kind in zip_longest(parts, until, fillvalue="Z"):
                assert isinstance(part, bytes)
                client.send(part)
                found += client.until(kind)
            client.send(codec.query(MARK))
            while b"ISO, MDY" not in (found := found + client.until("Z"))[-3].body:
                pass
            return found[:-4]

    return await asyncio.to_thread(play)
