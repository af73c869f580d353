"""Inspection: a text of SQL becomes facts for the policy and a rewritten text in which masked fields cannot be read.

Everything is allow-listed: kinds of statement, nodes, relations, functions, operators and types. What is unknown is
refused (fail closed).
"""

from __future__ import annotations

from dataclasses import replace

from broker.sql.catalogue import Catalogue
from broker.sql.grammar import check_names
from broker.sql.inquiry import Inquiry
from broker.sql.library import FULL, Limits, read
from broker.sql.meaning import meaning
from broker.sql.model import PLAIN, Inspection, Refusal, Statement, Terms
from broker.sql.names import check_parameters
from broker.sql.qualified import leave_out
from broker.sql.rewrite import Rewriter, Source
from broker.sql.sight import Sights, sights
from broker.sql.statements import statement
from policies.engine.decisions import FieldView


def inspect(
    sql: str,
    catalogue: Catalogue,
    fields: FieldView,
    limits: Limits = FULL,
    terms: Terms = PLAIN,
) -> Inspection:
    """Inspect a text of any number of statements under a catalogue and a person's field rules; raises Refusal.

    The rewritten text yields masked values wherever a masked field is read, and has the same number of statements.
    Under limits for where others wait, raises Costly.
    """
    # What is seen of a relation does not depend on how it is named.
    seen = sights(catalogue, fields, terms.covers, terms.but)
    if terms.path is not None:
        catalogue = catalogue.under(terms.path)
    source, tokens = Source.of(sql, limits)
    if not catalogue.utf8:
        check_names(source.text, tokens)
    try:
        tree, relations = read(source.text, limits)
        raws = tree.get("stmts", [])
        if len(raws) > limits.statements:
            raise limits.over("limit-statements", f"a text has {limits.statements} statements at most")
        rewriter = Rewriter(source, tree, limits)
        leave_out(frozenset({catalogue.database, terms.called} - {""}), source, rewriter)
        only = relations if len(raws) == 1 else None
        inquiry = Inquiry(source, tokens, catalogue, fields, rewriter, seen, len(raws), only, terms, terms.altered)
        statements = tuple(statement(inquiry, raw) for raw in raws)
        if terms.types:
            statements = _with_parameters(statements, terms.types, catalogue, seen)
        rewritten, runs = rewriter.finish()
    except Refusal as refusal:
        raise refusal.located(source.text) from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        # A tree of a shape that nobody foresaw is not understood, so it is not passed (fail closed).
        raise Refusal("syntax-unknown", "this statement has a form that is not passed") from error
    except RecursionError:
        raise Refusal("limit-nesting", "the statement is nested too deeply", sqlstate="54001") from None
    return Inspection(
        statements,
        rewritten,
        runs,
        inquiry.scrub,
        catalogue.version,
        seen.wires(),
        revealed=inquiry.revealed,
        searches=inquiry.searches,
        path=terms.path,
        means=meaning(catalogue, statements, inquiry.temporary),
    )


def _with_parameters(
    statements: tuple[Statement, ...], types: tuple[int, ...], catalogue: Catalogue, seen: Sights
) -> tuple[Statement, ...]:
    """Judge statements by the types of their parameters, which are not in their text."""
    code: set[str] | None = set() if seen.in_clear else None
    check_parameters(catalogue, types, code)
    return tuple(replace(one, facts=replace(one.facts, code=one.facts.code | (code or set()))) for one in statements)


def tripwire(catalogue: Catalogue, fields: FieldView) -> frozenset[tuple[int, int]]:
    """Return the (relation oid, attnum) pairs that no result may attest: masked fields, and their whole rows."""
    return sights(catalogue, fields).wires()
