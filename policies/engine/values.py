"""The values that policy files are made of, read strictly: names, references, durations, who must agree."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

from policies.engine.conditions import Window
from policies.engine.decisions import Need, Requirement
from policies.engine.durations import format_duration, parse_duration


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    return parse_duration(str(value))


def _windows(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def inside_secrets(value: str) -> str:
    """Refuse a reference that leaves the secrets folder."""
    kind, _, name = value.partition(":")
    if kind == "file" and (name.startswith("/") or {"", ".", ".."} & set(name.split("/"))):
        raise ValueError(f"`{value}` would leave the secrets folder: name a file in it")
    return value


_NAME, _HANDLE = r"^[a-z][a-z0-9_-]{0,62}$", r"^[a-z][a-z0-9_-]{0,31}$"
_RELATION, _FIELDS_OF = r"^([^.\s*]+\.([^.\s*]+|\*)|\*\.\*)$", r"^[^.\s*]+\.([^.\s*]+|\*)$"
_REFERENCE = r"^(env|file):[A-Za-z0-9_./-]+$"
SHAPES = {
    _NAME: "should begin with a small letter, and go on with small letters, digits, `_` and `-`, 63 at most",
    _HANDLE: "should begin with a small letter, and go on with small letters, digits, `_` and `-`, 32 at most",
    _RELATION: "should be `schema.relation`, `schema.*` or `*.*`",
    _FIELDS_OF: "should be `schema.relation`",
    _REFERENCE: "should be `file:NAME`, a file in the secrets folder, or `env:NAME`, an environment variable",
}
"""What a text that fits a pattern looks like, in words."""
Name = Annotated[str, StringConstraints(pattern=_NAME)]
Handle = Annotated[str, StringConstraints(pattern=_HANDLE)]
RelationName = Annotated[str, StringConstraints(pattern=_RELATION)]
"""`schema.relation`, `schema.*`, `*.*`; a star elsewhere would name nothing, and a rule with it would say nothing."""
FieldsOf = Annotated[str, StringConstraints(pattern=_FIELDS_OF)]
Reference = Annotated[str, StringConstraints(pattern=_REFERENCE), AfterValidator(inside_secrets)]
Windows = Annotated[list[Window], BeforeValidator(_windows, json_schema_input_type=Window | list[Window])]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reviewers(Strict):
    """How many reviewers, from any of the groups."""

    count: int = Field(default=1, ge=1, le=10)
    groups: list[Name] = Field(min_length=1)


def requirement_of(reviewers: list[Reviewers] | Reviewers | None) -> Requirement:
    """Return what policy demands of reviewers, in stages."""
    stages = reviewers if isinstance(reviewers, list) else [reviewers] if reviewers else []
    return Requirement(tuple(Need(stage.count, tuple(stage.groups)) for stage in stages))
