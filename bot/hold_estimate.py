"""What the upstream says of a held statement, in words: how large, how many rows, which locks wait with it."""

from __future__ import annotations

from bot.text import clip, one_line
from workflows.wire import EstimateView, HoldView, SizedRelation

SIZES_SHOWN = 6
LOCKS_SHOWN = 6
REACHED_SHOWN = 8
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def sizes_words(estimate: EstimateView) -> str:
    """Say how large the relations are, one on a line."""
    rows = [_sized(one) for one in estimate.relations[:SIZES_SHOWN]]
    left = len(estimate.relations) - len(rows)
    return "\n".join([*rows, f"and {left} more"] if left else rows)


def _sized(one: SizedRelation) -> str:
    parts = []
    if one.rows is not None:
        parts.append(f"about {rows_words(one.rows)}")
    if one.bytes is not None:
        parts.append(size_words(one.bytes))
    return f"{one_line(one.name, 80)}: {', '.join(parts) or 'its size is not known'}"


def expected_words(view: HoldView) -> str:
    """Say how many rows the planner expects the statement to change, or to return; or why it does not say."""
    estimate = view.estimate
    if estimate is None:
        return "no estimate yet"
    if estimate.rows is None:
        return f"no estimate: {one_line(estimate.why, 200) or 'the database gives none'}"
    verb = "change" if "write" in view.effects else "return"
    return f"it would {verb} about {rows_words(estimate.rows)}, the planner expects"


def listed_words(lines: list[str]) -> str:
    """List what else a statement would change or run, one on a line."""
    left = len(lines) - REACHED_SHOWN
    shown = [one_line(line, 160) for line in lines[:REACHED_SHOWN]]
    return "\n".join([*shown, f"and {left} more"] if left > 0 else shown)


def bound_words(most: int, view: HoldView) -> str:
    """Say how many rows an approval is good for, and where that is less than the planner expects."""
    said = f"at most {rows_words(most)}, triggers and cascades included: above that it is rolled back"
    rows = view.estimate.rows if view.estimate is not None else None
    return (
        f"{said}. The planner expects more, so an approval would most likely be in vain" if (rows or 0) > most else said
    )


def has_locks(view: HoldView) -> bool:
    """Say whether a statement's transaction may keep others waiting; one that has only begun has locked nothing."""
    known = view.estimate.locks if view.estimate is not None else None
    return view.in_transaction and (known is None or bool(known))


def locks_words(view: HoldView) -> str:
    """Say what a statement's open transaction keeps locked; empty where nothing is known of it."""
    locks = view.estimate.locks if view.estimate is not None else None
    if not locks:
        return ""
    named = [one_line(lock, 120) for lock in locks[:LOCKS_SHOWN]]
    left = len(locks) - len(named)
    return clip(", ".join([*named, f"{left} more"] if left else named), 500)


def rows_words(rows: int) -> str:
    """Write a count of rows."""
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def size_words(count: int) -> str:
    """Write a count of bytes as people do."""
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 10 else f"{size:.1f} {_UNITS[unit]}"
