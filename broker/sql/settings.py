"""Session settings that may be changed, with the values they may have; every other one is pinned."""

from __future__ import annotations

import re
from typing import Any

from broker.sql.masks import quote_text
from broker.sql.model import Moves, Refusal
from broker.sql.paths import asked, listed, named, written
from broker.sql.system import PRIVATE, shown
from broker.sql.tree import Node, strings
from policies.engine.conditions import names_setting

_ANY = re.compile(r"[^\x00-\x1f]{0,63}")
_NAME = re.compile(r"[a-z_][a-z_.]{0,62}")
_SWITCH = re.compile(r"on|off|true|false|yes|no|1|0", re.IGNORECASE)
_ON = re.compile(r"on|true|yes|1", re.IGNORECASE)
_LEVEL = re.compile(r"serializable|repeatable read|read committed|read uncommitted", re.IGNORECASE)
_WORDS = re.compile(r"[a-z0-9 |]+")
_OFFSET = re.compile(r"[+-]?\d{1,2}(:\d{2}){0,2}")
CHANGEABLE: dict[str, re.Pattern[str]] = {
    "application_name": _ANY,
    "bytea_output": re.compile(r"hex|escape", re.IGNORECASE),
    "client_encoding": re.compile(r"utf-?8|unicode", re.IGNORECASE),
    "client_min_messages": re.compile(r"notice|warning|error", re.IGNORECASE),
    "datestyle": _ANY,
    "extra_float_digits": re.compile(r"-?\d{1,2}"),
    "intervalstyle": _ANY,
    "timezone": _ANY,
    "enable_seqscan": _SWITCH,
    "enable_nestloop": _SWITCH,
    "enable_hashjoin": _SWITCH,
    "enable_mergejoin": _SWITCH,
    "geqo": _SWITCH,
    "jit": _SWITCH,
    "default_transaction_deferrable": _SWITCH,
    "default_transaction_isolation": _LEVEL,
    "lock_timeout": re.compile(r"\d{1,9} ?(us|ms|s|min|h|d)?"),
    # Drivers say so whatever it is; it is pinned to this.
    "standard_conforming_strings": _ON,
}
TIMEOUTS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)
"""What ends things upstream should nobody else: each may be made shorter than it is pinned, and no longer."""
_UNITS = {"": 1, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d{1,10}) ?(ms|s|min|h|d|)", re.ASCII)
_GUARDED = frozenset("application_name client_encoding client_min_messages standard_conforming_strings".split())
"""Those of which the server would take values that are not among them; of the others it takes no more."""
_SET_ONLY: dict[str, re.Pattern[str]] = {
    "default_transaction_read_only": _ON,
    # What stands at the head of every dump, so that it can be restored.
    "check_function_bodies": _SWITCH,
    "default_table_access_method": re.compile("heap"),
    "default_tablespace": re.compile(""),
    # What vacuumdb sets to analyze in stages.
    "default_statistics_target": re.compile(r"\d{1,5}"),
    "vacuum_cost_delay": re.compile(r"\d{1,3}( ?ms)?"),
    "xmloption": re.compile("content", re.IGNORECASE),
    # Off, which is what dumps begin with, has fail what would be left out by a policy: nothing more is shown.
    "row_security": _SWITCH,
    "transaction_isolation": _LEVEL,
    "transaction_read_only": _ON,
}
"""What SET may do beside these, as it gives away a right or changes nothing."""
_BEGUN = CHANGEABLE | dict.fromkeys(("default_transaction_read_only", "row_security"), _ON)
"""What a session may begin with, beside timeouts."""
PINNED = frozenset(
    """
    backslash_quote client_connection_check_interval default_transaction_read_only role row_security search_path
    session_authorization standard_conforming_strings transaction_deferrable transaction_isolation
    transaction_read_only
    """.split()
)
"""What a session begins with and keeps, or may change in part only: what is not among these nobody pins."""
_UNPINNED = frozenset("role transaction_deferrable transaction_isolation transaction_read_only".split())
"""What RESET does not bring back to a pin: servers before 16 let it make a read-only transaction writable.

Who a session is may be reset, as no SET changes it: pools do so between two users of theirs, by words or DISCARD ALL.
"""
_SHOWING = "select name, setting from pg_settings where setting is not null; lists those that may be shown"
_CALL = frozenset({"funcname", "args", "funcformat", "location"})
_OWN = re.compile(r"[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)+")
_OTHER = "a setting that no rule names"
"""What is set where a name that comes later is none that it may be: the server knows no such setting."""


