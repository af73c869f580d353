"""Functions, operators and types: a name passes only if every candidate under the pinned path is on the list."""

from __future__ import annotations

from collections.abc import Iterable

from broker.sql.catalogue import Catalogue, allowed_functions
from broker.sql.model import Refusal
from broker.sql.overloads import Overload
from broker.sql.sequences import TELLING
from broker.sql.system import FUNCTIONS_IN_CLEAR, literal_functions
from policies.engine.builtins import NAMED
from policies.engine.decisions import OwnFunction

CHECKED = TELLING | {"set_config"}
"""Functions that pass with some arguments only; whoever finds a call looks at those."""
_INSTEAD = {"pg_column_size": "octet_length says how long a value is, whatever is stored of it"}


def check_function(catalogue: Catalogue, parts: list[str], code: set[str] | None = None) -> str | None:
    """Refuse a function outside the list; returns the name of one that must be rewritten, else None.

    Where nothing is masked, `code` takes the names of what could only be users': a rule decides about it.
    """
    in_clear = code is not None
    schema, name = (parts[-2], parts[-1]) if len(parts) == 2 else (None, parts[-1])
    if len(parts) > 2 or not name:
        raise Refusal("function", "a function is named by its schema and name only")
    if parts == ["airlock", "reveal"]:
        hint = "write it in a plain SELECT: select id, airlock.reveal(ssn) from customers where id = 1"
        raise Refusal("reveal", "airlock.reveal stands by itself in the target list of a SELECT, nowhere else", hint)
    own = own_candidates(catalogue, schema, name, code)
    if not schema and any(overload.builtin for overload in own) and name not in allowed_functions():
        raise Refusal(
            "function-defined",
            f"{name} could be a builtin function that is not on the list",
            f"name yours with its schema: {own[0].function.schema}.{name}",
        )
    if own and (schema or not own[0].builtin):
        _check_coded(catalogue, schema, name, code)
        return None
    if parts == ["information_schema", "_pg_expandarray"]:
        return None  # The JDBC driver reads keys with it.
    if schema not in (None, "pg_catalog", "information_schema") and code is not None:
        code.add(".".join(parts))
        return None
    if schema not in (None, "pg_catalog"):
        raise Refusal("function", f"no function {'.'.join(parts)} that may be called", retry=True)
    # A function of a type's name is a cast to it.
    check_type(catalogue, parts, code)
    if name in literal_functions(in_clear=False):
        return name if name in literal_functions(in_clear=in_clear) else None
    listed = name in allowed_functions() or name in CHECKED
    if code is not None and not schema and not listed and name not in catalogue.builtins:
        code.add(name)
        return None
    known = listed or name in NAMED
    if not known and catalogue.builtins and name not in catalogue.builtins:
        hint = r"\df lists those there are; one of your own in another schema is named with it"
        raise Refusal(
            "function", f"there is no function {name} under this search path", hint, sqlstate="42883", retry=True
        )
    if not known and not (in_clear and name in FUNCTIONS_IN_CLEAR):
        said = f"function {name} is not on the list of functions that only compute"
        hint = "functions that wait, lock, write, read files or run SQL of their own are refused"
        raise Refusal("function", said, _INSTEAD.get(name, hint), retry=True)
    return None


def own_candidates(
    catalogue: Catalogue, schema: str | None, name: str, code: set[str] | None = None
) -> tuple[Overload, ...]:
    """Return every function of users' that a call could mean; which of them it means, only the server knows."""
    found: list[Overload] = []
    for candidate in (schema,) if schema else catalogue.path:
        if (candidate, name) in catalogue.functions:
            overloads = catalogue.overloads.get((candidate, name), ())
            if not overloads and code is not None:
                code.add(f"{candidate}.{name}")
            elif not overloads:
                raise Refusal(
                    "function-defined", f"{candidate}.{name} is no function that may be called in a statement"
                )
            found += overloads
    return tuple(found)


