"""EXPLAIN, and what its options would tell of masked fields and hidden definitions, which is left out."""

from __future__ import annotations

from broker.sql.inquiry import Inquiry
from broker.sql.library import parse
from broker.sql.model import Refusal
from broker.sql.nodes import EXPLAIN_OPTIONS, QUERIES, TELLING_OPTIONS
from broker.sql.relations import placed
from broker.sql.tree import Node, wrapped
from policies.engine.decisions import StatementFacts


def explain(inquiry: Inquiry, content: Node, start: int) -> StatementFacts:
    """Inspect an EXPLAIN that starts at a byte of the text, and return its facts; raises Refusal."""
    options = {option["DefElem"]["defname"]: option["DefElem"] for option in content.get("options", [])}
    if unknown := sorted(set(options) - EXPLAIN_OPTIONS):
        raise Refusal("explain", f"EXPLAIN option {unknown[0]} is not passed")
    kind, _ = wrapped(content["query"]) or ("", {})
    if kind not in QUERIES:
        raise Refusal("explain", "EXPLAIN is passed for SELECT, INSERT, UPDATE, DELETE and MERGE")
    before, inquiry.scrub = inquiry.scrub, False
    measured = "analyze" in options and not _is_off(options["analyze"])
    facts = inquiry.query(content["query"], "EXPLAIN", measured=measured)
    if measured:
        _check_counted(inquiry, facts)
    telling = TELLING_OPTIONS if inquiry.scrub else frozenset[str]()
    if facts.writes and not inquiry.seen.in_clear:
        # Of a change it shows the defaults of what is filled, whose literals the catalogue hides.
        telling |= {"verbose"}
    if not inquiry.seen.in_clear and _lists_literals(inquiry, facts):
        telling |= {"verbose"}
    if inquiry.scrub or telling & set(options):
        _leave_out(inquiry, content, options, telling, start)
    inquiry.scrub = inquiry.scrub or before
    return facts


def _check_counted(inquiry: Inquiry, facts: StatementFacts) -> None:
    """Refuse to have the rows of each partition counted, where which one a row is in follows a masked field."""
    for name in sorted(facts.reads | facts.writes):
        relation = inquiry.catalogue.by_name.get(name)
        if relation is not None and (sight := inquiry.seen.of(relation)).placed:
            raise placed(relation, sight)


def _lists_literals(inquiry: Inquiry, facts: StatementFacts) -> bool:
    """Say whether an index has an expression with literals: what is read of it alone is listed with all that it has."""
    read = [inquiry.catalogue.by_name[name] for name in facts.reads if name in inquiry.catalogue.by_name]
    every = [one for each in read for one in (each, *inquiry.catalogue.heirs.get(each.oid, ()))]
    return any(0 in columns for one in every for columns, _ in one.literals)


def _leave_out(inquiry: Inquiry, content: Node, options: dict[str, Node], telling: frozenset[str], start: int) -> None:
    """Leave options out, and force COSTS OFF and the like: row estimates of masked relations follow the raw values."""
    source = inquiry.source
    first = source.first(start) + 1
    last = first - 1
    if options and source.word(first) == "(":
        last = source.closing(first)
    else:
        while options and source.word(last + 1) in ("analyze", "analyse", "verbose"):
            last += 1
    said = [_option(name, element) for name, element in options.items() if name not in telling]
    if inquiry.scrub:
        said += ["COSTS OFF", *(["TIMING OFF", "SUMMARY OFF", "BUFFERS OFF"] if "analyze" in options else [])]
    written = f" ({', '.join(said)})" if said else ""
    inquiry.rewriter.replace(source.words[first - 1].end, source.words[last].end, written)

    def move() -> None:
        intended = parse(f"EXPLAIN{written} SELECT 1".encode())
        content["options"] = intended["stmts"][0]["stmt"]["ExplainStmt"].get("options", [])
        if not content["options"]:
            content.pop("options")

    inquiry.rewriter.also(move)


def _is_off(element: Node) -> bool:
    """Say whether an option is written out and off, as pgAdmin has most of them; given twice, the last one holds."""
    return str(_value(element)).lower() in ("false", "off", "0") and "arg" in element


def _value(element: Node) -> object:
    kind, argument = wrapped(element.get("arg")) or ("", {})
    return argument.get("sval", argument.get("ival", argument.get("boolval", 0 if kind == "Integer" else "")))


def _option(name: str, element: Node) -> str:
    kind, _ = wrapped(element.get("arg")) or ("", {})
    value = _value(element)
    if kind and not str(value).replace("_", "").isalnum():
        raise Refusal("explain", f"EXPLAIN option {name} has a value that is not passed")
    return f"{name} {value}".strip() if kind else name
