"""The ruling on a text of SQL: what inspection found, joined with what the policy says of each statement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, assert_never

from broker.protocols.postgres.pins import never_changes
from broker.sessions.model import Durability
from broker.sql.model import Control, Inspection, Refusal, Statement
from policies.engine.decide import decide_statement, terms_of
from policies.engine.decisions import NO_LIMITS, UNASKED, Allow, Ask, Bound, Deny, Effect, Limits, Requirement, Rows
from policies.engine.durations import format_duration
from policies.engine.model import Policy
from workflows.reviews import Answer, Met, Review, reviewers, tally
from workflows.words import series

_CHANGING = frozenset({Effect.WRITE, Effect.DDL, Effect.ADMIN})
_READ_ONLY = Refusal(
    "settings",
    "a session cannot make its transactions writable; its role decides that",
    "leave it read-only; pgJDBC asks for it in readOnlyMode=always, and not in readOnlyMode=transaction",
)
NAMED = 6
"""People that a client is told of by their names; the rest are counted."""
MAX_SHOWN = 4096
"""Characters of a statement that go into the feed; the recording has all of it."""


class Subject(NamedTuple):
    """Whose statement it is, and under what."""

    person: str
    resource: str
    role: str


@dataclass(frozen=True, slots=True)
class Asking:
    """What must be answered before a text may run: by whom, under which rules, and whether its client waits for it."""

    requirement: Requirement
    rules: tuple[str, ...]
    names: tuple[str, ...]
    waits: bool = True
    seconds: float = 600.0
    shape: bool = False
    """Its shape may be approved too."""

    @property
    def people(self) -> str:
        left = len(self.names) - NAMED
        return series([*self.names[:NAMED], f"{left} more"] if left > 0 else self.names, "or")

    def merged(self, other: Asking) -> Asking:
        """Demand what either demands, of one text under one role."""
        return Asking(
            self.requirement.merged(other.requirement),
            tuple(dict.fromkeys((*self.rules, *other.rules))),
            tuple(dict.fromkeys((*self.names, *other.names))),
            self.waits and other.waits,
            min(self.seconds, other.seconds),
            self.shape and other.shape,
        )


@dataclass(frozen=True, slots=True)
class Permitted:
    """Every statement of a text may run, once `asking` is answered; `rules` are those of each statement."""

    sql: str
    inspection: Inspection
    rules: tuple[tuple[str, ...], ...]
    durability: Durability
    asking: Asking | None = None
    bound: Bound | None = None
    """How many rows all of the text may touch, where it changes data."""
    limits: tuple[Limits, ...] = ()
    """How far each statement may copy; empty where nothing is limited."""
    estimating: bool = False
    """It is to be ruled on again with what the planner expects, before it runs."""

    @property
    def consults(self) -> bool:
        """Say whether somebody is asked about it, to whom it has to mean what it does: reviewers, or the planner."""
        return self.asking is not None or self.estimating


@dataclass(frozen=True, slots=True)
class Denied:
    """A text that may not run: as the client is told, and as it is recorded (`text` is redacted)."""

    sqlstate: str
    message: str
    rules: tuple[str, ...]
    hint: str | None = None
    position: int | None = None
    verb: str = ""
    text: str = ""
    retry: bool = False
    """A name was unknown: worth asking again under a fresh catalogue."""
    routine: str = ""
    """Where in the server such an error comes from, for drivers that go by that."""
    hold: str = ""
    """The hold that its reviewers may answer, where it was refused for now."""


Ruling = Permitted | Denied


def rule(
    policy: Policy,
    subject: Subject,
    sql: str,
    inspection: Inspection,
    now: datetime | None = None,
    rows: Rows = UNASKED,
) -> Ruling:
    """Rule on an inspected text as a whole; a denial names the role to ask for, where another would let it run.

    `rows` is what the planner expects of it.
    """
    ruling = _ruled(policy, subject, sql, inspection, now, rows)
    if isinstance(ruling, Permitted) or (ruling.hint and {one.id for one in policy.statements} & set(ruling.rules)):
        # What the policy's author says to do next stands.
        return ruling
    hint = _other_role(policy, subject, sql, inspection, now) or ruling.hint
    return replace(ruling, hint=hint or "`/access` shows what you may ask for")


def _ruled(
    policy: Policy, subject: Subject, sql: str, inspection: Inspection, now: datetime | None, rows: Rows
) -> Ruling:
    """Rule on an inspected text under one role: one statement that may not run denies all of it."""
    written = {one.id for one in policy.statements}
    rules: list[tuple[str, ...]] = []
    limits: list[Limits] = []
    asking: Asking | None = None
    bound: Bound | None = None
    estimating = False
    for statement in inspection.statements:
        decision = decide_statement(policy, subject.person, subject.resource, subject.role, statement.facts, now, rows)
        spoken = isinstance(decision, Deny) and written & set(decision.rules)
        if statement.refusal is not None and not spoken:
            # No rule could let it pass, so this says more than that none does.
            return refused(statement.refusal, shown_text(inspection), statement.facts.verb)
        if statement.writable and never_changes(policy, subject.person, subject.resource, subject.role):
            return refused(_READ_ONLY, shown_text(inspection), statement.facts.verb)
        match decision:
            case Allow(bound=Bound() as narrower) | Ask(bound=Bound() as narrower) if _runs_change(statement):
                bound = narrower.merged(bound)
        match decision:
            case Deny():
                return _denied(inspection, statement, decision.message, decision.rules, decision.hint)
            case Ask():
                asked = _asking(policy, subject, decision)
                asking = asked if asking is None else asking.merged(asked)
                if (why := _unanswerable(policy, subject, statement, asking)) is not None:
                    message = f"this needs a review by {asking.requirement}"
                    return _denied(inspection, statement, message, asking.rules, why)
                rules.append(decision.rules)
            case Allow():
                rules.append(decision.rules)
            case _:
                assert_never(decision)
        if (
            decision.limits != NO_LIMITS
            and statement.facts.copying == "out"
            and Effect.WRITE in statement.facts.all_effects
        ):
            # What goes too far may be complete upstream before it is stopped, its changes too (fail closed).
            why = "run the change first, and copy what it returned then"
            return _denied(inspection, statement, "a COPY with a limit cannot change data", decision.rules, why)
        if isinstance(decision, Allow | Ask) and decision.bound is not None and _puts_off_change(statement):
            why = "run the SELECT itself"
            return _denied(inspection, statement, "a cursor's changes have no row bound", decision.rules, why)
        limits.append(decision.limits)
        estimating = estimating or decision.estimating
    return Permitted(
        sql, inspection, tuple(rules), durability_of(inspection), asking, bound, _limits(limits), estimating
    )


def _runs_change(statement: Statement) -> bool:
    """Say whether running a statement changes data; PREPARE and DECLARE only name what would."""
    named = statement.control in (Control.PREPARE, Control.DECLARE, Control.DECLARE_HELD)
    return Effect.WRITE in statement.facts.all_effects and not named


def _puts_off_change(statement: Statement) -> bool:
    """Say whether it makes a cursor whose rows change data as they are fetched, or as its transaction ends."""
    return statement.control in (Control.DECLARE, Control.DECLARE_HELD) and statement.facts.acts


_PLAINER = "write it in a plainer way"
_NEXT = {
    "syntax-unknown": _PLAINER,
    "rewrite": _PLAINER,
    "explain": "plain EXPLAIN, with ANALYZE, VERBOSE or FORMAT, is passed",
    "function": "use a builtin function that only computes",
    "operator": "use builtin operators",
    "type": "use builtin types, or name other columns",
    "name": "name it by its schema, table and name",
    "relation-kind": "query the tables behind it",
    "statement-kind": "ask whoever runs the database",
    "system-column": "name the columns that you need",
    "transaction": "BEGIN, COMMIT, ROLLBACK and savepoints are passed",
    "prepare": "prepare it over the protocol, or run it as it is",
    "catalogue": r"\d and its family work",
    "settings": "SHOW with its name says what it is set to",
    "cursor-write": "name the row by its key",
    "copy-option": "leave the option out",
    "encoding": "send it in UTF-8",
    **dict.fromkeys(
        ("limit-length", "limit-tokens", "limit-operators", "limit-nesting", "limit-comments", "limit-tree",
         "limit-queries", "limit-masks", "limit-time"),
        "run it in smaller parts",
    ),
}  # fmt: skip
"""What would work in place of what a built-in rule refuses, where the refusal says nothing nearer."""


def _limits(limits: list[Limits]) -> tuple[Limits, ...]:
    return tuple(limits) if any(one != NO_LIMITS for one in limits) else ()


def refused(refusal: Refusal, text: str, verb: str = "") -> Denied:
    """Word a refusal of the inspection itself; `text` is redacted."""
    return Denied(
        refusal.sqlstate,
        refusal.message,
        (refusal.rule,),
        refusal.hint or _NEXT.get(refusal.rule),
        refusal.position,
        refusal.verb or verb,
        text[:MAX_SHOWN],
        refusal.retry,
    )


def durability_of(inspection: Inspection) -> Durability:
    """Return how safe the record must be first: synced before a change, before the results of masked reads."""
    facts = [statement.facts for statement in inspection.statements]
    if any(fact.all_effects & _CHANGING for fact in facts):
        return Durability.SYNCED
    if inspection.scrub or any(fact.masked for fact in facts):
        return Durability.RESULTS_WAIT
    return Durability.WRITTEN


def must_be_asked(ruling: Permitted, asking: Asking, hint: str) -> Denied:
    """Word the refusal of a text whose client does not wait for its review."""
    verb = ruling.inspection.statements[0].facts.verb
    message = f"this needs a review by {asking.requirement}"
    return Denied("42501", message, asking.rules, hint, None, verb, shown_text(ruling.inspection))


def _asking(policy: Policy, subject: Subject, ask: Ask) -> Asking:
    role = policy.resources[subject.resource].roles[subject.role]
    names = [policy.people[handle].name for handle in reviewers(policy, ask.requirement, subject.person)]
    seconds = role.hold_for.total_seconds()
    return Asking(ask.requirement, ask.rules, tuple(names), role.hold == "wait", seconds, ask.shape)


def _unanswerable(policy: Policy, subject: Subject, statement: Statement, asking: Asking) -> str | None:
    """Say why no answer could let a statement run: too few may answer, or they cannot see all of it."""
    if statement.control is Control.COPY_IN:
        return "what is copied in cannot be shown to them: insert the rows instead"
    if _answerable(policy, asking.requirement, subject.person):
        return None
    some = reviewers(policy, asking.requirement, subject.person)
    return "too few in the policy could approve it" if some else "nobody in the policy could approve it"


def _answerable(policy: Policy, requirement: Requirement, person: str) -> bool:
    everybody = [Review(one, Answer.APPROVE) for one in reviewers(policy, requirement, person)]
    return isinstance(tally(policy, requirement, person, everybody), Met)


def _denied(
    inspection: Inspection, statement: Statement, message: str, rules: tuple[str, ...], hint: str | None
) -> Denied:
    return Denied("42501", message, rules, hint, None, statement.facts.verb, shown_text(inspection))


def shown_text(inspection: Inspection) -> str:
    """Return a text as the feed has it, without literals."""
    return "; ".join(statement.redacted for statement in inspection.statements)[:MAX_SHOWN]


def _other_role(policy: Policy, subject: Subject, sql: str, inspection: Inspection, now: datetime | None) -> str | None:
    """Return the line that asks for a role under which all of a text could run, where this person could get one."""
    resource = policy.resources.get(subject.resource)
    for role in resource.roles if resource else ():
        given = terms_of(policy, subject.person, subject.resource, role).decision
        if role == subject.role or isinstance(given, Deny):
            continue
        if isinstance(given, Ask) and not _answerable(policy, given.requirement, subject.person):
            continue
        # What a person sees does not depend on the role, so the inspection is the same.
        if isinstance(_ruled(policy, subject._replace(role=role), sql, inspection, now, UNASKED), Permitted):
            return access_line(policy, subject.person, subject.resource, role)
    return None


def access_line(policy: Policy, person: str, resource: str, role: str) -> str:
    """Return what to type for a role: for half an hour, or the most that is given."""
    longest = terms_of(policy, person, resource, role).max_duration
    return f"/access {resource} {role} {format_duration(min(longest, timedelta(minutes=30)))}"
