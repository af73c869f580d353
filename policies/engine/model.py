"""The strict models behind the policy files; unknown keys are errors."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from policies.engine.builtins import NAMED
from policies.engine.conditions import CopyLimit, Direction, FunctionName, Verb, Window
from policies.engine.decisions import Bound, Effect, Mask, MaskKind, Need, Requirement, covered
from policies.engine.durations import format_duration, parse_duration


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    return parse_duration(str(value))


def _windows(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _mask_name(value: Any) -> Any:
    # YAML reads a bare `null` as nothing, and here it is the name of a mask.
    return MaskKind.NULL if value is None else value


def _reference(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind == "file" and (name.startswith("/") or {"", ".", ".."} & set(name.split("/"))):
        raise ValueError(f"`{value}` would leave the secrets folder: name a file in it")
    return value


def _mask(value: Any) -> Any:
    return value if isinstance(value, dict | MaskSpec) else {"mask": _mask_name(value)}


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Handle = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
RelationName = Annotated[str, StringConstraints(pattern=r"^([^.\s*]+\.([^.\s*]+|\*)|\*\.\*)$")]
"""`schema.relation`, `schema.*`, `*.*`; a star elsewhere would name nothing, and a rule with it would say nothing."""
FieldsOf = Annotated[str, StringConstraints(pattern=r"^[^.\s*]+\.([^.\s*]+|\*)$")]
Reference = Annotated[str, StringConstraints(pattern=r"^(env|file):[A-Za-z0-9_./-]+$"), AfterValidator(_reference)]
Windows = Annotated[list[Window], BeforeValidator(_windows, json_schema_input_type=Window | list[Window])]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Upstream(Strict):
    """Where a resource is; `host` and `port` may be references like `env:PGPORT`."""

    host: Annotated[str, AfterValidator(_reference)]
    port: Annotated[int, Field(ge=1, le=65535)] | Reference
    database: str
    tls: Literal["disable", "require", "verify-full"] = "verify-full"
    ca: Reference | None = None


class Role(Strict):
    """A named level on a resource, bound to one credential."""

    credential: Reference
    relations: list[RelationName] = Field(min_length=1)
    description: str = ""
    above: list[Name] = Field(
        default=[],
        description="roles of this resource that are lower than this one, and so are what is lower than those: a "
        "reviewer who is asked for this role may approve one of them instead",
    )
    hold: Literal["wait", "refuse"] = Field(
        default="wait",
        description="a statement that policy would have reviewed waits; or it is refused at once, and may run, once, "
        "within ten minutes of its approval",
    )
    hold_for: Duration = timedelta(minutes=10)
    identity: Literal["shared", "ephemeral"] = Field(
        default="shared",
        description="sessions log in as the credential's own role; or each as a role that is made for it, with that "
        "role's rights, and dropped at its end: the resource then needs a `provisioner`",
    )
    spares: int = Field(
        default=0,
        ge=0,
        le=10,
        description="so many connections of each kind that sessions use are logged in ahead, so that the next session "
        "opens sooner; they take up connections of the upstream while there is access to this role, and go with "
        "`identity: shared`",
    )
    strict: bool = Field(
        default=False,
        description="a statement that reads a relation with masked fields checks by itself, as it runs, that columns "
        "are what they were when it was decided, and fails otherwise; without it a change is noticed within a second",
    )

    def covers(self, relation: str) -> bool:
        """Say whether the role's list has a relation; `schema.*` covers a schema."""
        return covered(self.relations, relation)


class Resource(Strict):
    protocol: Name
    description: str = ""
    upstream: Upstream
    search_path: list[Name] = Field(default=["public"], min_length=1)
    show: Literal["full", "redacted"] = Field(
        default="full",
        description="cards show held statements whole; or without their literals, and only who may answer opens them",
    )
    provisioner: Reference | None = Field(
        default=None,
        description="the credential that makes and ends the roles of sessions, where a role's identity is ephemeral",
    )
    roles: dict[Name, Role] = Field(min_length=1)

    def below(self, role: str) -> frozenset[str]:
        """Return the roles that are lower than one; what no `above` says is not lower (fail closed)."""
        found: set[str] = set()
        todo = [role]
        while todo:
            level = self.roles.get(todo.pop())
            new = [name for name in level.above if name not in found] if level else []
            found.update(new)
            todo += new
        return frozenset(found)


