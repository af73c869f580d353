"""Search paths that a session may set: a constant list of schemas of users', which the broker writes out itself.

`pg_catalog` always comes first and `pg_temp` last, so that neither a function nor a temporary table can stand before
what a name means. What a path is at any moment, the server says; here its words are only read.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.sql.model import Refusal, SearchPath
from broker.sql.system import SYSTEM_SCHEMAS
from broker.sql.tree import Node

MOST = 32
_LONGEST = 63
"""Bytes of a name; the server would cut off what comes after, and mean another schema."""
_CATALOGUE, _TEMP = "pg_catalog", "pg_temp"
_NOWHERE = "''"


def written(path: Sequence[str]) -> str:
    """Write a search path; pg_temp stands last, so that a temporary table cannot shadow a real one.

    Nor does it stand alone: names would then be made there, and to ask for `current_schema` would make a schema.
    """
    return ", ".join([_quoted(name) for name in path] or [_CATALOGUE]) + f", {_TEMP}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def asked(names: Sequence[str]) -> SearchPath:
    """Return the path that a client asks for by a list of names; raises Refusal for one that it may not have."""
    found = [name for name in names if name]
    if found[:1] == [_CATALOGUE]:
        found = found[1:]
    if found[-1:] == [_TEMP]:
        found = found[:-1]
    for name in found:
        if name == "$user":
            raise _refusal('"$user" would be the name of a role that the broker chose', "name the schema itself")
        if name in SYSTEM_SCHEMAS or name.startswith("pg_"):
            raise _refusal(f"{name} is the server's own", "pg_catalog comes first and pg_temp last by themselves")
        if len(name.encode()) > _LONGEST:
            raise _refusal("a name in it is too long", "name schemas that there are")
    if len(found) > MOST:
        raise _refusal(f"it has {MOST} names at most", "name the schemas that you need")
    return tuple(dict.fromkeys(found))


def named(content: Node) -> list[str]:
    """Return the names in `SET search_path TO ...`; raises Refusal where they are not all written out."""
    found: list[str] = []
    for argument in content.get("args", []):
        constant = argument.get("A_Const", {})
        if "sval" not in constant:
            raise _refusal("its names are written out", "SET search_path TO app, public")
        found.append(constant["sval"].get("sval", ""))
    if not found or content.get("kind") != "VAR_SET_VALUE":
        raise _refusal("its names are written out", "SET search_path TO app, public")
    return found


def listed(value: str) -> list[str] | None:
    """Read a list of names as the server writes and reads one; None where it is none."""
    found: list[str] = []
    rest = value.strip(_SPACE)
    while rest:
        if rest[0] == '"':
            name, rest = _delimited(rest)
            if name is None:
                return None
        else:
            end = next((at for at, char in enumerate(rest) if char in _SPACE + ',"'), len(rest))
            if not end or not rest[:end].isascii():
                return None
            name, rest = rest[:end].lower(), rest[end:]
        found.append(name)
        rest = rest.lstrip(_SPACE)
        if rest and (rest[0] != "," or not (rest := rest[1:].lstrip(_SPACE))):
            return None
    return found


_SPACE = " \t\n\r\f\v"


def _delimited(text: str) -> tuple[str | None, str]:
    """Take a name in double quotes from the start of a text."""
    found, at = "", 1
    while (end := text.find('"', at)) >= 0:
        found += text[at:end]
        if text[end + 1 : end + 2] != '"':
            return found, text[end + 1 :]
        found, at = found + '"', end + 2
    return None, ""


def setting(names: Sequence[str]) -> str:
    """Write the SET of a list of names, as a client would."""
    # An identifier cannot be empty, and a name that is means nothing.
    said = ", ".join(_quoted(name) for name in names if name)
    return f"SET search_path TO {said or _NOWHERE}"


def settable(names: Sequence[str]) -> SearchPath | None:
    """Return the path that a session has with a list of names; None for one that it may not have."""
    try:
        return asked(names)
    except Refusal:
        return None


def confirmed(value: str) -> SearchPath | None:
    """Return the path that the server says a session has; None for one that no session was let set (fail closed)."""
    names = listed(value)
    return settable(names) if names is not None and names[-1:] == [_TEMP] else None


def _refusal(why: str, hint: str) -> Refusal:
    return Refusal("settings", f"search_path cannot be set to that here: {why}", hint)
