"""The strict models behind the policy files; unknown keys are errors."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from policies.engine.decisions import covered
from policies.engine.fieldrules import FieldRule
from policies.engine.rules import AccessRule, StatementRule
from policies.engine.values import Duration, Handle, Name, Reference, RelationName, Strict, inside_secrets


class Upstream(Strict):
    """Where a resource is; `host` and `port` may be references like `env:PGPORT`."""

    host: Annotated[str, AfterValidator(inside_secrets)]
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
        description="where anything is masked, a statement checks by itself, as it runs, that the columns of what it "
        "reads and changes are what they were when it was decided, and fails otherwise; without it a change is noticed "
        "within a second",
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
    groups: list[Name] = Field(default=[])
    active: bool = True


class Policy(Strict):
    """Everything the policy files say, as one value."""

    resources: dict[Name, Resource] = Field(default={})
    people: dict[Handle, Person] = Field(default={})
    groups: dict[Name, str] = Field(default={})
    access: list[AccessRule] = Field(default=[])
    statements: list[StatementRule] = Field(default=[])
    fields: list[FieldRule] = Field(default=[])

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