class Person(Strict):
    """Somebody, and who they are elsewhere; a Slack id belongs to one person."""

    name: str
    slack: str | None = None
    groups: list[Name] = []
    active: bool = True


class Reviewers(Strict):
    """How many reviewers, from any of the groups."""

    count: int = Field(default=1, ge=1, le=10)
    groups: list[Name] = Field(min_length=1)


def _requirement(reviewers: list[Reviewers] | Reviewers | None) -> Requirement:
    stages = reviewers if isinstance(reviewers, list) else [reviewers] if reviewers else []
    return Requirement(tuple(Need(stage.count, tuple(stage.groups)) for stage in stages))


class Rule(Strict):
    id: Name
    decision: Literal["allow", "ask", "deny"]
    resources: list[Name] = Field(default=[], description="empty means every resource")
    roles: list[Name] = Field(default=[], description="empty means every role")
    groups: list[Name] = Field(default=[], description="whom it speaks of; empty means everybody")
    reviewers: list[Reviewers] | Reviewers | None = None
    message: str = ""
    hint: str | None = None

    @model_validator(mode="after")
    def _ask_names_reviewers(self) -> Self:
        if self._asks != (self.reviewers is not None):
            raise ValueError("`reviewers` goes with `decision: ask`, and only with it")
        if self.reviewers == []:
            raise ValueError("`reviewers` is empty, so nobody could answer")
        return self

    @property
    def _asks(self) -> bool:
        return self.decision == "ask"

    @property
    def requirement(self) -> Requirement:
        return _requirement(self.reviewers)

    @property
    def bound(self) -> Bound | None:
        return None

    @property
    def offers_shape(self) -> bool:
        """Whether reviewers may approve a statement's shape."""
        return False


class AccessRule(Rule):
    max_duration: Duration = timedelta(hours=8)
    pending_for: Duration = timedelta(hours=1)


