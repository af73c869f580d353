"""Each kind of statement by itself: what it does, to what, and what the session must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from broker.sql.cascades import emptied
from broker.sql.catalogue import Relation
from broker.sql.changing import COMMIT_FIRST, change
from broker.sql.collected import Collected
from broker.sql.copies import copy, form_of
from broker.sql.inquiry import Inquiry
from broker.sql.masking import show_all
from broker.sql.model import Altered, Control, Moves, Refusal, Statement
from broker.sql.moving import rewrite_set
from broker.sql.nodes import QUERIES, TRANSACTION_CONTROL
from broker.sql.plans import explain
from broker.sql.redact import redacted
from broker.sql.revealing import reveals_in
from broker.sql.rewrite import Source
from broker.sql.searching import candidates
from broker.sql.settings import lasting, makes_writable, own_set, own_shown, refusal_of_set, refusal_of_show
from broker.sql.tree import Node, wrapped
from policies.engine.conditions import BY_VERB
from policies.engine.decisions import Effect, StatementFacts

_ENDING = frozenset(
    {Control.COMMIT, Control.ROLLBACK, Control.SAVEPOINT, Control.RELEASE, Control.ROLLBACK_TO, Control.DEALLOCATE}
)
"""What only moves within a transaction, or ends it."""
_HOLD = 0x20
"""PostgreSQL's CURSOR_OPT_HOLD."""
_PASSED_OVER = frozenset(
    "or replace unique temp temporary unlogged global local recursive constraint trusted procedural".split()
)
"""Words between CREATE and what is created."""
_SAME = {"analyse": "analyze", "lock": "lock table"}
"""What is written in several ways, and how rules have it."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One statement as the parser has it: `content` is its node's, and `start` and `end` are bytes of the text."""

    node: Node
    kind: str
    content: Node
    verb: str
    start: int
    end: int
    shown: str

    def said(self, *effects: Effect) -> StatementFacts:
        """Return the facts of what is about no relation."""
        return StatementFacts(self.verb, frozenset(effects))


def statement(inquiry: Inquiry, raw: Node) -> Statement:
    """Inspect one statement of a text; raises Refusal."""
    source = inquiry.source
    start = raw.get("stmt_location", 0)
    end = start + raw["stmt_len"] if raw.get("stmt_len") else len(source.text)
    kind, content = wrapped(raw["stmt"]) or ("", {})
    shown = redacted(source.text, inquiry.tokens, start, end)
    asked = _Asked(raw["stmt"], kind, content, _verb(source, kind, content, start), start, end, shown)
    if inquiry.moves is Moves.ELSEWHERE:
        # What comes behind it would be looked up by other names than it is inspected by.
        raise Refusal("search-path", "what sets the search path is sent by itself", "send it by itself")
    inquiry.compared, inquiry.alters, inquiry.moves = set(), Altered.NOT, Moves.NOT
    before = inquiry.altered
    try:
        found = _READERS.get(kind, _change)(inquiry, asked)
    except Refusal as refusal:
        if refusal.rule != "relation-unknown" or before is Altered.NOT or inquiry.seen.in_clear:
            raise
        raise _changed() from refusal  # What it names may have been made just now.
    facts = _after(inquiry, before, found)
    if inquiry.moves is Moves.NOT and found.control is not Control.PREPARE and facts.wanders:
        inquiry.moves = Moves.UNKNOWN
    if inquiry.alters and found.refusal is None:
        inquiry.altered = before.merged(inquiry.alters)
    compares = frozenset(inquiry.compared)
    return replace(found, facts=facts, compared=compares, alters=inquiry.alters, moves=inquiry.moves)


def _verb(source: Source, kind: str, content: Node, start: int) -> str:
    """Return the first words of a statement, as rules have them: however it is written."""
    if kind in QUERIES:
        return "CREATE TABLE" if "intoClause" in content else QUERIES[kind]
    first = source.first(start)
    verb = _SAME.get(source.word(first), source.word(first))
    if verb in ("create", "drop", "alter", "close", "comment"):
        second = first + 1
        while source.word(second) in _PASSED_OVER:
            second += 1
        verb = f"{verb} {source.word(second)}"
    return verb.upper().strip()


def _changed() -> Refusal:
    return Refusal("ddl-transaction", "the schema was changed earlier in this transaction", COMMIT_FIRST)


def _after(inquiry: Inquiry, before: Altered, found: Statement) -> StatementFacts:
    """Judge a statement by what its transaction did to the schema before it, which the catalogue does not know."""
    facts = found.facts
    if before is Altered.NOT or found.control in _ENDING:
        return facts
    if not inquiry.seen.in_clear:
        # Fail closed: any name in it may stand for something else by now.
        raise _changed()
    if before is Altered.CODE and facts.effects - {Effect.SESSION}:
        return replace(facts, code=facts.code | {"what this transaction has defined"})
    return facts


