"""The engine's answers: Allow, Ask or Deny, each with the ids of the rules that gave it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any, Literal, assert_never


@dataclass(frozen=True, slots=True)
class Need:
    """So many people from any of these groups."""

    count: int
    groups: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.count} of {' or '.join(self.groups)}"

    def facts(self) -> dict[str, Any]:
        """Return it as events and columns hold it."""
        return {"count": self.count, "groups": list(self.groups)}


@dataclass(frozen=True, slots=True)
class Requirement:
    """What policy demands before something may happen: every need met, each person counted once."""

    needs: tuple[Need, ...]

    def __str__(self) -> str:
        return " and ".join(str(need) for need in self.needs)

    def merged(self, other: Requirement) -> Requirement:
        """Demand what either demands; needs of the same groups keep the larger count."""
        counts: dict[tuple[str, ...], int] = {}
        for need in (*self.needs, *other.needs):
            counts[need.groups] = max(need.count, counts.get(need.groups, 0))
        return Requirement(tuple(Need(count, groups) for groups, count in sorted(counts.items())))


@dataclass(frozen=True, slots=True)
class Bound:
    """How many rows a change may touch, triggers and cascades included: `most`, `factor` times what was expected."""

    most: int
    factor: float | None = None

    def merged(self, other: Bound | None) -> Bound:
        """Allow no more than either allows."""
        if other is None:
            return self
        factors = [one.factor for one in (self, other) if one.factor is not None]
        return Bound(min(self.most, other.most), min(factors, default=None))

    def rows(self, expected: int | None) -> int:
        """Return how many rows that is where a planner expects so many, or nobody knows."""
        if expected is None or self.factor is None:
            return self.most
        return max(1, min(self.most, int(expected * self.factor)))


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a COPY may go; None is no limit."""

    rows: int | None = None
    bytes: int | None = None

    def narrowed(self, other: Limits) -> Limits:
        """Keep the narrower of each."""
        return Limits(_least(self.rows, other.rows), _least(self.bytes, other.bytes))


NO_LIMITS = Limits()


def _least(left: int | None, right: int | None) -> int | None:
    return min((one for one in (left, right) if one is not None), default=None)


class Unasked(Enum):
    """Nobody has asked yet how many rows the planner expects."""

    UNASKED = "unasked"


UNASKED = Unasked.UNASKED
Rows = int | None | Unasked
"""How many rows the planner expects; None is that nobody can say."""


@dataclass(frozen=True, slots=True)
class Allow:
    """`limits` are the narrowest of all the rules that let it pass.

    `estimating` says that the planner is to be asked, and the statement decided again with its answer.
    """

    rules: tuple[str, ...]
    bound: Bound | None = None
    limits: Limits = NO_LIMITS
    estimating: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """`shape` says that every rule that asks lets reviewers approve the statement's shape too."""

    requirement: Requirement
    rules: tuple[str, ...]
    bound: Bound | None = None
    limits: Limits = NO_LIMITS
    estimating: bool = False
    shape: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """A refusal in the operator's words; `hint` says what to do next."""

    message: str
    rules: tuple[str, ...]
    hint: str | None = None


Decision = Allow | Ask | Deny


class Effect(StrEnum):
    """What a statement does."""

    READ = "read"
    WRITE = "write"
    DDL = "ddl"
    SESSION = "session"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, order=True)