class StatementRule(Rule):
    """Speaks of statements whose every effect (`effects`) or any effect (for a deny) is listed."""

    effects: list[Effect] = Field(default=[], description="empty means any effect")
    relations: list[RelationName] = Field(default=[], description="empty means any relation the role covers")
    verbs: list[Verb] = Field(default=[], description="first words of statements, like `DELETE` or `DROP TABLE`")
    functions: list[FunctionName] = Field(
        default=[],
        description="builtin ones by name. One of your own needs a rule that names it, and that rule speaks of nothing "
        "else: `schema.name(integer)`, `schema.name` for every overload, `schema.*` for those that are neither "
        "volatile nor SECURITY DEFINER; such a one is named, and passes only under `effects: [write]`. So do builtin "
        "ones that wait, lock, count or signal, like `pg_sleep`. `*.*` is all code of users': functions, operators, "
        "types, triggers, to run it (`read`, `write`) or to define it (`ddl`), and lets nothing pass for people for "
        "whom anything is masked on the resource",
    )
    missing_where: bool | None = Field(
        default=None,
        description="true: only where an UPDATE or DELETE, at any depth, has no WHERE that names a column; false: only "
        "where each has one",
    )
    copies: list[Direction] = Field(
        default=[],
        description="only COPY, `in` from the client or `out` to it; COPY FROM needs a rule that says `in`",
    )
    copy_limit: CopyLimit | None = Field(
        default=None,
        description="how far a COPY may go that this rule lets pass; the narrowest of all such rules counts",
    )
    max_estimated_rows: int | None = Field(
        default=None,
        ge=0,
        description="allowed while the upstream's planner expects no more rows to be changed or returned; a statement "
        "whose rows nobody can say is above it",
    )
    above: Literal["ask", "deny"] | None = Field(
        default=None, description="what becomes of a statement above `max_estimated_rows`; `ask` goes with `reviewers`"
    )
    when: Windows = Field(default=[], description="only in one of these parts of the week")
    max_rows: int | None = Field(
        default=None,
        ge=1,
        description="a change that touches more rows than this, triggers and cascades included, is rolled back",
    )
    rows_factor: float | None = Field(
        default=None,
        ge=1,
        allow_inf_nan=False,
        description="an approved change may touch so many times the rows that its card expected, up to `max_rows`",
    )

    shape: Literal["grant"] | None = Field(
        default=None,
        description="reviewers may approve a statement's shape too: until the grant ends, it then runs with other "
        "values and is not asked about again; where it could change data, `max_rows` bounds each run",
    )

    @model_validator(mode="after")
    def _shape_is_of_what_is_asked(self) -> Self:
        if self.shape is None:
            return self
        if self.decision != "ask":
            raise ValueError("`shape` goes with `decision: ask`")
        if self.max_rows is None and (not self.effects or Effect.WRITE in self.effects):
            # Nobody sees the values of later runs, and some may be of every row: the count is what is left.
            raise ValueError("`shape` of what may change data goes with `max_rows`")
        return self

    @property
    def offers_shape(self) -> bool:
        return self.shape is not None

    @model_validator(mode="after")
    def _bound_is_of_a_change(self) -> Self:
        if self.max_rows is not None and (
            self.decision == "deny" or (self.effects and Effect.WRITE not in self.effects)
        ):
            raise ValueError("`max_rows` goes with a rule that lets data be changed")
        if self.rows_factor is not None and (self.max_rows is None or self.decision != "ask"):
            # Where the planner expects nothing, only `max_rows` is left.
            raise ValueError("`rows_factor` goes with `decision: ask` and `max_rows`")
        return self

    @property
    def bound(self) -> Bound | None:
        return Bound(self.max_rows, self.rows_factor) if self.max_rows is not None else None

    @property
    def _asks(self) -> bool:
        return self.decision == "ask" or self.above == "ask"

    @model_validator(mode="after")
    def _estimates_what_it_allows(self) -> Self:
        if self.max_estimated_rows is not None and self.decision != "allow":
            raise ValueError("`max_estimated_rows` goes with `decision: allow`")
        if (self.above is None) != (self.max_estimated_rows is None):
            raise ValueError("`max_estimated_rows` and `above` go together")
        return self

    @property
    def own_functions(self) -> list[str]:
        """Names of functions that users defined."""
        return [name for name in self.functions if "." in name]

    @property
    def named_functions(self) -> list[str]:
        """Names of functions that pass only where a rule names them: users', and builtin ones that do more."""
        return [name for name in self.functions if "." in name or name in NAMED]

    @model_validator(mode="after")
    def _names_one_kind_of_function(self) -> Self:
        if self.decision != "deny" and 0 < len(self.named_functions) < len(self.functions):
            raise ValueError("builtin functions that only compute need a rule apart from your own and the others")
        return self

    @model_validator(mode="after")
    def _limits_what_it_lets_pass(self) -> Self:
        if self.copy_limit is not None and self.decision == "deny":
            raise ValueError("`copy_limit` goes with what lets a COPY pass, not with `decision: deny`")
        return self


DocumentPath = Annotated[str, StringConstraints(pattern=r"^[^.*]+(\.[^.*]+){0,7}(\.\*)?$")]
"""Keys from the top of a document, with dots between them; `.*` at the end is everything below. Elements of arrays have
no path, so no key is a number."""


SEARCHES_PER_HOUR = 10


