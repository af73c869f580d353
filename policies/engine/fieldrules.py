"""Field rules: which fields of a relation come in clear, and how the others are masked."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from policies.engine.decisions import Mask, MaskKind, Requirement
from policies.engine.values import FieldsOf, Name, Reviewers, Strict, requirement_of

DocumentPath = Annotated[str, StringConstraints(pattern=r"^[^.*]+(\.[^.*]+){0,7}(\.\*)?$")]
"""Keys from the top of a document, with dots between them; `.*` at the end is everything below. Elements of arrays have
no path, so no key is a number."""


SEARCHES_PER_HOUR = 10


def _mask_name(value: Any) -> Any:
    # YAML reads a bare `null` as nothing, and here it is the name of a mask.
    return MaskKind.NULL if value is None else value


def _mask(value: Any) -> Any:
    return value if isinstance(value, dict | MaskSpec) else {"mask": _mask_name(value)}


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
    clear: list[str] = Field(default=[])
    masks: dict[str, Annotated[MaskSpec, BeforeValidator(_mask, json_schema_input_type=MaskKind | MaskSpec | None)]] = (
        Field(default={})
    )
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
        return requirement_of(spec.reviewers) if spec is not None and spec.reveal is not None else None