def is_own(name: str) -> bool:
    """Say whether a setting is an application's or an extension's own, which rules may name."""
    return _OWN.fullmatch(name) is not None and re.search(PRIVATE, name) is None


def own_set(content: Node) -> frozenset[str]:
    """Return the setting of an application's own that a SET sets."""
    name = str(content.get("name", "")).lower()
    return frozenset({name} if content.get("kind") == "VAR_SET_VALUE" and is_own(name) else ())


def own_shown(name: str, *, in_clear: bool) -> frozenset[str]:
    """Return the setting of an application's own that a SHOW shows, where it is not shown without a rule."""
    return frozenset({name.lower()} if is_own(name.lower()) and not shown(name, in_clear=in_clear) else ())


def own_read(function: str, content: Node, named: tuple[str, ...]) -> str | None:
    """Return the setting of an application's own whose value a call gives, where its name is written out in a rule's.

    Others come as if there were none.
    """
    name = str(_value((content.get("args") or [{}])[0])).lower() if function == "current_setting" else ""
    return name if is_own(name) and any(names_setting(listed, name) for listed in named) else None


def own_called(content: Node, named: tuple[str, ...]) -> tuple[frozenset[str], bool]:
    """Return the settings of an application's own that a call of set_config could set, and whether it says which.

    Where it does not, it is held to those that rules name without a star.
    """
    name = _value(content["args"][0])
    if name is None:
        return frozenset(filter(is_own, named)), False
    return frozenset({str(name).lower()} if is_own(str(name).lower()) else ()), True


def set_among(names: frozenset[str]) -> str:
    """Write a call of set_config whose name is a row's `a1`: it sets one of some settings, or fails."""
    listed = ", ".join(quote_text(one) for one in sorted(names))
    among = f"pg_catalog.lower(a1) OPERATOR(pg_catalog.=) ANY (ARRAY[{listed}]::pg_catalog.text[])"
    return f"pg_catalog.set_config(CASE WHEN {among} THEN a1 ELSE {quote_text(_OTHER)} END, a2, a3)"


def milliseconds(value: str | int | None) -> int | None:
    """Read how long a timeout is to be, as the server does; None for what is not read here."""
    found = _DURATION.fullmatch(str(value))
    return int(found[1]) * _UNITS[found[2]] if found is not None else None


def lasting(content: Node) -> int:
    """Return how long a SET has a timeout last, in milliseconds; 0 where it sets none, or has it last as it did."""
    return (_timeout(content) or 0) if content.get("name") in TIMEOUTS else 0


def untimed(content: Node) -> str:
    """Return what is sent for a SET of a timeout to 0: the longest that there is, for nothing is without an end."""
    name = content.get("name")
    if name not in TIMEOUTS or _timeout(content) != 0:
        return ""
    return f"SET {'LOCAL ' if content.get('is_local') else ''}{name} TO DEFAULT"


def _timeout(content: Node) -> int | None:
    values = content.get("args", [])
    return milliseconds(_value(values[0])) if content.get("kind") == "VAR_SET_VALUE" and len(values) == 1 else None


