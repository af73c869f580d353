"""A playbook of the session machine: what is heard, and exactly what is then said, line by line."""

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Literal

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import (
    Command,
    Drop,
    Event,
    FromClient,
    FromUpstream,
    Hold,
    HoldUsed,
    Inspect,
    Match,
    Matched,
    Move,
    Note,
    Record,
    Recorded,
    Ruled,
    ToClient,
    ToUpstream,
    Use,
    Weigh,
)
from broker.protocols.postgres.machine import Machine
from broker.protocols.postgres.memory import Memory
from broker.protocols.postgres.ruling import Asking, Denied, Permitted, Ruling, durability_of
from broker.sessions.model import GrantFacts, SessionFacts
from broker.sessions.shapes import ShapeRule
from broker.sql.model import Altered, Control, Inspection, Moves, SearchPath, Statement
from policies.engine.decisions import NO_LIMITS, Effect, Limits, Need, Requirement, StatementFacts

NONCE = "airlock-nonce"
ASKING = Asking(Requirement((Need(1, ("dbas",)),)), ("asked",), ("Bob",))
POISON = codec.execute(NONCE)


def facts() -> SessionFacts:
    from datetime import UTC, datetime

    return SessionFacts(
        "s1",
        "t1",
        GrantFacts(
            "g1", "r1", "alice", "prod-db", "read", datetime(2030, 1, 1, tzinfo=UTC), datetime(2029, 1, 1, tzinfo=UTC)
        ),
    )


def permitted(
    sql: str,
    *,
    rewritten: str | None = None,
    effect: Effect = Effect.READ,
    masked: bool = False,
    tripwire: Iterable[tuple[int, int]] = (),
    controls: Iterable[tuple[Control, str, str]] | None = None,
    asking: Asking | None = None,
    copying: Literal["", "in", "out"] = "",
    limits: Limits = NO_LIMITS,
    compared: Iterable[str] = (),
    estimating: bool = False,
    alters: Altered = Altered.NOT,
    moves: Moves = Moves.NOT,
    lasting: int = 0,
) -> Permitted:
    """A ruling that lets a text pass; one statement for each part between semicolons."""
    parts = [part.strip() for part in sql.split(";") if part.strip()]
    given = list(controls or [(Control.NONE, "", "")] * len(parts))
    statements = tuple(
        Statement(
            StatementFacts(
                part.split()[0].upper(),
                frozenset({effect}),
                masked=frozenset({"public.people.ssn"}) if masked else frozenset(),
                copying=copying if part.startswith("copy") else "",
            ),
            part,
            *control,
            compared=frozenset(compared),
            alters=alters,
            moves=moves if at + 1 == len(parts) else Moves.NOT,
            lasting=lasting,
        )
        for at, (part, control) in enumerate(zip(parts, given, strict=True))
    )
    inspection = Inspection(statements, sql if rewritten is None else rewritten, (), masked, "v1", frozenset(tripwire))
    return Permitted(
        sql,
        inspection,
        (("reads",),) * len(parts),
        durability_of(inspection),
        asking,
        limits=(limits,) * len(parts) if limits != NO_LIMITS else (),
        estimating=estimating,
    )


def denied(message: str = "no") -> Denied:
    return Denied("42501", message, ("rule-1",), "ask", verb="DROP", text="drop ?")


def but_drop(sql: str) -> Ruling:
    return denied() if sql.startswith("drop") else permitted(sql)


