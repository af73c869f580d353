"""Access and statement rules: who may have a role for how long, and which statements may run under it."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from policies.engine.builtins import NAMED
from policies.engine.conditions import CopyLimit, Direction, FunctionName, SettingName, Verb
from policies.engine.decisions import Bound, Effect, Requirement
from policies.engine.values import Duration, Name, RelationName, Reviewers, Strict, Windows, requirement_of


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
        return requirement_of(self.reviewers)

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
        "volatile nor SECURITY DEFINER, nor in C by an extension that is not known; what is volatile or SECURITY "
        "DEFINER passes only under `effects: [write]`. Builtin ones that wait, lock, count or signal are named too, "
        "like `pg_sleep`; what extensions that are known bring to compute with need not be. `*.*` is all code of "
        "users': functions, operators, types, triggers, to run it (`read`, `write`) or to define it (`ddl`), and lets "
        "nothing pass for people for whom anything is masked on the resource",
    )
    settings: list[SettingName] = Field(
        default=[],
        description="settings of an application's own, like `app.user_id`, or `app.*`: they may be set and shown where "
        "a rule names them, which speaks of nothing else; row security and functions may go by them",
    )
    missing_where: bool | None = Field(
        default=None,
        description="true: only where an UPDATE or DELETE, at any depth, has no WHERE that names a column of the "
        "table that it changes; false: only where each has one",
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

    @property
    def general(self) -> bool:
        """Whether it speaks of what statements do, and not of what passes only where a rule names it."""
        return not (self.named_functions or self.settings)

    @model_validator(mode="after")
    def _settings_are_of_sessions(self) -> Self:
        if self.settings and self.effects and Effect.SESSION not in self.effects:
            raise ValueError("`settings` goes with `effects: [session]`")
        if self.settings and self.functions:
            raise ValueError("`settings` needs a rule apart from `functions`")
        return self

    @model_validator(mode="after")
    def _limits_what_it_lets_pass(self) -> Self:
        if self.copy_limit is not None and self.decision == "deny":
            raise ValueError("`copy_limit` goes with what lets a COPY pass, not with `decision: deny`")
        return self