def called_builtin(parts: list[str]) -> OwnFunction | None:
    """Return the builtin function that a rule has to name, where a call means one."""
    name = parts[-1]
    return OwnFunction("", name, acting=NAMED[name]) if name in NAMED and parts[:-1] in ([], ["pg_catalog"]) else None


def check_attribute(catalogue: Catalogue, name: str, *, row: bool, record: bool) -> None:
    """Refuse `expression.name` where that could call a function outside the list.

    `row` says that the expression can only be a row of FROM, `record` that its type has no name or has that column.
    """
    if row and name not in catalogue.own:
        return  # No builtin function that is off the list takes a row, but for those that measure it.
    if row and record and name not in catalogue.loose:
        return
    raise Refusal(
        "function",
        f"`.{name}` would call the function {name}, which is not on the list",
        "if it is a column, name it after its table or a sub-select",
    )


def check_operator(catalogue: Catalogue, parts: list[str], code: set[str] | None, apart: set[str]) -> None:
    """Refuse an operator that users defined, or whose name they overloaded.

    One that is found by values of their types alone is noted in `apart`: what gives such a value is refused, but for
    their functions.
    """
    schema, name = (parts[-2], parts[-1]) if len(parts) == 2 else (None, parts[-1])
    own = {(one, name) for one in ((schema,) if schema else catalogue.path)} & catalogue.operators
    builtin = schema in (None, "pg_catalog")
    if code is not None and len(parts) <= 2:
        if own or not builtin:
            code.add(f"operator {'.'.join(parts)}")
    elif own - catalogue.apart or not builtin or len(parts) > 2:
        raise own_operator(".".join(parts))
    elif own:
        apart.add(name)


def own_operator(name: str) -> Refusal:
    """Return why an operator of users' is refused."""
    said = f"operator {name} is one of this database's own, and those are not open yet"
    hint = None if "." in name else f"where the server's own is meant, write OPERATOR(pg_catalog.{name})"
    return Refusal("operator", said, hint)


def check_type(catalogue: Catalogue, parts: list[str], code: set[str] | None = None) -> None:
    """Refuse types whose input, output, checks or casts could run code of users'."""
    schema, name = (parts[-2], parts[-1]) if len(parts) == 2 else (None, parts[-1])
    if len(parts) > 2:
        raise Refusal("type", f"type {'.'.join(parts)} cannot be named here")
    if _check_coded(catalogue, schema, name, code):
        return
    if schema not in (None, "pg_catalog", "information_schema") and code is not None:
        return  # The server says whether there is one; what its values run is asked about where it is defined.
    if schema not in (None, "pg_catalog", "information_schema"):
        raise Refusal("type", f'type "{schema}.{name}" does not exist', sqlstate="42704", retry=True)
    # What is left can only be a builtin type (pg_catalog comes first in the path), or does not exist.


def check_parameters(catalogue: Catalogue, types: Iterable[int], code: set[str] | None = None) -> None:
    """Refuse parameters of users' types that run code of theirs: their values are read before anything is run.

    No text names the types that a client declares by their oids. One that is not known counts as such a type.
    """
    for oid in types:
        name, trusted = catalogue.type_names.get(oid, ("", False))
        if trusted:
            continue
        if not name and code is None:
            raise Refusal("type", f"no type of a parameter has the oid {oid}", sqlstate="42704", retry=True)
        if code is None:
            raise Refusal(
                "type",
                f"a parameter has the type {name}, which runs code of this database's own, and those are not open yet",
                "leave the type of the parameter open, or say a builtin one",
            )
        code.add(f"type {name or oid}")


def _check_coded(catalogue: Catalogue, schema: str | None, name: str, code: set[str] | None) -> bool:
    """Refuse a type of users' that runs code of theirs; returns whether users have one of the name."""
    for candidate in (schema,) if schema else catalogue.path:
        found = catalogue.types.get((candidate, name))
        if found is not None and not found[1] and code is not None:
            code.add(f"type {candidate}.{name}")
            return True
        if found is not None and not found[1]:
            shown = f"{schema}.{name}" if schema else name
            raise Refusal("type", f"type {shown} runs code of this database's own, and those are not open yet")
        if found is not None:
            return True
    return False
