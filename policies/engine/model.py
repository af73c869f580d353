"""The strict models behind the policy files; unknown keys are errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints, model_validator

from policies.engine.decisions import Effect, Mask, MaskKind, Need, Requirement
from policies.engine.durations import format_duration, parse_duration

COMMAND_WORDS = frozenset({"list", "status", "revoke", "help", "task"})
"""Words after `/access` that are commands, so no resource may be called so."""


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    return parse_duration(str(value))


def _mask_name(value: Any) -> Any:
    # YAML reads a bare `null` as nothing, and here it is the name of a mask.
    return MaskKind.NULL if value is None else value


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Handle = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
RelationName = Annotated[str, StringConstraints(pattern=r"^[^.\s*]+\.([^.\s*]+|\*)$")]
"""`schema.relation`, or `schema.*`; a star elsewhere would name nothing, and a rule with it would say nothing."""
FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")]
"""As statements are compared: a function's own name in lower case, without its schema."""
Reference = Annotated[str, StringConstraints(pattern=r"^(env|file):[A-Za-z0-9_./-]+$")]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Upstream(Strict):
    """Where a resource is; `host` and `port` may be references like `env:PGPORT`."""

    host: str
    port: int | Reference
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

    def covers(self, relation: str) -> bool:
        """Say whether the role's list has a relation; `schema.*` covers a schema."""
        return relation in self.relations or f"{relation.split('.', 1)[0]}.*" in self.relations


class Resource(Strict):
    protocol: Name
    description: str = ""
    upstream: Upstream
    search_path: list[Name] = Field(default=["public"], min_length=1)
    show: Literal["full", "redacted"] = Field(
        default="full",
        description="cards show held statements whole; or without their literals, and only who may answer opens them",
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
        if (self.decision == "ask") != (self.reviewers is not None):
            raise ValueError("`reviewers` goes with `decision: ask`, and only with it")
        if self.reviewers == []:
            raise ValueError("`reviewers` is empty, so nobody could answer")
        return self

    @property
    def requirement(self) -> Requirement:
        stages = self.reviewers if isinstance(self.reviewers, list) else [self.reviewers] if self.reviewers else []
        return Requirement(tuple(Need(stage.count, tuple(stage.groups)) for stage in stages))


class AccessRule(Rule):
    max_duration: Duration = timedelta(hours=8)
    pending_for: Duration = timedelta(hours=1)


class StatementRule(Rule):
    """Speaks of statements whose every effect (`effects`) or any effect (for a deny) is listed."""

    effects: list[Effect] = Field(default=[], description="empty means any effect")
    relations: list[RelationName] = Field(default=[], description="empty means any relation the role covers")
    verbs: list[str] = []
    functions: list[FunctionName] = []


class MaskSpec(Strict):
    mask: MaskKind
    tail: int = Field(default=4, ge=1, le=8)
    value: str = Field(default="", max_length=200)

    def made(self) -> Mask:
        return Mask(self.mask, self.tail, self.value)


class FieldRule(Strict):
    """A whitelist of one relation's fields for some groups."""

    id: Name
    resource: Name
    relation: RelationName
    groups: list[Name] = Field(default=[], description="whom it speaks of; empty means everybody")
    clear: list[str] = []
    masks: dict[str, Annotated[MaskKind | MaskSpec, BeforeValidator(_mask_name)]] = {}
    others: Annotated[MaskKind | Literal["clear"], BeforeValidator(_mask_name)] = MaskKind.HIDE

    @model_validator(mode="after")
    def _field_is_classified_once(self) -> Self:
        if both := sorted(set(self.clear) & set(self.masks)):
            raise ValueError(f"`{both[0]}` is both clear and masked")
        return self

    def mask_of(self, field: str) -> Mask:
        spec = self.masks[field]
        return spec.made() if isinstance(spec, MaskSpec) else Mask(spec)


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


def problems(policy: Policy) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what strict types cannot see, each with its path: names that refer to nothing, clashes."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    for name in policy.resources:
        if name in COMMAND_WORDS:
            found.append((("resources", name), f"`{name}` is a word of the /access command"))
        found += [(("resources", name, *path), text) for path, text in _role_problems(policy.resources[name])]
    slack_ids: dict[str, str] = {}
    for handle, person in policy.people.items():
        found += [(("people", handle, "groups"), f"no group `{g}`") for g in person.groups if g not in policy.groups]
        if person.slack and slack_ids.setdefault(person.slack, handle) != handle:
            found.append(
                (("people", handle, "slack"), f"`{person.slack}` already belongs to `{slack_ids[person.slack]}`")
            )
    ids: set[str] = set()
    sections: tuple[tuple[str, list[AccessRule] | list[StatementRule]], ...] = (
        ("access", policy.access),
        ("statements", policy.statements),
    )
    for section, rules in sections:
        for index, rule in enumerate(rules):
            found += [((section, index, key), text) for key, text in _rule_problems(policy, rule)]
            found += _repeated(ids, rule.id, (section, index, "id"))
    for index, field_rule in enumerate(policy.fields):
        found += _repeated(ids, field_rule.id, ("fields", index, "id"))
        if field_rule.relation.endswith(".*"):
            text = "the fields of one relation are classified at a time: name it, without a star"
            found.append((("fields", index, "relation"), text))
        if field_rule.resource not in policy.resources:
            found.append((("fields", index, "resource"), f"no resource `{field_rule.resource}`"))
        found += [(("fields", index, "groups"), f"no group `{g}`") for g in field_rule.groups if g not in policy.groups]
    return found


def warnings(policy: Policy) -> list[str]:
    """Return what is legal and worth a second look."""
    found = [
        f"fields `{rule.id}`: `others: clear` shows every new column of {rule.relation} to "
        f"{', '.join(rule.groups) or 'everybody'}"
        for rule in policy.fields
        if rule.others == "clear"
    ]
    if "slack" in policy.resources:
        found.append("resource `slack`: `airlock doctor slack` examines the Slack app, never this resource")
    for rule in (*policy.access, *policy.statements):
        found += [
            f"rule `{rule.id}`: needs {need}, of whom there are {len(policy.members(need.groups))}: too few where "
            "one of them asks or is away"
            for need in rule.requirement.needs
            if len(policy.members(need.groups)) < need.count + 1
        ]
    return found


def _repeated(ids: set[str], rule: str, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], str]]:
    if rule in ids:
        return [(path, f"rule id `{rule}` is used twice")]
    ids.add(rule)
    return []


def _role_problems(resource: Resource) -> Iterator[tuple[tuple[str, str, str], str]]:
    for name, role in resource.roles.items():
        for lower in role.above:
            if lower not in resource.roles:
                yield ("roles", name, "above"), f"no role `{lower}` on this resource"
        if name in resource.below(name):
            yield ("roles", name, "above"), f"`{name}` would be lower than itself"


def _rule_problems(policy: Policy, rule: Rule) -> list[tuple[str, str]]:
    found = [("resources", f"no resource `{name}`") for name in rule.resources if name not in policy.resources]
    known = {role for name in rule.resources or policy.resources for role in _roles(policy, name)}
    found += [("roles", f"no role `{name}` on these resources") for name in rule.roles if name not in known]
    groups = {*rule.groups, *(group for need in rule.requirement.needs for group in need.groups)}
    found += [("groups", f"no group `{name}`") for name in sorted(groups) if name not in policy.groups]
    return found


def _roles(policy: Policy, resource: str) -> set[str]:
    found = policy.resources.get(resource)
    return set(found.roles) if found else set()
