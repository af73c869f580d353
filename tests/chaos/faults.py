"""The fault matrix: what goes wrong, at which step of the story, and how it is put right; all from a seed."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, replace

from tests.chaos.people import Unanswered
from tests.chaos.rig import Rig, clock_shim

STEPS = ("ask", "decide", "open", "connect", "read", "masked", "denied", "hold", "answer", "end", "summary")
PROCESSES = ("bot", "broker", "reaper", "workspace", "upstream")
KINDS = (
    *(("kill", name) for name in PROCESSES),
    *(("freeze", name) for name in PROCESSES),
    *(("disk", name) for name in ("bot", "broker", "reaper")),
    *(("clock", way) for way in ("forward", "back")),
    *(("slack", what) for what in ("429", "500", "drop before", "drop after", "drop socket", "disconnect")),
    *(("slack", what) for what in ("twice", "late", "lost ack")),
    ("none", ""),
)
CELLS = len(STEPS) * len(KINDS)
_STRIDE = next(n for n in range(101, 100_000) if math.gcd(n, CELLS) == 1)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: `delay` seconds into a step, for `lasts` seconds (a kill: until the restart)."""

    step: str
    kind: str
    target: str
    delay: float
    lasts: float
    number: int = 1

    def __str__(self) -> str:
        what = f"{self.kind} {self.target} at `{self.step}`"
        return f"{what} +{self.delay * 1000:.0f} ms, {self.lasts:.1f} s, x{self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does; everything follows from the seed."""

    seed: int
    role: str
    decision: str
    """approve, deny or cancel."""
    reply: str
    """What the reviewer of the held statement answers: approve or deny."""
    ending: str
    """end, revoke, command or expiry."""
    busy: bool
    """Whether a statement runs while access ends."""
    simple: bool
    """Whether the client speaks the simple protocol."""
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        what = ", ".join(str(fault) for fault in self.faults) or "nothing goes wrong"
        words = f"{self.role}, {self.decision}, {self.reply} held, {self.ending}{' while busy' if self.busy else ''}"
        return f"seed {self.seed}: {words}; {what}"


def plan(seed: int, short: bool = False) -> Plan:
    """Make the plan of a seed; `short` leaves out what takes a minute."""
    rng = random.Random(seed)
    # Consecutive seeds walk through the whole matrix, whatever else the dice say.
    step, cell = divmod(seed * _STRIDE % CELLS, len(KINDS))
    kind, target = KINDS[cell]
    faults = [_fault(rng, STEPS[step], kind, target)]
    if rng.random() < 0.3:
        kinds = [one for one in KINDS if _together(one, (kind, target))]
        faults.append(_fault(rng, rng.choice(STEPS), *rng.choice(kinds)))
    late = {fault.step for fault in faults} - {"ask", "decide"}
    decision = "approve" if late else rng.choices(("approve", "deny", "cancel"), (6, 2, 2))[0]
    needs_write = bool(late & {"hold", "answer"})
    ending = rng.choices(("end", "revoke", "command", "expiry"), (3, 3, 2, 3) if "end" in late else (4, 4, 2, 1))[0]
    if (STEPS[step], kind, target) == ("end", "freeze", "broker"):
        # Nothing but the reaper can end a session on time while its broker stands still past the end.
        ending, faults[0] = "expiry", replace(faults[0], lasts=rng.uniform(4.5, 6.5))
    return Plan(
        seed,
        "write" if needs_write or rng.random() < 0.4 else "read",
        decision,
        rng.choices(("approve", "deny"), (3, 1))[0],
        "end" if short and ending == "expiry" else ending,
        rng.random() < 0.35,
        rng.random() < 0.5,
        tuple(fault for fault in faults if fault.kind != "none"),
    )


def without_a_net() -> Plan:
    """Return what must be noticed: nobody is there to end a session on time."""
    faults = (Fault("denied", "freeze", "reaper", 0.0, 75.0), Fault("end", "freeze", "broker", 0.0, 6.0))
    return Plan(0, "read", "approve", "approve", "expiry", busy=False, simple=True, faults=faults)


def _together(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Broker and reaper are each other's safety net: both gone at once is promised nothing."""
    net = {"broker", "reaper"}
    return not (one[1] in net and other[1] in net)


def _fault(rng: random.Random, step: str, kind: str, target: str) -> Fault:
    delay = rng.choice((0.0, rng.uniform(0, 0.03), rng.uniform(0, 0.2)))
    lasts = {
        "kill": rng.choice((0.0, 0.0, rng.uniform(0, 1.5))),
        "freeze": rng.choice((rng.uniform(0.1, 1.0), rng.uniform(1.0, 6.0))),
        "disk": rng.uniform(0.3, 3.0),
    }.get(kind, 0.0)
    return Fault(step, kind, target, delay, lasts, rng.randint(1, 3))


async def apply(rig: Rig, fault: Fault) -> None:
    """Let it happen, and put it right again."""
    match fault.kind:
        case "kill" if fault.target == "upstream":
            await rig.upstream.kill(fault.lasts)
        case "kill":
            rig.members[fault.target].kill(fault.lasts)
        case "freeze":
            victim = rig.upstream if fault.target == "upstream" else rig.members[fault.target]
            victim.freeze()
            try:
                await asyncio.sleep(fault.lasts)
            finally:
                victim.thaw()
        case "disk":
            member = rig.members[fault.target]
            member.fill_disk()
            try:
                await asyncio.sleep(fault.lasts)
            finally:
                member.empty_disk()
        case "clock" if clock_shim() is not None:
            size = (1.5, 4.0, 30.0)[fault.number - 1]
            rig.step_clock(size if fault.target == "forward" else -size)
        case "slack":
            try:
                await rig.people.fault(**_wish(fault))
            except Unanswered:
                return
        case _:
            return


def _wish(fault: Fault) -> dict[str, object]:
    match fault.target:
        case "429":
            return {"status": 429, "retry_after": 1, "count": fault.number}
        case "500":
            return {"status": 500, "count": fault.number}
        case "drop before":
            return {"drop": "before", "count": fault.number}
        case "drop after":
            return {"drop": "after", "count": fault.number}
        case "drop socket":
            return {"drop_socket": True}
        case "disconnect":
            return {"disconnect": True}
        case "twice":
            return {"duplicate": fault.number}
        case "late":
            return {"delay_ms": 400 * fault.number, "count": fault.number}
        case _:
            return {"lose_ack": fault.number}
