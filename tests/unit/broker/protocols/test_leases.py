"""Leases survive crashes, tell orphans from the living, and stay small."""

import asyncio
import json
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from broker.adapters import leases as module
from broker.adapters.endpoints import resolved
from broker.adapters.leases import LeaseBook, LeaseFailed, LeaseFile, Lock
from broker.errors import Misconfigured
from broker.reaper import Tail
from broker.sessions.model import Lease, Source

SOURCE = Source("env:PGHOST", 5432, "shop", "disable", "file:prod-read")
LEASE = Lease("s1", "g1", "postgres", "prod-db", "read", datetime(2030, 1, 1, tzinfo=UTC), 1, 4000, SOURCE)


def path(home: Path) -> Path:
    return home / "leases" / "leases.ndjson"


async def test_what_is_written_is_read_and_the_last_line_counts(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path)
    await leases.write(LEASE)
    known = replace(LEASE, pid=7, backend_start=8, identity="airlock_s_x")
    await leases.write(known)
    assert LeaseBook.read(path(tmp_path)).leases == {"s1": known}
    assert leases.sessions() == {"s1"}
    assert await leases.close("s1")
    assert LeaseBook.read(path(tmp_path)).leases == {}
    assert leases.sessions() == frozenset()
    leases.release()


async def test_leases_of_an_earlier_broker_are_orphans(tmp_path: Path) -> None:
    first = LeaseFile(tmp_path)
    await first.write(LEASE)
    first.release()
    second = LeaseFile(tmp_path)
    await second.write(replace(LEASE, session="s2"))
    book = LeaseBook.read(path(tmp_path))
    assert set(book.leases) == {"s1", "s2"}
    assert book.orphans == {"s1"}
    second.release()


async def test_there_is_one_broker_to_a_folder(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path)
    with pytest.raises(Misconfigured):
        LeaseFile(tmp_path)
    assert Lock(tmp_path / "leases" / "broker.lock").held()
    leases.release()
    assert not Lock(tmp_path / "leases" / "broker.lock").held()


async def test_a_torn_line_is_passed_over_and_logged(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path)
    await leases.write(LEASE)
    leases.release()
    with path(tmp_path).open("ab") as file:
        file.write(b'{"op":"close","sess\n{"op":"lease","session":"s9"}\n[1]\n')
    with structlog.testing.capture_logs() as logs:
        assert set(LeaseBook.read(path(tmp_path)).leases) == {"s1"}
    torn = "a line of the leases does not read"
    assert [(entry["event"], entry.get("session")) for entry in logs] == [
        (torn, None),
        ("a lease is not whole", "s9"),
        (torn, None),
    ]


ENTRY = {"op": "lease", **module.written(LEASE), "session": "odd"}


@pytest.mark.parametrize(
    "odd",
    [
        b"[" * 200_000,
        b"\0",
        b'{"op":["lease"]}',
        *(
            json.dumps({**ENTRY, name: value}).encode()
            for name, value in (
                ("pid", "x"),
                ("pid", 1 << 31),
                ("pid", True),
                ("backend_start", 1 << 63),
                ("local_port", "1"),
                ("identity", 1),
                ("grant", None),
                ("role", ["read"]),
                ("expires_at", 5),
                ("expires_at", "2030-01-01"),
                ("source", {}),
                ("source", ["env:PGHOST"]),
                ("source", {**asdict(SOURCE), "credential": ["file:x"]}),
                ("source", {**asdict(SOURCE), "more": 1}),
                ("source", {**asdict(SOURCE), "port": 1 << 70}),
            )
        ),
    ],
    ids=lambda odd: odd[-60:].decode(errors="replace"),
)
async def test_a_line_that_only_looks_like_a_lease_stops_no_other(tmp_path: Path, odd: bytes) -> None:
    leases = LeaseFile(tmp_path)
    await leases.write(LEASE)
    leases.release()
    with path(tmp_path).open("ab") as file:
        file.write(odd + b"\n" + module.line({**module.written(LEASE), "op": "lease", "session": "s2"}))
    assert set(LeaseBook.read(path(tmp_path)).leases) == {"s1", "s2"}


