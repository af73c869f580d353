"""What a column may have by default where something is masked: what depends on nothing that there is."""

from __future__ import annotations

from broker.sql.catalogue import Catalogue
from broker.sql.names import check_type, own_candidates
from broker.sql.tree import Node, strings, wrapped

_MAKING = frozenset(
    """
    clock_timestamp gen_random_uuid now statement_timestamp timezone transaction_timestamp uuid_generate_v1
    uuid_generate_v1mc uuid_generate_v4 uuidv4 uuidv7
    """.split()
)
_TIMES = ("SVFOP_CURRENT_DATE", "SVFOP_CURRENT_TIME", "SVFOP_LOCALTIME")
_CALL = frozenset({"funcname", "args", "funcformat", "location"})
_TYPE = frozenset({"names", "typemod", "typmods", "arrayBounds", "location"})


def is_plain(value: Node, catalogue: Catalogue) -> bool:
    """Say whether a default is a constant, the time, a new uuid, or a cast of these; raises Refusal for its type."""
    kind, content = wrapped(value) or ("", {})
    match kind:
        case "A_Const":
            return True
        case "TypeCast":
            return is_plain_type(content["typeName"], catalogue) and is_plain(content["arg"], catalogue)
        case "SQLValueFunction":
            return str(content["op"]).startswith(_TIMES)
        case "FuncCall":
            *schema, name = strings(content["funcname"])
            own = own_candidates(catalogue, schema[-1] if schema else None, name)
            known = all(one.function.computes for one in own) and (own or schema in ([], ["pg_catalog"]))
            plain = name in _MAKING and bool(known) and not set(content) - _CALL
            return plain and all(is_plain(one, catalogue) for one in content.get("args", []))
        case _:
            return False


def is_plain_type(named: Node, catalogue: Catalogue) -> bool:
    """Say whether a type is written plainly; raises Refusal for one that runs code of users'."""
    if set(named) - _TYPE or any("A_Const" not in one for one in named.get("typmods", [])):
        return False
    check_type(catalogue, strings(named["names"]))
    return True
