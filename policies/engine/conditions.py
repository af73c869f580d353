"""What statement rules may ask of a statement beside its effects: its verb, its moment, which way and how far it goes.

Pure: the moment is passed in; only the names of time zones are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
_DAY = f"(?:{'|'.join(DAYS)})"
_MINUTES = 24 * 60

_OF_TWO_WORDS = frozenset({"ALTER", "CLOSE", "COMMENT", "CREATE", "DROP", "LOCK"})
_VERBS = frozenset(
    """
    ABORT ALTER ANALYZE BEGIN CALL CHECKPOINT CLOSE CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE DECLARE DELETE DISCARD
    DO DROP END EXECUTE EXPLAIN FETCH GRANT IMPORT INSERT LISTEN LOAD LOCK MERGE MOVE NOTIFY PREPARE REASSIGN REFRESH
    REINDEX RELEASE RESET REVOKE ROLLBACK SAVEPOINT SECURITY SELECT SET SHOW START TRUNCATE UNLISTEN UPDATE VACUUM
    """.split()
)
_OBJECTS = frozenset(
    """
    ACCESS AGGREGATE ALL CAST COLLATION COLUMN CONSTRAINT CONVERSION DATABASE DEFAULT DOMAIN EVENT EXTENSION FOREIGN
    FUNCTION GROUP INDEX LANGUAGE LARGE MATERIALIZED ON OPERATOR OWNED POLICY PROCEDURE PUBLICATION ROLE ROUTINE RULE
    SCHEMA SEQUENCE SERVER STATISTICS SUBSCRIPTION SYSTEM TABLE TABLESPACE TEXT TRANSFORM TRIGGER TYPE USER VIEW
    """.split()
)


def _verb(value: str) -> str:
    words = value.upper().split()
    known = bool(words) and words[0] in _VERBS
    if known and len(words) > 1:
        known = words[0] in _OF_TWO_WORDS and words[1] in _OBJECTS
    if not known:
        near = get_close_matches(" ".join(words[:1]), _VERBS, 1, 0.6)
        raise ValueError(f"no statement begins with `{value}`{f', did you mean `{near[0]}`?' if near else ''}")
    return " ".join(words)


def same_verb(listed: str, verb: str) -> bool:
    """Say whether a listed verb is a statement's, or its first word."""
    return bool(verb) and all(a == b for a, b in zip(listed.split(), verb.upper().split(), strict=False))


def _days(value: Any) -> Any:
    """Read `mon-fri` as its days."""
    found: list[Any] = []
    for each in value if isinstance(value, list) else [value]:
        ends = re.fullmatch(rf"({_DAY})-({_DAY})", str(each))
        if ends is None:
            found.append(each)
            continue
        first, last = (DAYS.index(day) for day in ends.groups())
        found += [DAYS[at % 7] for at in range(first, last + 1 if last >= first else last + 8)]
    return found


def _hours(value: str) -> str:
    begin, end = _ends(value)
    if begin == end or begin >= _MINUTES or end > _MINUTES:
        raise ValueError(f"`{value}` are no hours of a day: write them like `09:00-18:00`")
    return value


def _ends(hours: str) -> tuple[int, int]:
    begin, end = ((int(text[:2]), int(text[3:])) for text in hours.split("-"))
    return begin[0] * 60 + begin[1], end[0] * 60 + end[1]


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"no time zone `{value}`: write one like `Europe/Berlin` or `UTC`") from None
    return value


Verb = Annotated[str, AfterValidator(_verb)]
Direction = Literal["in", "out"]
_Days = Annotated[str, StringConstraints(pattern=rf"^{_DAY}(-{_DAY})?$")]


class Window(BaseModel):
    """A part of the week, by the wall clock of a zone; hours past midnight belong to the day that they begin on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: Annotated[str, AfterValidator(_zone)]
    days: Annotated[list[Day], BeforeValidator(_days, json_schema_input_type=_Days | list[_Days])] = Field(
        default=list(DAYS), min_length=1, description="like `mon-fri`, or a list; every day where it is left out"
    )
    hours: Annotated[str, AfterValidator(_hours)] = Field(
        default="00:00-24:00",
        pattern=r"^\d\d:[0-5]\d-\d\d:[0-5]\d$",
        description="like `09:00-18:00`, or `22:00-06:00`",
    )

    def holds(self, moment: datetime) -> bool:
        """Say whether a moment lies in it."""
        local = moment.astimezone(ZoneInfo(self.zone))
        minute, today = local.hour * 60 + local.minute, local.weekday()
        begin, end = _ends(self.hours)
        if begin < end:
            return begin <= minute < end and DAYS[today] in self.days
        return (minute >= begin and DAYS[today] in self.days) or (minute < end and DAYS[today - 1] in self.days)

    def __str__(self) -> str:
        days = "every day" if len(set(self.days)) == 7 else ", ".join(self.days)
        return f"{days} {self.hours} {self.zone}"


def holds(windows: Sequence[Window], moment: datetime | None, *, unknown: bool) -> bool:
    """Say whether a moment is in any window, or there is none; `unknown` is the answer where no moment is known."""
    if not windows:
        return True
    return unknown if moment is None else any(window.holds(moment) for window in windows)