def refusal_of_set(content: Node) -> Refusal | None:
    """Return why a SET or RESET is refused, or None."""
    kind, name = content.get("kind"), str(content.get("name", "")).lower()
    if kind == "VAR_SET_MULTI":
        return None if name in ("transaction", "session characteristics") else _pinned(name or "that setting")
    if kind == "VAR_RESET_ALL" or (kind in ("VAR_SET_DEFAULT", "VAR_RESET") and name not in _UNPINNED):
        return None  # The login has seen that every pin is what RESET brings back.
    if name == "search_path":
        return None  # `moved_by` has looked at it.
    if name in TIMEOUTS:
        return None if _timeout(content) is not None else _untimely(name)
    allowed = CHANGEABLE.get(name) or _SET_ONLY.get(name)
    if allowed is None and is_own(name):
        return None  # Rules decide.
    if allowed is None:
        return _pinned(name or "that setting")
    arguments = content.get("args", [])
    if name == "timezone" and _is_offset(arguments):
        return None
    values = [_value(argument) for argument in arguments]
    if kind != "VAR_SET_VALUE" or None in values or not allowed.fullmatch(", ".join(map(str, values))):
        return _unsettable(name)
    return None


def _is_offset(arguments: list[Node]) -> bool:
    """Say whether a time zone is set to `interval '+02:00' hour to minute`, as Sequelize does."""
    cast = arguments[0].get("TypeCast", {}) if len(arguments) == 1 else {}
    value, named = _value(cast.get("arg")), cast.get("typeName", {}).get("names", [])
    return strings(named) == ["pg_catalog", "interval"] and isinstance(value, str) and bool(_OFFSET.fullmatch(value))


def refusal_of_value(name: str, value: str) -> Refusal | None:
    """Return why a session may not begin with a setting, or None: it may with what it could SET."""
    if name in TIMEOUTS:
        return None if milliseconds(value) is not None else _untimely(name)
    if is_own(name):
        # Whether a rule names it is said once it is known who asks.
        return None if value.isprintable() else _unsettable(name)
    if name not in _BEGUN:
        return _pinned(name if _NAME.fullmatch(name) else "that setting")
    return None if _BEGUN[name].fullmatch(value) and value.isprintable() else _unsettable(name)


def moved_by(content: Node) -> tuple[Moves, str]:
    """Return what a SET or RESET does to the search path, and how the broker writes it, where it does.

    Raises Refusal for a path that no session may set.
    """
    kind, name = content.get("kind"), str(content.get("name", "")).lower()
    if kind == "VAR_RESET_ALL" or (name == "search_path" and kind in ("VAR_SET_DEFAULT", "VAR_RESET")):
        return Moves.BACK, ""
    if name != "search_path":
        return Moves.NOT, ""
    local = "LOCAL " if content.get("is_local") else ""
    return Moves.ELSEWHERE, f"SET {local}search_path TO {written(asked(named(content)))}"


def moved_by_call(content: Node) -> tuple[Node, str] | None:
    """Return the value that a call of set_config gives the search path, and what it is sent as; None for others.

    Raises Refusal for a path that no session may set.
    """
    arguments = content.get("args", [])
    if len(arguments) != 3 or str(_value(arguments[0])).lower() != "search_path":
        return None
    value = _value(arguments[1])
    names = listed(value) if isinstance(value, str) else None
    if names is None or _value(arguments[2]) is None or set(content) - _CALL:
        raise _unwritten("search_path")
    return arguments[1]["A_Const"], written(asked(names))


