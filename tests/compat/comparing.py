"""What differs between two runs of a suite, held against the list of what is known to."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

Outcomes = dict[str, tuple[str, str]]
"""Test -> (passed, failed or skipped; the last line of its error)."""
_MISSING = ("missing", "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tests whose outcomes differ and are on no list; patterns of the list that no longer say what is so."""

    differing: dict[str, str]
    """Test -> the reason on the list, or nothing."""
    gone: tuple[str, ...]

    @property
    def unlisted(self) -> list[str]:
        return [test for test, reason in self.differing.items() if not reason]

    @property
    def good(self) -> bool:
        """Whether what differs is what is listed, no more and no less."""
        return not self.unlisted and not self.gone


def compare(
    plain: Outcomes, broker: Outcomes, known: Mapping[str, list[str]], unsteady: Container[str] = ()
) -> Comparison:
    """Hold two runs against the list (reason -> patterns of tests): every test that a pattern names has to differ.

    An unsteady test fares now so, now so through one and the same door, and is not compared.
    """
    listed = {pattern: reason for reason, patterns in known.items() for pattern in patterns}
    differing: dict[str, str] = {}
    alike: list[str] = []
    for test in sorted({*plain, *broker}):
        if test in unsteady:
            continue
        if plain.get(test, _MISSING)[0] == broker.get(test, _MISSING)[0]:
            alike.append(test)
        else:
            differing[test] = next((listed[one] for one in listed if fnmatchcase(test, one)), "")
    gone = [
        pattern
        for pattern in listed
        if any(fnmatchcase(test, pattern) for test in alike)
        or not any(fnmatchcase(test, pattern) for test in differing)
    ]
    return Comparison(differing, tuple(gone))