class MaskSpec(Strict):
    mask: MaskKind
    tail: int = Field(default=4, ge=1, le=8)
    value: str = Field(default="", max_length=200)
    show: list[DocumentPath] = Field(
        default=[],
        max_length=40,
        description="with `keys`, of a jsonb document: the paths whose values are shown, as in `address.city`; what "
        "else it has is hidden; `address.*` shows all below address",
    )
    reveal: Literal["ask"] | None = Field(
        default=None, description="airlock.reveal(field) in a SELECT asks reviewers to let it come in clear, once"
    )
    reviewers: list[Reviewers] | Reviewers | None = None
    search: Literal["equality"] | None = Field(
        default=None, description="`WHERE field = value` in a plain SELECT compares the clear value"
    )
    searches_per_hour: int | None = Field(
        default=None, ge=1, le=1000, description=f"how often under one grant; {SEARCHES_PER_HOUR} where it is not said"
    )

    @model_validator(mode="after")
    def _rate_is_of_a_search(self) -> Self:
        if self.searches_per_hour is not None and self.search is None:
            raise ValueError("`searches_per_hour` goes with `search: equality`")
        return self

    @model_validator(mode="after")
    def _reveal_names_reviewers(self) -> Self:
        if (self.reveal is None) != (self.reviewers is None) or self.reviewers == []:
            raise ValueError("`reviewers` goes with `reveal: ask`, and only with it")
        return self

    @model_validator(mode="after")
    def _paths_are_of_a_document(self) -> Self:
        if bool(self.show) != (self.mask is MaskKind.KEYS):
            raise ValueError("`show` goes with `mask: keys`, and only with it")
        paths = sorted(path.removesuffix(".*").split(".") for path in self.show)
        if numbers := [key for path in paths for key in path if key.removeprefix("-").isdecimal()]:
            raise ValueError(f"`{numbers[0]}` is a number, and elements of arrays have no path")
        for path, after in pairwise(paths):
            if after[: len(path)] == path:
                raise ValueError(f"`{'.'.join(path)}` is shown twice")
        return self

    def made(self) -> Mask:
        return Mask(self.mask, self.tail, self.value, tuple(self.show))


class FieldRule(Strict):
    """A whitelist of one relation's fields for some groups."""

    id: Name
    resource: Name
    relation: FieldsOf
    groups: list[Name] = Field(default=[], description="whom it speaks of; empty means everybody")
    clear: list[str] = []
    masks: dict[
        str, Annotated[MaskSpec, BeforeValidator(_mask, json_schema_input_type=MaskKind | MaskSpec | None)]
    ] = {}
    others: Annotated[MaskKind | Literal["clear"], BeforeValidator(_mask_name)] = MaskKind.HIDE
    rows: Literal["masked", "clear"] = Field(
        default="masked",
        description="of a view or a partitioned table: whether it may be read although masked fields decide which rows "
        "it shows, or in which order",
    )

    @model_validator(mode="after")
    def _field_is_classified_once(self) -> Self:
        if both := sorted(set(self.clear) & set(self.masks)):
            raise ValueError(f"`{both[0]}` is both clear and masked")
        if self.others is MaskKind.KEYS:
            raise ValueError("`keys` is for a field that is named")
        return self

    def mask_of(self, field: str) -> Mask:
        return self.masks[field].made()

    def searching(self, field: str) -> int | None:
        """Return how often an hour a field that it masks may be compared in clear; None where it never is."""
        spec = self.masks.get(field)
        if not isinstance(spec, MaskSpec) or spec.search is None:
            return None
        return spec.searches_per_hour or SEARCHES_PER_HOUR

    def revealing(self, field: str) -> Requirement | None:
        """Return what policy demands before a field that it masks comes in clear; None where it never does."""
        spec = self.masks.get(field)
        return _requirement(spec.reviewers) if spec is not None and spec.reveal is not None else None


class Policy(Strict):
    """Everything the policy files say, as one value."""

    resources: dict[Name, Resource] = {}
    people: dict[Handle, Person] = {}
    groups: dict[Name, str] = {}
    access: list[AccessRule] = []
    statements: list[StatementRule] = []
    fields: list[FieldRule] = []

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, so that comments and layout do not count."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def person_by_slack(self, slack_id: str) -> str | None:
        """Return the handle bound to a Slack id; None is nobody we know (fail closed at the caller)."""
        return next((handle for handle, person in self.people.items() if person.slack == slack_id), None)

    def groups_of(self, handle: str) -> frozenset[str]:
        """Return the groups of an active person; nobody else is in any."""
        person = self.people.get(handle)
        return frozenset(person.groups) if person and person.active else frozenset()

    def members(self, groups: tuple[str, ...] | list[str]) -> list[str]:
        """Return the active people in any of the groups, in file order."""
        wanted = set(groups)
        return [handle for handle, person in self.people.items() if person.active and wanted & set(person.groups)]
