"""Policies of a few rules about statements, and what they decide."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from policies.engine.decide import decide_statement
from policies.engine.decisions import Decision, Effect, StatementFacts
from policies.engine.load import read_texts
from policies.engine.model import Policy
from tests.unit.policies.small import SMALL

WORLD = f"""{SMALL}  ove: {{name: Ove, groups: [ops]}}
groups: {{devs: "", ops: "", ghosts: ""}}
""".replace('groups: {devs: "", ops: ""}', "", 1)
READ = "{id: reads, decision: allow, effects: [read]}"
WRITE = "{id: writes, decision: allow, effects: [write]}"
MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)


@cache
def policy(*rules: str) -> Policy:
    return read_texts({"world.yaml": WORLD, "rules.yaml": f"statements: [{', '.join(rules)}]"})


def facts(verb: str = "DELETE", *, write: bool = True, bare: bool = False, **more: Any) -> StatementFacts:
    effects = frozenset({Effect.WRITE} if write else {Effect.READ})
    writes = frozenset({"public.t"}) if write else frozenset()
    reads = frozenset() if write else frozenset({"public.t"})
    missing = frozenset({"public.t"}) if bare else frozenset()
    return StatementFacts(verb, effects, reads, writes, missing_where=missing, **more)


def decided(given: Policy, about: StatementFacts, now: datetime | None = MONDAY) -> Decision:
    return decide_statement(given, "ann", "db", "read", about, now)