class Play:
    """`rule` answers every Inspect at once unless it gives None; records are answered at once unless `slow`.

    `weigh` rules again with what the planner expects.
    """

    def __init__(
        self,
        rule: Callable[[str], Ruling | None] = permitted,
        *,
        slow: bool = False,
        weigh: Callable[[Permitted], Ruling] = lambda ruling: ruling,
        memory: Memory | None = None,
        known: Callable[[str], Ruling | None] = lambda _: None,
        home: SearchPath | None = None,
        longest: int = 0,
    ) -> None:
        numbers = count(1)
        self.clear = True
        self.machine = Machine(
            facts(),
            lambda: f"q{next(numbers)}",
            NONCE,
            known=known,
            memory=memory,
            clear=lambda: self.clear,
            home=home,
            longest=longest,
        )
        self._rule = rule
        self._slow = slow
        self._weigh = weigh
        self.weighed: list[Weigh] = []
        self.said: list[Command] = []
        self.notes: list[dict[str, Any]] = []
        self.records: list[Record] = []
        self.inspected: list[Inspect] = []
        self.holds: list[Hold] = []
        self.uses: list[Use] = []
        self.drops: list[str] = []
        self.good = True
        self.matches: list[Match] = []
        self.shape: ShapeRule | None = None
        self.path: SearchPath | None = home
        """What it said of the search path last."""
        self.settings = [b"ISO, MDY", b"postgres", b"UTC", b"hex", b"1"]
        self.tells = True
        """It says so at once where it is asked for them, and not in a `told` of its own."""
        self._now = 0.0

    def hear(self, event: Event) -> "Play":
        waiting = [event]
        while waiting:
            for command in self.machine.handle(waiting.pop(0)):
                match command:
                    case Inspect(sql=sql, token=token):
                        self.inspected.append(command)
                        if (ruling := self._rule(sql)) is not None:
                            waiting.append(Ruled(token, ruling, self.at))
                    case Weigh(ruling=ruling_before, token=token):
                        self.weighed.append(command)
                        waiting.append(Ruled(token, self._weigh(ruling_before), self.at))
                    case Record(token=token):
                        self.records.append(command)
                        if not self._slow:
                            waiting.append(Recorded(token, self.at))
                    case Hold():
                        self.holds.append(command)
                    case Use(token=token):
                        self.uses.append(command)
                        waiting.append(HoldUsed(token, self.good, self.at))
                    case Match(token=token):
                        self.matches.append(command)
                        waiting.append(Matched(token, self.shape, self.at))
                    case Drop(reason=reason):
                        self.drops.append(reason)
                    case Move(path=path):
                        self.path = path
                    case ToUpstream(data=data) if b"show DateStyle\0" in bytes(data):
                        if self.tells:
                            waiting.append(FromUpstream(self.told(synced=bytes(data).endswith(codec.SYNC)), self.at))
                    case Note(entry=entry):
                        self.notes.append(entry.data)
                    case _:
                        self.said.append(command)
        return self

    def told(self, *, synced: bool = False) -> bytes:
        """How the upstream answers where it is asked for the settings that say what a text means."""
        shown = [codec.message(b"D", b"\0\1" + len(value).to_bytes(4, "big") + value) for value in self.settings]
        parts = [CLOSED + CLOSED + PARSED + BOUND + row + complete("SHOW") + CLOSED + CLOSED for row in shown]
        return b"".join(parts) + (ready(self.machine._session.status) if synced else b"")

    @property
    def at(self) -> float:
        self._now += 0.001
        return self._now

    def client(self, *messages: bytes) -> "Play":
        return self.hear(FromClient(b"".join(messages), self.at))

    def upstream(self, *messages: bytes) -> "Play":
        return self.hear(FromUpstream(b"".join(messages), self.at))

    def to_upstream(self) -> bytes:
        """What was sent upstream since the last look."""
        return self._taken(ToUpstream)

    def to_client(self) -> bytes:
        return self._taken(ToClient)

    def kinds(self) -> str:
        """The types of what the client got since the last look."""
        data, found = self.to_client(), ""
        while data:
            found += chr(data[0])
            data = data[1 + int.from_bytes(data[1:5], "big") :]
        return found

    def outcomes(self) -> list[tuple[str, str]]:
        return [(note["statement"], note["outcome"]) for note in self.notes if "outcome" in note and "hold" not in note]

    def _taken(self, kind: type[ToUpstream] | type[ToClient]) -> bytes:
        found = b"".join(bytes(command.data) for command in self.said if isinstance(command, kind))
        self.said = [command for command in self.said if not isinstance(command, kind)]
        return found


def bind(statement: str, portal: str = "") -> bytes:
    return codec.message(b"B", codec.string(portal) + codec.string(statement) + bytes(6))


Q = codec.query("select 1")
RUN = bind("") + codec.execute("") + codec.SYNC


def describe(kind: str, name: str) -> bytes:
    return codec.message(b"D", kind.encode() + codec.string(name))


def complete(tag: str) -> bytes:
    return codec.message(b"C", codec.string(tag))


def error(state: str = "42601", message: str = "bad", **more: str) -> bytes:
    return codec.fields(b"E", {"S": "ERROR", "V": "ERROR", "C": state, "M": message, **more})


def columns(*found: tuple[str, int, int]) -> bytes:
    body = len(found).to_bytes(2, "big")
    for name, relation, attribute in found:
        body += codec.string(name) + relation.to_bytes(4, "big") + attribute.to_bytes(2, "big", signed=True)
        body += bytes(12)
    return codec.message(b"T", body)


ROW = codec.message(b"D", b"\0\1\0\0\0\1x")
PARSED, BOUND, CLOSED, NO_DATA = (codec.message(kind) for kind in (b"1", b"2", b"3", b"n"))
SUSPENDED = codec.message(b"s")


def ready(status: str = "I") -> bytes:
    return codec.ready_for_query(status)
