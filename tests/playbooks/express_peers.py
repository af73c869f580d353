"""Who a session is played between: a server that answers in PostgreSQL's order, and a client that sends anything."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

from broker.protocols.postgres import codec
from tests.playbooks.postgres_play import PARSED, ROW, bind, columns, complete, describe, error, ready

if TYPE_CHECKING:
    pass
from tests.playbooks.express_sides import CODED, CONTROLS, PLAIN

EXECUTE, SYNC = codec.execute(""), codec.SYNC
OFTEN = ("select 1", "masked", "commit")
STEADY = ("select 1", "select 1", "masked", "begin", "commit")
TEXTS = ("select 1", "select 2", "masked", "insert", "begin", "commit", "drop", "fail", "select 1; select 2")


class FakeServer:
    """Answers as PostgreSQL would, as far as the order of messages goes."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._read = 0
        self._status = "I"
        self._skipping = False
        self._texts: dict[str, str] = {}
        self._portals: dict[str, tuple[str, int]] = {}

    def answer(self, sent: bytes) -> bytes:
        """Answer what was sent since the last time."""
        found = b""
        while self._read < len(sent):
            length = int.from_bytes(sent[self._read + 1 : self._read + 5], "big")
            kind, body = chr(sent[self._read]), sent[self._read + 5 : self._read + 1 + length]
            self._read += 1 + length
            if kind == "S":
                self._skipping = False
                found += self._ready()
            elif kind == "Q":
                found += self._run(codec.read_query(body).sql, b"", described=True) + self._ready()
                self._skipping = False
            elif not self._skipping:
                found += self._extended(kind, body)
        return found

    def _ready(self) -> bytes:
        if self._status == "I":
            self._portals.clear()
        return ready(self._status)

    def _extended(self, kind: str, body: bytes) -> bytes:
        match kind:
            case "P":
                parse = codec.read_parse(body)
                if parse.name in self._texts and parse.name:
                    return self._error("42P05")
                self._texts[parse.name] = parse.sql
                return PARSED
            case "B":
                found = codec.read_bind(body)
                if found.statement not in self._texts:
                    return self._error("26000")
                self._portals[found.portal] = (self._texts[found.statement], 0)
                return codec.message(b"2")
            case "D":
                named = codec.read_named(body)
                known = self._texts if named.kind == "S" else self._portals
                if named.name not in known:
                    return self._error("34000")
                return (codec.message(b"t", b"\0\0") if named.kind == "S" else b"") + self._columns()
            case "E":
                executed = codec.read_execute(body)
                if executed.portal not in self._portals:
                    return self._error("34000")
                sql, done = self._portals[executed.portal]
                if executed.max_rows and not done:
                    self._portals[executed.portal] = (sql, 1)
                    return ROW * executed.max_rows + codec.message(b"s")
                return self._run(sql, b"")
            case "C":
                named = codec.read_named(body)
                (self._texts if named.kind == "S" else self._portals).pop(named.name, None)
                return codec.message(b"3")
            case _:
                return b""

    def _run(self, sql: str, found: bytes, *, described: bool = False) -> bytes:
        for part in sql.split("; "):
            if self._status == "E" and part != "commit":
                return found + self._error("25P02")
            if part == "fail" or self._chance.random() < 0.02:
                return found + self._error("22012")
            if part in CONTROLS:
                self._status = "T" if part == "begin" else "I"
                found += complete(part.upper())
                continue
            found += self._columns() if described else b""
            rows = self._chance.choice([0, 1, 1, 3])
            found += ROW * rows + self._aside() + complete(f"SELECT {rows}")
        return found

    def _aside(self) -> bytes:
        notice = codec.fields(b"N", {"S": "NOTICE", "V": "NOTICE", "C": "00000", "M": "by the way"})
        status = codec.parameter_status("TimeZone", "UTC")
        return self._chance.choice([b"", b"", b"", b"", notice, status, codec.message(b"A", bytes(4) + b"a\0b\0")])

    def _columns(self) -> bytes:
        return columns(("a", 7, 3 if self._chance.random() < 0.01 else 2))

    def _error(self, state: str) -> bytes:
        self._skipping = True
        self._status = "E" if self._status == "T" else self._status
        return error(state)


def exchange(chance: random.Random, *, steady: bool) -> bytes:
    """What a client sends at a time: mostly what drivers do, and where it is not `steady`, what nobody does."""
    if steady:
        text = chance.choice(STEADY)
        run = bind_to("e", "") + chance.choice([b"", describe("P", "")]) + codec.execute("", chance.choice([0, 0, 2]))
        return codec.query(text) if text in CONTROLS else codec.parse("", text) + run + SYNC
    text = chance.choice(OFTEN if chance.random() < 0.7 else TEXTS)
    name = chance.choice(["", "s", "s", "t"])
    end = chance.choice([EXECUTE + SYNC, describe("P", "") + EXECUTE + SYNC])
    types = chance.choice([(), (), (), (25,), (PLAIN,), (CODED, 25)])
    bound = bind_to("é" if chance.random() < 0.4 else "e", name)
    match chance.choice([0, 0, 0, 3, 3, 3, 6, 6, 7, 7, 8, 9, 10, 11]):
        case 0:
            return codec.query(text)
        case 3:
            return bound + end
        case 6:
            return codec.parse(name, text, types) + bound + end
        case 7:
            return codec.parse(name, text, types) + describe("S", name) + SYNC
        case 8:
            return bind(name, "p") + codec.execute("p", chance.choice([0, 2])) + SYNC
        case 9:
            return bind(name) + EXECUTE + EXECUTE + SYNC + codec.execute("", 2) + SYNC
        case 10:
            return codec.message(b"C", b"S" + codec.string(name)) + SYNC
        case _:
            return chance.choice([SYNC, codec.message(b"H"), bind(name), EXECUTE, codec.query("")]) + SYNC


def bind_to(value: str, name: str) -> bytes:
    """A Bind with a parameter; only ASCII goes by the compiled lane."""
    one = value.encode()
    return codec.message(b"B", b"\0" + codec.string(name) + struct.pack(">hhi", 0, 1, len(one)) + one + bytes(2))


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Mostly whole, sometimes in pieces."""
    if not data or chance.random() < 0.8:
        return [data] if data else []
    at = chance.randrange(len(data) + 1)
    return [piece for piece in (data[:at], data[at:]) if piece]