def test_a_reference_with_a_zero_byte_is_misconfigured(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        resolved(replace(SOURCE, credential="file:\0"), tmp_path)


async def test_leases_are_synced_and_closes_are_seen_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leases, tail = LeaseFile(tmp_path), Tail(path(tmp_path))
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fdatasync", lambda _: synced.append(len(path(tmp_path).read_bytes())))
    for expected in (1, 2):
        await leases.write(LEASE)
        assert len(synced) == expected
        assert synced[-1] == path(tmp_path).stat().st_size
        await leases.close("s1")
        assert (tail.look().leases, len(synced)) == ({}, expected)
    leases.release()


async def test_the_file_is_begun_anew_when_nothing_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_BYTES", 4000)
    leases, tail = LeaseFile(tmp_path), Tail(path(tmp_path))
    for number in range(50):
        await leases.write(replace(LEASE, session=f"s{number}"))
        assert set(tail.look().leases) == {f"s{number}"}
        await leases.close(f"s{number}")
        book = tail.look()
        assert (book.leases, book.orphans) == ({}, set())
    assert path(tmp_path).stat().st_size < 5000
    leases.release()


async def test_a_lease_that_comes_while_the_file_is_begun_anew_fails_nothing_and_is_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = LeaseFile(tmp_path)
    await before.write(LEASE)
    before.release()
    leases, written, opened = LeaseFile(tmp_path), module.written, os.open

    def come(session: str) -> None:
        leases._mine.add(session)
        leases._open[session] = replace(LEASE, session=session)

    def writes(lease: Lease) -> dict[str, object]:
        come("s2")
        return written(lease)

    def opens(file: Path | str, *how: int) -> int:
        if str(file).endswith(".part"):
            come("s3")
        return opened(file, *how)

    with monkeypatch.context() as patch:
        patch.setattr(module, "COMPACT_BYTES", 1)
        patch.setattr(module, "written", writes)
        patch.setattr(module.os, "open", opens)
        assert await leases.close("s4")
    assert leases._open.keys() == {"s1", "s2", "s3"}
    assert Tail(path(tmp_path)).look().orphans == {"s1"}
    leases.release()


async def test_what_the_reaper_ended_is_not_ended_twice(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path)
    await leases.write(LEASE)
    (tmp_path / "leases" / "reaped.ndjson").write_text('{"session":"s1"}\n')
    assert leases.sessions() == frozenset()
    assert not await leases.close("s1")
    assert await leases.close("s2")
    with (tmp_path / "leases" / "reaped.ndjson").open("a") as file:
        file.write('{"session":"s3"}\n')
    assert not await leases.close("s3")
    leases.release()


async def test_leases_written_at_once_are_all_there(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path)
    await asyncio.gather(*(leases.write(replace(LEASE, session=f"s{number}")) for number in range(100)))
    assert len(LeaseBook.read(path(tmp_path)).leases) == 100
    leases.release()


async def test_lines_that_wait_are_synced_together_in_their_order_and_fail_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = LeaseFile(tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fdatasync", synced.append)
    many = [replace(LEASE, session=f"s{number}") for number in range(20)]
    await asyncio.gather(*(leases.write(lease) for lease in many), leases.close("s0"))
    assert list(LeaseBook.read(path(tmp_path)).leases) == [f"s{number}" for number in range(1, 20)]
    assert len(synced) < 5

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(module.os, "write", full)
    failed = await asyncio.gather(*(leases.write(lease) for lease in many), return_exceptions=True)
    assert {type(one) for one in failed} == {LeaseFailed}
    monkeypatch.setattr(module.os, "write", lambda *_: 1 / 0)
    with pytest.raises(LeaseFailed, match="ZeroDivisionError"):
        await leases.write(LEASE)
    monkeypatch.undo()
    await leases.write(LEASE)
    leases.release()


def test_without_a_reaper_nobody_watches(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path)
    assert not leases.reaper_alive()
    (tmp_path / "leases" / "reaper.beat").write_text(repr(module.boot_time()))
    assert not leases.reaper_alive()
    lock = Lock(tmp_path / "leases" / "reaper.lock")
    assert lock.acquire()
    assert leases.reaper_alive()
    for beat in ("", "nan", repr(module.boot_time() - 3), repr(module.boot_time() + 60)):
        (tmp_path / "leases" / "reaper.beat").write_text(beat)
        assert not leases.reaper_alive(), beat
    lock.release()
    leases.release()
