"""What a key that is unknown where it stands may have been meant to be: another one, or the same one elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from policies.engine.model import Policy

_ANY = "NAME"
_PLACES = 3
Steps = tuple[str, ...]


def unknown_key(path: Sequence[str | int]) -> str:
    """Say that a key is unknown, what else it could be, and where it would be known."""
    *above, last = (part for part in path if isinstance(part, str))
    here = {key for steps, keys in _known() if _fits(steps, above) for key in keys}
    if near := get_close_matches(last, sorted(here - {last}), 1, 0.7):
        return f"unknown key, did you mean `{near[0]}`?"
    everywhere = sorted({key for _, keys in _known() for key in keys})
    if last in here or not (near := get_close_matches(last, everywhere, 1, 0.7)):
        return "unknown key"
    places = list(dict.fromkeys(".".join((*steps, near[0])) for steps, keys in _known() if near[0] in keys))
    listed = " or ".join(f"`{place}`" for place in places[:_PLACES])
    return f"unknown key here; there is {listed}{' and others' if len(places) > _PLACES else ''}"


@cache
def _known() -> tuple[tuple[Steps, frozenset[str]], ...]:
    """Give the keys that are known, by where they stand; `NAME` is any name."""
    return tuple(_inside(Policy, ()))


def _inside(model: type[BaseModel], steps: Steps) -> Iterator[tuple[Steps, frozenset[str]]]:
    yield steps, frozenset(model.model_fields)
    for name, field in model.model_fields.items():
        for more, inner in _models(field.annotation):
            yield from _inside(inner, (*steps, name, *more))


def _models(annotation: Any) -> Iterator[tuple[Steps, type[BaseModel]]]:
    """Give the models that a type is made of, each with the steps down to it; the items of a list are no step."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield (), annotation
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    elif get_origin(annotation) is dict:
        for more, inner in _models(get_args(annotation)[1]):
            yield (_ANY, *more), inner
    else:
        for part in get_args(annotation):
            yield from _models(part)


def _fits(steps: Steps, path: Sequence[str]) -> bool:
    return len(steps) == len(path) and all(step in (_ANY, part) for step, part in zip(steps, path, strict=True))
