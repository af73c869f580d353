"""Session settings that may be changed, with the values they may have; every other one is pinned."""

from __future__ import annotations

import re
from typing import Any

from broker.sql.model import Refusal
from broker.sql.system import SHOWN
from broker.sql.tree import Node

_ANY = re.compile(r"[^\x00-\x1f]{0,63}")
CHANGEABLE: dict[str, re.Pattern[str]] = {
    "application_name": _ANY,
    "bytea_output": re.compile(r"hex|escape", re.IGNORECASE),
    "client_encoding": re.compile(r"utf-?8|unicode", re.IGNORECASE),
    "client_min_messages": re.compile(r"notice|warning|error", re.IGNORECASE),
    "datestyle": _ANY,
    "extra_float_digits": re.compile(r"-?\d{1,2}"),
    "intervalstyle": _ANY,
    "timezone": _ANY,
    "enable_seqscan": re.compile(r"on|off|true|false", re.IGNORECASE),
    "enable_nestloop": re.compile(r"on|off|true|false", re.IGNORECASE),
    "enable_hashjoin": re.compile(r"on|off|true|false", re.IGNORECASE),
    "enable_mergejoin": re.compile(r"on|off|true|false", re.IGNORECASE),
    "jit": re.compile(r"on|off|true|false", re.IGNORECASE),
}


def refusal_of_set(content: Node) -> Refusal | None:
    """Return why a SET or RESET is refused, or None."""
    kind, name = content.get("kind"), str(content.get("name", "")).lower()
    if kind == "VAR_SET_MULTI":
        return refusal_of_modes(content.get("args", [])) if name == "transaction" else _pinned(name or "that setting")
    if kind == "VAR_RESET_ALL" or name not in CHANGEABLE:
        return _pinned(name or "every setting at once")
    if kind in ("VAR_SET_DEFAULT", "VAR_RESET"):
        return None
    values = [_value(argument) for argument in content.get("args", [])]
    if kind != "VAR_SET_VALUE" or None in values or not CHANGEABLE[name].fullmatch(", ".join(map(str, values))):
        return Refusal("settings", f"{name} cannot be set to that value here")
    return None


def refusal_of_show(name: str) -> Refusal | None:
    """Return why a SHOW is refused: commands, files, connections and an application's own settings stay closed."""
    if re.fullmatch(SHOWN, name.lower()):
        return None
    return Refusal(
        "settings", f"{name} is not on the list of settings that hold nothing private", "show one setting by its name"
    )


def shows_only_settings(function: str, arguments: list[Node]) -> bool:
    """Say whether a function is current_setting with a name written out that SHOW would show."""
    name = _value(arguments[0]) if function == "current_setting" and arguments else None
    return isinstance(name, str) and refusal_of_show(name) is None


def refusal_of_modes(options: list[Node]) -> Refusal | None:
    """Return why a transaction's modes are refused: a session cannot make itself writable."""
    for option in options:
        element = option.get("DefElem", {})
        if element.get("defname") == "transaction_read_only" and _value(element.get("arg", {})) != 1:
            return Refusal("settings", "a session cannot make its transactions writable; its role decides that")
    return None


def _pinned(name: str) -> Refusal:
    return Refusal("settings", f"{name} is pinned for this session", f"may be set: {', '.join(sorted(CHANGEABLE))}")


def _value(node: Any) -> str | int | None:
    constant = node.get("A_Const") if isinstance(node, dict) else None
    if constant is None:
        return None
    for kind, key in (("sval", "sval"), ("ival", "ival"), ("fval", "fval"), ("boolval", "boolval")):
        if kind in constant:
            value = constant[kind].get(key, 0 if kind in ("ival", "boolval") else "")
            return value if isinstance(value, (str, int)) else None
    return None