def _change(inquiry: Inquiry, asked: _Asked) -> Statement:
    facts, refusal = change(inquiry, asked.kind, asked.content, asked.verb)
    return Statement(facts, asked.shown, refusal=refusal)


def _select(inquiry: Inquiry, asked: _Asked) -> Statement:
    content = asked.content
    if "intoClause" in content:
        return _change(inquiry, asked)
    reveals, sought = reveals_in(content, inquiry.count), candidates(content, inquiry.count)
    return Statement(inquiry.query(asked.node, asked.verb, reveals, sought, plain=True), asked.shown)


def _write(inquiry: Inquiry, asked: _Asked) -> Statement:
    return Statement(inquiry.query(asked.node, asked.verb), asked.shown)


def _explain(inquiry: Inquiry, asked: _Asked) -> Statement:
    return Statement(explain(inquiry, asked.content, asked.start), asked.shown)


def _declare(inquiry: Inquiry, asked: _Asked) -> Statement:
    held = asked.content.get("options", 0) & _HOLD
    control = Control.DECLARE_HELD if held else Control.DECLARE
    facts = inquiry.query(asked.content["query"], asked.verb)
    return Statement(facts, asked.shown, control, asked.content["portalname"])


def _prepare(inquiry: Inquiry, asked: _Asked) -> Statement:
    content = asked.content
    facts = inquiry.query([content["query"], content.get("argtypes", [])], asked.verb)
    body, declared = _body(inquiry.source, asked)
    return Statement(facts, asked.shown, Control.PREPARE, content["name"], body, declared=declared)


def _body(source: Source, asked: _Asked) -> tuple[str, str]:
    """Return the text of a PREPARE's inner statement, which follows its AS, and of the types before that."""
    at, declared = source.first(asked.start) + 2, b""
    if source.word(at) == "(":
        start, at = at, source.closing(at) + 1
        declared = source.text[source.words[start].end : source.words[at - 1].start].strip()
    if source.word(at) != "as":
        raise Refusal("prepare", "this form of PREPARE is not passed: name the statement plainly")
    return source.text[source.words[at].end : asked.end].decode(), declared.decode()


def _execute(inquiry: Inquiry, asked: _Asked) -> Statement:
    facts = inquiry.query(asked.content.get("params", []), asked.verb)
    return Statement(facts, asked.shown, Control.EXECUTE, asked.content["name"])


def _call(inquiry: Inquiry, asked: _Asked) -> Statement:
    # What it does beyond its arguments is the procedure's, under rules that name that.
    return Statement(inquiry.query([{"FuncCall": asked.content["funccall"]}], asked.verb), asked.shown)


def _deallocate(_: Inquiry, asked: _Asked) -> Statement:
    return Statement(asked.said(), asked.shown, Control.DEALLOCATE, asked.content.get("name", ""))


def _copy(inquiry: Inquiry, asked: _Asked) -> Statement:
    facts, control = copy(inquiry, asked.content)
    return Statement(facts, asked.shown, control, form=form_of(asked.content.get("options", [])))


def _transaction(_: Inquiry, asked: _Asked) -> Statement:
    content = asked.content
    control, refusal = TRANSACTION_CONTROL.get(content["kind"], Control.NONE), None
    if control is Control.NONE:
        refusal = Refusal("transaction", "two-phase commit would outlive the session")
    name, writable = content.get("savepoint_name", ""), makes_writable(content)
    return Statement(asked.said(), asked.shown, control, name, refusal=refusal, writable=writable)


def _set(inquiry: Inquiry, asked: _Asked) -> Statement:
    content = asked.content
    refusal, writable, lasts = refusal_of_set(content), makes_writable(content), lasting(content)
    inquiry.moves = rewrite_set(content, asked.start, asked.end, inquiry.rewriter)
    facts = replace(asked.said(Effect.SESSION), settings=own_set(content))
    return Statement(facts, asked.shown, refusal=refusal, writable=writable, lasting=lasts)


def _show(inquiry: Inquiry, asked: _Asked) -> Statement:
    settings = inquiry.catalogue.relation("pg_catalog", "pg_settings")
    if asked.content["name"].lower() == "all" and settings is not None:
        expressions = inquiry.seen.of(settings).expressions
        show_all(asked.node, expressions, asked.start, asked.end, inquiry.rewriter)
        return Statement(asked.said(Effect.SESSION), asked.shown)
    name, in_clear = asked.content["name"], inquiry.seen.in_clear
    own = own_shown(name, in_clear=in_clear)
    facts = replace(asked.said(Effect.SESSION), settings=own)
    refusal = None if own else refusal_of_show(name, in_clear=in_clear)
    return Statement(facts, asked.shown, refusal=refusal)


