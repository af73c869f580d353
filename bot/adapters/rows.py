"""Turns rows into the values of `bot.model`, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import Row

from bot.model import Exhibit, Given, Grant, Hold, Request, Shape, Shown
from policies.engine.decisions import Need, Requirement
from workflows.grants import GrantState
from workflows.holds import HoldState
from workflows.orders import Evidence
from workflows.requests import RequestState
from workflows.reviews import Answer
from workflows.shapes import ShapeState
from workflows.terms import Terms


def request_from(row: Row[Any]) -> Request:
    """Read a request."""
    values = _known(row, Request)
    return Request(
        **{
            **values,
            "state": RequestState(values["state"]),
            "requirement": _requirement(values["requirement"]),
            "rules": tuple(values["rules"]),
            "evidence": Evidence.model_validate(values["evidence"]),
            "narrowed": _terms(values["narrowed"]),
        }
    )


def review_from(row: Row[Any]) -> Given:
    """Read a review."""
    values = _known(row, Given)
    evidence = Evidence.model_validate(values["evidence"])
    terms = _terms(values.get("terms"))
    return Given(**{**values, "answer": Answer(values["answer"]), "evidence": evidence, "terms": terms})


def grant_from(row: Row[Any]) -> Grant:
    """Read a grant."""
    values = _known(row, Grant)
    return Grant(**{**values, "state": GrantState(values["state"]), "masked": tuple(values["masked"])})


def hold_from(row: Row[Any]) -> Hold:
    """Read a hold."""
    values = _known(row, Hold)
    lists = {key: tuple(values[key]) for key in ("rules", "effects", "relations", "people")}
    return Hold(
        **{
            **values,
            **lists,
            "state": HoldState(values["state"]),
            "requirement": _requirement(values["requirement"]),
            "exhibit": Exhibit(values["exhibit"]),
            "answered": HoldState(values["answered"]) if values["answered"] else None,
        }
    )


def shape_from(row: Row[Any]) -> Shape:
    """Read an approved shape."""
    values = _known(row, Shape)
    return Shape(**{**values, "people": tuple(values["people"]), "state": ShapeState(values["state"])})


def _terms(stored: dict[str, Any] | None) -> Terms | None:
    return Terms(stored["role"], stored["seconds"]) if stored else None


def _requirement(stored: list[dict[str, Any]]) -> Requirement:
    return Requirement(tuple(Need(need["count"], tuple(need["groups"])) for need in stored))


def shown_from(row: Row[Any]) -> Shown:
    """Read a message."""
    return Shown(**_known(row, Shown))


def stored(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as columns hold them."""
    return {key: _stored(value) for key, value in values.items()}


def columns_of(value: Request | Given | Grant | Hold | Shape) -> dict[str, Any]:
    """Return a value's fields as columns hold them."""
    return stored({field.name: getattr(value, field.name) for field in fields(value)})


def _stored(value: Any) -> Any:
    match value:
        case Requirement():
            return [need.facts() for need in value.needs]
        case Terms():
            return {"role": value.role, "seconds": value.seconds}
        case Evidence():
            return value.model_dump(mode="json")
        case RequestState() | GrantState() | HoldState() | Exhibit() | Answer() | ShapeState():
            return value.value
        case tuple():
            return list(value)
        case _:
            return value


def _known(row: Row[Any], kind: type) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {key: value for key, value in row._mapping.items() if key in names}
