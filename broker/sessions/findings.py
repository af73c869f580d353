"""What an examination of a resource finds, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    GOOD = "good"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """A layer less: what Airlock promises does not rest on it alone."""
    PROBLEM = "problem"
    """Something does not work, or the role can do what it must not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`mend` are lines to run, or to change in a policy file."""

    grade: Grade
    text: str
    mend: tuple[str, ...] = ()


def good(text: str) -> Finding:
    return Finding(Grade.GOOD, text)


def note(text: str) -> Finding:
    return Finding(Grade.NOTE, text)


def warning(text: str, *mend: str) -> Finding:
    return Finding(Grade.WARNING, text, mend)


def problem(text: str, *mend: str) -> Finding:
    return Finding(Grade.PROBLEM, text, mend)