def refusal_of_call(content: Node, named: tuple[str, ...] = ()) -> Refusal | None:
    """Return why a call of set_config is refused, or None: it sets what SET would, with what is written out.

    What rules name of an application's own is set to anything, and its name may come later.
    """
    arguments = content.get("args", [])
    if set(content) - _CALL or len(arguments) != 3 or "NamedArgExpr" in arguments[0] or _value(arguments[2]) is None:
        return _unwritten("set_config")
    if _value(arguments[0]) is None:
        own, _ = own_called(content, named)
        return None if own else _unwritten("set_config")
    name, value = str(_value(arguments[0])).lower(), _value(arguments[1])
    if is_own(name):
        return None  # Rules decide.
    if name == "search_path":
        return None  # `moved_by_call` has looked at it.
    if name in TIMEOUTS:
        return Refusal("settings", f"{name} is set by SET here", f"SET {name} = '30s'")
    if name not in CHANGEABLE:
        # A literal that could be no setting's name is a value, and values are not repeated where others read.
        return _pinned(name if _NAME.fullmatch(name) else "that setting")
    if "ParamRef" in arguments[1]:
        # Its value comes later.
        return _unwritten(name) if name in _GUARDED else None
    if not isinstance(value, str):
        return _unwritten(name)
    return None if CHANGEABLE[name].fullmatch(value) else _unsettable(name)


def refusal_of_show(name: str, *, in_clear: bool = False) -> Refusal | None:
    """Return why a SHOW is refused: commands, files, connections and an application's own settings stay closed."""
    if shown(name, in_clear=in_clear):
        return None
    return Refusal("settings", f"{name} is not on the list of settings that hold nothing private", _SHOWING)


def shows_only_settings(function: str, arguments: list[Node], *, in_clear: bool = False) -> bool:
    """Say whether a function is current_setting with a name written out that SHOW would show."""
    name = _value(arguments[0]) if function == "current_setting" and arguments else None
    return isinstance(name, str) and refusal_of_show(name, in_clear=in_clear) is None


def makes_writable(content: Node) -> bool:
    """Say whether BEGIN or SET asks for a transaction that may change data."""
    modes = [one.get("DefElem", {}) for one in (*content.get("options", []), *content.get("args", []))]
    return any(one.get("defname") == "transaction_read_only" and _value(one.get("arg", {})) != 1 for one in modes)


def _pinned(name: str) -> Refusal:
    if name in ("role", "session_authorization"):
        return Refusal("settings", f"{name} is pinned for this session", "/access asks for another role")
    if name == "synchronize_seqscans":
        # What pg_dump sets first, and hardly anybody else: a list of settings would not help who runs it.
        said = "pg_dump, which sets synchronize_seqscans, does not pass this broker"
        return Refusal("settings", said, r"\copy (select ...) to 'file' csv saves what you may see")
    listed = ", ".join(sorted((*CHANGEABLE, *TIMEOUTS, "search_path")))
    why = "is pinned for this session" if name in PINNED else "is not among the settings that a session may change"
    return Refusal("settings", f"{name} {why}", f"may be set: {listed}")


def _untimely(name: str) -> Refusal:
    return Refusal(
        "settings", f"{name} is set to a whole number, with a unit or of milliseconds", f"SET {name} = '30s'"
    )


def _unsettable(name: str) -> Refusal:
    if name == "client_encoding":
        said = "text passes this broker in UTF-8 only, so client_encoding cannot be set to that value"
        return Refusal("settings", said, "leave it as it is, or SET client_encoding = 'UTF8'")
    words = (CHANGEABLE.get(name) or _SET_ONLY.get(name, _ANY)).pattern
    hint = f"may be set to: {words.replace('|', ', ')}" if _WORDS.fullmatch(words) else None
    if name == "row_security":
        hint = "on or off, once connected; with --enable-row-security pg_dump and pg_restore leave it as it is"
    return Refusal("settings", f"{name} cannot be set to that value here", hint)


def _unwritten(name: str) -> Refusal:
    return Refusal("settings", f"{name} is set with arguments that are written out", "SET name = 'value' does the same")


def _value(node: Any) -> str | int | None:
    constant = node.get("A_Const") if isinstance(node, dict) else None
    if constant is None:
        return None
    for kind, key in (("sval", "sval"), ("ival", "ival"), ("fval", "fval"), ("boolval", "boolval")):
        if kind in constant:
            value = constant[kind].get(key, 0 if kind in ("ival", "boolval") else "")
            return value if isinstance(value, (str, int)) else None
    return None