class OwnFunction:
    """A function that users defined, by its argument types as `format_type` writes them.

    `acting` says that it is volatile, or runs with the rights of who made it: it could change data. Without a schema it
    is a builtin one that does more than compute.
    """

    schema: str
    name: str
    arguments: tuple[str, ...] = ()
    acting: bool = False
    native: bool = False
    """It is written in a language that can do anything on the server, and no extension that is known brought it, or it
    runs what it is given as text."""
    computes: bool = False
    """It only computes, and an extension that is known brought it: no rule has to name it."""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}({', '.join(self.arguments)})" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class StatementFacts:
    """What a rule may speak of: relations are qualified names, `verb` is the statement's first word or two."""

    verb: str
    effects: frozenset[Effect]
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    """Fields of `relation.field` that arrive masked, where the statement names or expands them."""
    missing_where: frozenset[str] = frozenset()
    """Relations that are changed without a WHERE that names a column, at any depth."""
    reveals: frozenset[str] = frozenset()
    """Fields of `relation.field` that would come in clear although they are masked."""
    searched: frozenset[str] = frozenset()
    """Masked fields of `relation.field` that are compared with one clear value."""
    does: frozenset[str] = frozenset()
    """What changes data in it, at any depth: INSERT, UPDATE, DELETE, MERGE; WITH, EXPLAIN and COPY may hold some."""
    copying: Literal["", "in", "out"] = ""
    """Which way a COPY goes, from where the client stands."""
    through: frozenset[str] = frozenset()
    """What stands behind its relations: a view's tables, a partition's parents; a role need not cover it."""
    follows: frozenset[str] = frozenset()
    """What foreign keys have follow its writes, like `UPDATE public.lines`."""
    calls: frozenset[OwnFunction] = frozenset()
    """Every function of users' that a call in it could mean, and builtin ones that a rule must name."""
    code: frozenset[str] = frozenset()
    """What else of users' code it runs or defines: types, operators, triggers, functions that are not known yet."""
    settings: frozenset[str] = frozenset()
    """Settings of an application's own that it sets or shows, or could."""

    @property
    def reaches(self) -> frozenset[str]:
        """Return the relations of what follows; rules that deny or ask about writing these speak of it too."""
        return frozenset(one.partition(" ")[2] for one in self.follows)

    @property
    def all_effects(self) -> frozenset[Effect]:
        """Effects, with those of the functions that it calls."""
        return self.effects | {Effect.WRITE} if self.acts else self.effects

    @property
    def acts(self) -> bool:
        """Say whether code of users' that it runs could change data."""
        return bool(self.code) or any(call.acting for call in self.calls)

    @property
    def wanders(self) -> bool:
        """Say whether functions of users' that it calls could change settings of the session, as volatile ones may."""
        return any(call.schema and call.acting and not call.computes for call in self.calls)

    @property
    def relations(self) -> frozenset[str]:
        return self.reads | self.writes


def combine(decisions: Iterable[Decision]) -> Decision:
    """Join decisions so that deny beats ask beats allow, and each bound holds; nothing is a Deny (fail closed)."""
    denied: Deny | None = None
    asked: Ask | None = None
    allowed: Allow | None = None
    bound: Bound | None = None
    limits, estimating = NO_LIMITS, False
    for decision in decisions:
        if not isinstance(decision, Deny) and decision.bound is not None:
            bound = decision.bound.merged(bound)
        match decision:
            case Deny():
                denied = denied or decision
            case Ask():
                limits, estimating = limits.narrowed(decision.limits), estimating or decision.estimating
                asked = _both(asked, decision) if asked else decision
            case Allow():
                limits, estimating = limits.narrowed(decision.limits), estimating or decision.estimating
                allowed = Allow(_joined(allowed.rules, decision.rules)) if allowed else decision
            case _:
                assert_never(decision)
    if denied is not None:
        return denied
    passed = asked or allowed
    if passed is None:
        return Deny("no rule allows this", ("default",))
    return replace(passed, bound=bound, limits=limits, estimating=estimating)


def _both(left: Ask, right: Ask) -> Ask:
    rules = _joined(left.rules, right.rules)
    return Ask(left.requirement.merged(right.requirement), rules, shape=left.shape and right.shape)


def _joined(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*left, *right)))


class MaskKind(StrEnum):
    HIDE = "hide"
    PARTIAL = "partial"
    FIXED = "fixed"
    NULL = "null"
    KEYS = "keys"


@dataclass(frozen=True, slots=True)
class Mask:
    """How a field is masked: `tail` characters shown by partial, `value` by fixed, the paths in `show` by keys."""

    kind: MaskKind
    tail: int = 4
    value: str = ""
    show: tuple[str, ...] = ()


HIDE = Mask(MaskKind.HIDE)


@dataclass(frozen=True, slots=True)
class RelationFields:
    """A whitelist: fields in `clear` pass, those in `masks` are masked so, `others` decides the rest (None: clear)."""

    clear: frozenset[str] = frozenset()
    masks: dict[str, Mask] = field(default_factory=dict)
    others: Mask | None = HIDE
    rules: tuple[str, ...] = ()
    rows: bool = False
    """Of a view: which rows it shows may follow masked fields."""
    searches: dict[str, int] = field(default_factory=dict)
    """Masked fields that may be compared with one clear value, and how often an hour."""

    def mask_of(self, name: str) -> Mask | None:
        """Return the mask of a field, or None where it is clear; what nobody classified is masked."""
        if name in self.clear:
            return None
        return self.masks.get(name, self.others)


def covered(listed: Iterable[str], relation: str) -> bool:
    """Say whether a list has a relation; `schema.*` has all of a schema, `*.*` every relation there is or will be."""
    return "*.*" in listed or relation in listed or f"{relation.split('.', 1)[0]}.*" in listed


FieldView = dict[str, RelationFields]
"""Qualified relation name -> its whitelist for one person on one resource; a relation not in it has no field rules."""


def all_clear(fields: FieldView) -> bool:
    """Say whether no rule masks any field, of any name."""
    return all(not rules.masks and rules.others is None for rules in fields.values())
