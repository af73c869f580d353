"""Fixtures as data: what a policy should answer, and why; run by `airlock policy test`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from policies.engine.conditions import Direction, SettingName
from policies.engine.decide import decide_access, decide_statement, field_view
from policies.engine.decisions import Allow, Ask, Decision, Deny, Effect, OwnFunction, StatementFacts
from policies.engine.load import PolicyUnreadable
from policies.engine.model import Policy
from policies.engine.values import Duration

_MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AccessCase(_Strict):
    who: str
    resource: str
    role: str
    duration: Duration


class StatementCase(_Strict):
    who: str
    resource: str
    role: str
    effects: list[Effect]
    verb: str = "SELECT"
    reads: list[str] = []
    writes: list[str] = []
    functions: list[str] = []
    missing_where: list[str] = []
    copying: Direction | None = None
    settings: list[SettingName] = Field(default=[], description="settings of an application's own, like `app.user_id`")
    calls: list[str] = Field(default=[], description="functions of your own, like `public.total(integer)`")
    acting_calls: list[str] = Field(default=[], description="those that are volatile, or SECURITY DEFINER")
    estimated_rows: int | None = Field(default=None, description="what the planner expects; nobody can say without it")
    at: AwareDatetime = Field(default=_MONDAY, description="the moment, for rules with hours; a Monday's noon (UTC)")


class FieldCase(_Strict):
    """`relation.field` as one person sees it: `clear`, or the mask's name."""

    who: str
    resource: str
    field: str


class Case(_Strict):
    """One expectation; `reason` is a rule's id, or words of the answer."""

    name: str
    access: AccessCase | None = None
    statement: StatementCase | None = None
    field: FieldCase | None = None
    expect: Literal["allow", "ask", "deny", "clear", "hide", "partial", "fixed", "null"]
    reason: str = ""

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if sum(each is not None for each in (self.access, self.statement, self.field)) != 1:
            raise ValueError("a case has one of `access`, `statement` or `field`")
        return self


def load_cases(folder: Path) -> list[Case]:
    """Read every case of a folder; raises PolicyUnreadable."""
    cases: list[Case] = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            cases += TypeAdapter(list[Case]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")) or [])
        except (ValidationError, yaml.YAMLError) as error:
            raise PolicyUnreadable([f"{file.name}: {error}"]) from None
    return cases


def failure(policy: Policy, case: Case) -> str | None:
    """Return what a case got instead of what it expects, or None."""
    got, reasons = _answer(policy, case)
    if got != case.expect:
        return f"expected {case.expect}, got {got} ({', '.join(reasons)})"
    if case.reason and not any(case.reason in reason for reason in reasons):
        return f"expected the reason `{case.reason}`, got {', '.join(reasons)}"
    return None


def _answer(policy: Policy, case: Case) -> tuple[str, list[str]]:
    if case.access is not None:
        asked = case.access
        return _named(decide_access(policy, asked.who, asked.resource, asked.role, asked.duration))
    if case.statement is not None:
        ran = case.statement
        facts = StatementFacts(
            ran.verb,
            frozenset(ran.effects),
            frozenset(ran.reads),
            frozenset(ran.writes),
            frozenset(ran.functions),
            missing_where=frozenset(ran.missing_where),
            copying=ran.copying or "",
            settings=frozenset(ran.settings),
            calls=frozenset(
                OwnFunction(*_signature(name), acting)
                for names, acting in ((ran.calls, False), (ran.acting_calls, True))
                for name in names
            ),
        )
        return _named(decide_statement(policy, ran.who, ran.resource, ran.role, facts, ran.at, ran.estimated_rows))
    assert case.field is not None
    relation, _, name = case.field.field.rpartition(".")
    rules = field_view(policy, case.field.who, case.field.resource).get(relation)
    mask = rules.mask_of(name) if rules else None
    return (mask.kind.value if mask else "clear"), list(rules.rules) if rules else ["no field rules"]


def _signature(text: str) -> tuple[str, str, tuple[str, ...]]:
    name, _, rest = text.partition("(")
    schema, _, called = name.rpartition(".")
    return schema, called, tuple(filter(None, (each.strip() for each in rest.removesuffix(")").split(","))))


def _named(decision: Decision) -> tuple[str, list[str]]:
    match decision:
        case Allow():
            return "allow", list(decision.rules)
        case Ask():
            return "ask", [*decision.rules, str(decision.requirement)]
        case Deny():
            return "deny", [*decision.rules, decision.message]
