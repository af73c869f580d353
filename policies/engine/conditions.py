"""What statement rules may ask of a statement beside its effects: its verb, its moment, which way and how far it goes.

Pure: the moment is passed in; only the names of time zones are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from policies.engine.decisions import OwnFunction, StatementFacts, covered

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
_DAY = f"(?:{'|'.join(DAYS)})"
_MINUTES = 24 * 60
_SIZES = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}

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
_ROUTINES = ("FUNCTION", "PROCEDURE", "AGGREGATE")
"""What ROUTINE may stand for."""


BY_VERB: dict[str, tuple[str, str]] = {
    "DO": ("DO runs code that cannot be inspected", "run its statements one by one"),
    "LISTEN": ("LISTEN receives data that no rule has seen", "query the tables instead"),
    "LOCK": ("LOCK holds up everybody else", "a change locks the rows that it needs by itself"),
    "NOTIFY": ("NOTIFY sends data out of the session", "send it from the application"),
    "TRUNCATE": ("TRUNCATE empties whole tables at once", "use DELETE with a WHERE"),
}
"""What passes only under a rule that names its verb: why it is denied otherwise, and what to do instead."""


def _verb(value: str) -> str:
    words = value.upper().split()
    known = bool(words) and words[0] in _VERBS
    if known and len(words) > 1:
        known = words[0] in _OF_TWO_WORDS and words[1] in _OBJECTS
    if not known:
        near = get_close_matches(" ".join(words[:1]), _VERBS, 1, 0.6)
        raise ValueError(f"no statement begins with `{value}`{f', did you mean `{near[0]}`?' if near else ''}")
    return " ".join(words)


def said_of_verb(verb: str) -> tuple[str, str] | None:
    """Return why a statement of this verb needs a rule that names it, or None where it does not."""
    return BY_VERB.get(verb.upper().partition(" ")[0])


def same_verb(listed: str, verb: str) -> bool:
    """Say whether a listed verb is a statement's, or its first word."""
    words = zip(listed.split(), verb.upper().split(), strict=False)
    return bool(verb) and all(a == b or (a == "ROUTINE" and b in _ROUTINES) for a, b in words)


def every_verb(verb: str, does: Iterable[str]) -> tuple[str, ...]:
    """Return what a statement may do: its own verb, with ROUTINE for each kind of one, and what is in it."""
    first, _, about = verb.upper().partition(" ")
    return (*(f"{first} {kind}" for kind in _ROUTINES), *does) if about == "ROUTINE" else (verb, *does)


def followed(verbs: Sequence[str], relations: Sequence[str], facts: StatementFacts) -> frozenset[str]:
    """Return those of a rule's verbs by which foreign keys change the relations that it is about."""
    follows = (one.partition(" ") for one in facts.follows)
    found = {verb for verb, _, name in follows if relations and covered(relations, name)}
    return frozenset(verb for verb in found if any(same_verb(listed, verb) for listed in verbs))


def of_verbs(verbs: Sequence[str], relations: Sequence[str], facts: StatementFacts, *, denies: bool) -> bool:
    """Say whether a rule's verbs are a statement's: where it denies, of anything in it, and else of all in it."""
    if not verbs:
        return True
    among = (any(same_verb(listed, verb) for listed in verbs) for verb in every_verb(facts.verb, facts.does))
    return any(among) or bool(followed(verbs, relations, facts)) if denies else all(among)


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


def _size(value: Any) -> Any:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,12})\s*([a-z]*)", str(value).strip().lower(), re.ASCII)
    if found is None or found[2] not in _SIZES:
        raise ValueError(f"`{value}` is no size: write it like `10MB`")
    return int(found[1]) * _SIZES[found[2]]


_NAME = r"[a-z_][a-z0-9_$]*"
_FUNCTION = re.compile(
    rf"(?P<builtin>{_NAME})|(?P<schema>{_NAME})\.(?:\*|(?P<name>{_NAME})(?:\((?P<arguments>[^()]*)\))?)"
)
_TYPES = {
    "int": "integer", "int4": "integer", "int8": "bigint", "int2": "smallint", "bool": "boolean",
    "float8": "double precision", "float": "double precision", "float4": "real", "decimal": "numeric",
    "varchar": "character varying", "char": "character", "varbit": "bit varying",
    "timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone",
    "time": "time without time zone", "timetz": "time with time zone",
}  # fmt: skip
"""Other names of types -> what PostgreSQL calls them."""


EVERY_FUNCTION = "*.*"
"""Every function of users', also those that act, and all other code of theirs; one in C must be named all the same."""


def _function(value: str) -> str:
    """Read a function's name; argument types are brought into the words that the catalogue has."""
    if value.strip() == EVERY_FUNCTION:
        return EVERY_FUNCTION
    found = _FUNCTION.fullmatch(value.strip())
    if found is None:
        raise ValueError(
            f"`{value}` names no function: write a builtin one as `name`, one of your own as `schema.name`, "
            "`schema.name(integer, text)` or `schema.*`"
        )
    if found["schema"] in ("pg_catalog", "information_schema"):
        raise ValueError(f"`{value}`: builtin functions are named without their schema")
    if found["arguments"] is None:
        return value.strip()
    given = [" ".join(each.split()) for each in found["arguments"].split(",")] if found["arguments"].strip() else []
    return f"{found['schema']}.{found['name']}({', '.join(_type(each) for each in given)})"


def _type(given: str) -> str:
    bare, array = (given[:-2].rstrip(), "[]") if given.endswith("[]") else (given, "")
    if not bare:
        raise ValueError("an argument has no type")
    return _TYPES.get(bare, bare) + array


def names_call(listed: str, call: OwnFunction, *, denies: bool = False) -> bool:
    """Say whether a listed name is a function's; a star leaves out what must be named, but where a rule denies."""
    if not call.schema:
        return listed == call.name
    if listed == EVERY_FUNCTION:
        return denies or not call.native
    if listed.endswith(".*"):
        return (denies or not (call.acting or call.native)) and listed == f"{call.schema}.*"
    return listed in (f"{call.schema}.{call.name}", str(call))


_SETTING = re.compile(rf"{_NAME}(\.{_NAME})*\.({_NAME}|\*)")


def _setting(value: str) -> str:
    if _SETTING.fullmatch(value.strip().lower()) is None:
        raise ValueError(f"`{value}` names no setting of an application's: write it like `app.user_id`, or `app.*`")
    return value.strip().lower()


def names_setting(listed: str, name: str) -> bool:
    """Say whether a listed name is a setting's; `app.*` is every one whose name begins so."""
    return listed == name or (listed.endswith(".*") and name.startswith(listed[:-1]))


FunctionName = Annotated[str, AfterValidator(_function)]
SettingName = Annotated[str, AfterValidator(_setting)]
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


class CopyLimit(BaseModel):
    """How far a COPY may go; what goes further is failed and rolled back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int | None = Field(default=None, ge=1)
    bytes: Annotated[int | None, BeforeValidator(_size, json_schema_input_type=int | str | None)] = Field(
        default=None, ge=1, description="a number, or like `10MB`"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.rows is None and self.bytes is None:
            raise ValueError("a limit names `rows` or `bytes`")
        return self