def _close(_: Inquiry, asked: _Asked) -> Statement:
    return Statement(asked.said(), asked.shown, Control.CLOSE, asked.content.get("portalname", ""))


def _fetch(_: Inquiry, asked: _Asked) -> Statement:
    return Statement(asked.said(), asked.shown, Control.FETCH, asked.content["portalname"])


def _constraints(_: Inquiry, asked: _Asked) -> Statement:
    control = Control.NONE if asked.content.get("deferred") else Control.CONSTRAINTS
    return Statement(asked.said(Effect.SESSION), asked.shown, control)


def _discard(inquiry: Inquiry, asked: _Asked) -> Statement:
    control = Control.NONE
    if asked.content.get("target") == "DISCARD_ALL":
        control, inquiry.moves = Control.DISCARD_ALL, Moves.BACK
    return Statement(asked.said(Effect.SESSION), asked.shown, control)


def _notify(_: Inquiry, asked: _Asked) -> Statement:
    return Statement(asked.said(Effect.ADMIN), asked.shown)


def _listen(inquiry: Inquiry, asked: _Asked) -> Statement:
    refusal = _only_in_clear(inquiry, asked.verb)
    return Statement(asked.said(Effect.ADMIN), asked.shown, Control.LISTEN, refusal=refusal)


def _unlisten(_: Inquiry, asked: _Asked) -> Statement:
    return Statement(asked.said(), asked.shown)


def _do(inquiry: Inquiry, asked: _Asked) -> Statement:
    inquiry.alters, inquiry.moves = Altered.CODE, Moves.UNKNOWN
    return Statement(asked.said(*Effect), asked.shown, refusal=_only_in_clear(inquiry, asked.verb))


def _only_in_clear(inquiry: Inquiry, verb: str) -> Refusal | None:
    """Refuse, where anything is masked, what could bring it in clear."""
    why, hint = BY_VERB[verb]
    # Also under a rule that names it, whose author would look for what is wrong with that.
    said = f"{why}, so it passes only where nothing is masked or hidden"
    return None if inquiry.seen.in_clear else Refusal("statement-kind", said, hint, verb=verb)


def _whole(inquiry: Inquiry, asked: _Asked) -> Statement:
    """TRUNCATE and LOCK: what is about whole relations, without a query."""
    content, empties = asked.content, asked.kind == "TruncateStmt"
    found = Collected(in_clear=inquiry.seen.in_clear)
    found.targets += [(asked.kind, one["RangeVar"], content) for one in content["relations"]]
    scope = inquiry.scope(found)
    if content.get("behavior") == "DROP_CASCADE":
        scope.write(_cascading(inquiry, [scope.target(one["RangeVar"]) for one in content["relations"]]))
    facts = StatementFacts(
        asked.verb,
        frozenset({Effect.WRITE if empties else Effect.ADMIN}),
        writes=frozenset(scope.writes),
        through=frozenset(scope.through),
        missing_where=frozenset(scope.writes) if empties else frozenset(),
        code=frozenset(found.coded),
    )
    return Statement(facts, asked.shown)


def _cascading(inquiry: Inquiry, named: list[Relation]) -> frozenset[Relation]:
    """Return everything that TRUNCATE ... CASCADE empties; raises Refusal where nobody can say."""
    if inquiry.altered or not all(one.oid for one in named):
        said = "what refers to these tables is not known yet, so neither is what TRUNCATE ... CASCADE empties"
        raise Refusal("truncate", said, f"{COMMIT_FIRST}, or name every table", retry=True)
    return emptied(inquiry.catalogue, named)


_READERS: dict[str, Callable[[Inquiry, _Asked], Statement]] = {
    **dict.fromkeys(QUERIES, _write),
    "SelectStmt": _select,
    "ExplainStmt": _explain,
    "DeclareCursorStmt": _declare,
    "PrepareStmt": _prepare,
    "CallStmt": _call,
    "CopyStmt": _copy,
    "ExecuteStmt": _execute,
    "DeallocateStmt": _deallocate,
    "TransactionStmt": _transaction,
    "VariableSetStmt": _set,
    "VariableShowStmt": _show,
    "ClosePortalStmt": _close,
    "FetchStmt": _fetch,
    "UnlistenStmt": _unlisten,
    "ConstraintsSetStmt": _constraints,
    "DiscardStmt": _discard,
    "NotifyStmt": _notify,
    "ListenStmt": _listen,
    "DoStmt": _do,
    "TruncateStmt": _whole,
    "LockStmt": _whole,
}
"""Every other kind changes the schema, or is refused."""
