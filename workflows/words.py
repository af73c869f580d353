"""Words that every process says alike."""

from collections.abc import Sequence


def series(words: Sequence[str], joint: str = "and") -> str:
    """Return `Ann, Bob and Dana`."""
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def counted(number: int, noun: str) -> str:
    """Return `1 session`, `2 sessions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
