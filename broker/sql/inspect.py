"""Inspection: a text of SQL becomes facts for the policy and a rewritten text in which masked fields cannot be read.

Everything is allow-listed: kinds of statement, nodes, relations, functions, operators and types. What is unknown is
refused (fail closed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from broker.sql.catalogue import Catalogue
from broker.sql.changing import COMMIT_FIRST, alters, check_harmless, check_stored, kin_of, names_of
from broker.sql.checking import check_calls, check_writes, does, effects_of, missing_where
from broker.sql.collect import Collected, collect
from broker.sql.comparing import compared
from broker.sql.copies import form_of
from broker.sql.ddl import Change, change_of
from broker.sql.library import FULL, Limits, Token, read
from broker.sql.masking import mask_copied_relation, mask_relations
from broker.sql.meaning import meaning
from broker.sql.model import AS_TEXT, Altered, Control, Inspection, Moves, Refusal, SearchPath, Statement
from broker.sql.moving import check_change, check_code, rewrite_calls, rewrite_set
from broker.sql.names import check_parameters
from broker.sql.nodes import (
    EXPLAIN_OPTIONS,
    QUERIES,
    TRANSACTION_CONTROL,
    refusal_of_cascade,
    refused_kind,
)
from broker.sql.plans import hide_estimates
from broker.sql.redact import redacted
from broker.sql.relations import Scope
from broker.sql.returning import mask_returned
from broker.sql.revealing import Reveal, reveal, reveals_in
from broker.sql.rewrite import Rewriter, Source
from broker.sql.searching import Candidate, candidates, search
from broker.sql.settings import lasting, makes_writable, refusal_of_set, refusal_of_show
from broker.sql.sight import Sights, sights
from broker.sql.tree import Node, strings, wrapped
from policies.engine.conditions import BY_VERB
from policies.engine.decisions import Effect, FieldView, StatementFacts

_ENDING = frozenset(
    {Control.COMMIT, Control.ROLLBACK, Control.SAVEPOINT, Control.RELEASE, Control.ROLLBACK_TO, Control.DEALLOCATE}
)
"""What only moves within a transaction, or ends it."""
_HOLD = 0x20
"""PostgreSQL's CURSOR_OPT_HOLD."""
_PASSED_OVER = frozenset("or replace unique temp temporary unlogged global local".split())
"""Words between CREATE and what is created."""
_NO_FACTS = StatementFacts("", frozenset())


def inspect(
    sql: str,
    catalogue: Catalogue,
    fields: FieldView,
    limits: Limits = FULL,
    *,
    strict: bool = False,
    covers: tuple[str, ...] = (),
    but: tuple[str, ...] = (),
    altered: Altered = Altered.NOT,
    path: SearchPath | None = None,
    types: tuple[int, ...] = (),
) -> Inspection:
    """Inspect a text of any number of statements under a catalogue and a person's field rules; raises Refusal.

    The rewritten text yields masked values wherever a masked field is read, and has the same number of statements.
    `strict` has it fail where what it reads masked has changed since the catalogue was read. `covers` is what the role
    lets be read: where that is all there is and nothing is masked, the catalogue is shown as it is, and the schema may
    be changed. `types` are oids of users' types that parameters are declared to have. `altered` says that the session
    has changed the schema in the transaction that this is for, so that the catalogue may be outdated for it. `path` is
    the search path that the session has set, if it has.
    Under limits for where others wait, raises Costly.
    """
    # What is seen of a relation does not depend on how it is named.
    seen = sights(catalogue, fields, covers, but)
    if path is not None:
        catalogue = catalogue.under(path)
    source, tokens = Source.of(sql, limits)
    try:
        tree, relations = read(source.text, limits)
        if len(tree.get("stmts", [])) > limits.statements:
            raise limits.over("limit-statements", f"a text has {limits.statements} statements at most")
        rewriter = Rewriter(source, tree, limits)
        inspector = _Inspector(source, tokens, catalogue, fields, rewriter, seen)
        inspector.count = len(tree.get("stmts", []))
        inspector.relations = relations if inspector.count == 1 else None
        inspector.strict = strict
        inspector.altered = altered
        inspector.moved = path is not None
        statements = tuple(inspector.statement(raw) for raw in tree.get("stmts", []))
        if types:
            statements = _with_parameters(statements, types, catalogue, seen)
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
        inspector.scrub,
        catalogue.version,
        seen.wires(),
        revealed=inspector.revealed,
        searches=inspector.searches,
        path=path,
        means=meaning(catalogue, statements),
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


class _Inspector:
    """One text's inspection; `scrub` grows as statements are seen."""

    def __init__(
        self,
        source: Source,
        tokens: list[Token],
        catalogue: Catalogue,
        fields: FieldView,
        rewriter: Rewriter,
        seen: Sights,
    ) -> None:
        self.source = source
        self.tokens = tokens
        self.catalogue = catalogue
        self.fields = fields
        self.seen = seen
        self.rewriter = rewriter
        self.scrub = False
        self.count = 1
        self.relations: int | None = None
        """How many the parser wrote, where the text is one statement."""
        self.revealed: tuple[tuple[int, int, int], ...] = ()
        self.strict = False
        self.altered = Altered.NOT
        self.alters = Altered.NOT
        """What the statement that is looked at does to the schema."""
        self.moves = Moves.NOT
        """What the statement that is looked at does to the search path."""
        self.moved = False
        """The session has set a search path of its own."""
        self.compared: set[str] = set()
        """Masked fields that the statement compares."""
        self.searches: tuple[tuple[str, int], ...] = ()

    def statement(self, raw: Node) -> Statement:
        """Inspect one statement of the text."""
        start = raw.get("stmt_location", 0)
        end = start + raw["stmt_len"] if raw.get("stmt_len") else len(self.source.text)
        kind, content = wrapped(raw["stmt"]) or ("", {})
        shown = redacted(self.source.text, self.tokens, start, end)
        verb = self._verb(kind, start)
        if self.moves is Moves.ELSEWHERE:
            # What comes behind it would be looked up by other names than it is inspected by.
            raise Refusal("search-path", "what sets the search path is sent by itself", "send it by itself")
        self.compared, self.alters, self.moves = set(), Altered.NOT, Moves.NOT
        before = self.altered
        facts, control, name, refusal, body, form = _NO_FACTS, Control.NONE, "", None, "", AS_TEXT
        writable, lasts = False, 0
        match kind:
            case _ if kind in QUERIES and not (kind == "SelectStmt" and "intoClause" in content):
                reveals = reveals_in(content, self.count) if kind == "SelectStmt" else []
                sought = candidates(content, self.count) if kind == "SelectStmt" else []
                facts = self._query(raw["stmt"], verb, reveals, sought, plain=kind == "SelectStmt")
            case "ExplainStmt":
                facts = self._explain(content, start)
            case "DeclareCursorStmt":
                facts = self._query(content["query"], verb)
                held = content.get("options", 0) & _HOLD
                control, name = Control.DECLARE_HELD if held else Control.DECLARE, content["portalname"]
            case "PrepareStmt":
                facts = self._query([content["query"], content.get("argtypes", [])], verb)
                control, name, body = Control.PREPARE, content["name"], self._body(start, end)
            case "CopyStmt":
                facts, control = self._copy(content)
                form = form_of(content.get("options", []))
            case "ExecuteStmt":
                facts, control, name = self._query(content.get("params", []), verb), Control.EXECUTE, content["name"]
            case "DeallocateStmt":
                control, name = Control.DEALLOCATE, content.get("name", "")
            case "TransactionStmt":
                control = TRANSACTION_CONTROL.get(content["kind"], Control.NONE)
                name = content.get("savepoint_name", "")
                writable = makes_writable(content)
                if control is Control.NONE:
                    refusal = Refusal("transaction", "two-phase commit would outlive the session")
            case "VariableSetStmt":
                facts = StatementFacts(verb, frozenset({Effect.SESSION}))
                refusal, writable = refusal_of_set(content), makes_writable(content)
                lasts = lasting(content)
                self.moves = rewrite_set(content, start, end, self.rewriter)
            case "VariableShowStmt":
                facts = StatementFacts(verb, frozenset({Effect.SESSION}))
                refusal = refusal_of_show(content["name"], in_clear=self.seen.in_clear)
            case "ClosePortalStmt":
                control, name = Control.CLOSE, content.get("portalname", "")
            case "FetchStmt":
                control, name = Control.FETCH, content["portalname"]
            case "UnlistenStmt":
                pass
            case "ConstraintsSetStmt" | "DiscardStmt":
                facts = StatementFacts(verb, frozenset({Effect.SESSION}))
                if content.get("target") == "DISCARD_ALL":
                    control, self.moves = Control.DISCARD_ALL, Moves.BACK
            case "NotifyStmt":
                facts = StatementFacts(verb, frozenset({Effect.ADMIN}))
            case "ListenStmt":
                facts, control = StatementFacts(verb, frozenset({Effect.ADMIN})), Control.LISTEN
                refusal = self._only_in_clear(verb)
            case "DoStmt":
                facts, self.alters = StatementFacts(verb, frozenset(Effect)), Altered.CODE
                self.moves = Moves.UNKNOWN
                refusal = self._only_in_clear(verb)
            case "TruncateStmt" | "LockStmt":
                facts, refusal = self._whole(kind, content, verb), refusal_of_cascade(content)
            case _:
                facts, refusal = self._change(kind, content, verb)
        if facts is _NO_FACTS:
            facts = StatementFacts(verb, frozenset())
        facts = self._after(before, facts, control)
        alters = self.alters
        if alters:
            self.altered = self.altered.merged(alters)
        compares = frozenset(self.compared)
        return Statement(
            facts, shown, control, name, body, refusal, form, compares, writable, alters, self.moves, lasts
        )

    def _change(self, kind: str, content: Node, verb: str) -> tuple[StatementFacts, Refusal | None]:
        """Inspect what is no query: facts for the policy, and why the broker itself does not pass it."""
        effect, refusal = refused_kind("CreateTableAsStmt" if kind == "SelectStmt" else kind, verb)
        change: Change | None = None
        try:
            change = change_of(kind, content)
            if change is None:
                return StatementFacts(verb, frozenset({effect})), refusal
            if not self.seen.in_clear and Effect.ADMIN in change.effects:
                # Fail closed: rights, owners and upkeep reach what is masked, and what is hidden.
                return StatementFacts(verb, frozenset(change.effects)), refusal
            return self._changed(kind, content, verb, change), None
        except Refusal as found:
            # What the policy itself says of such a statement goes before.
            effects = change.effects if change is not None else {effect}
            return StatementFacts(verb, frozenset(effects)), found

    def _changed(self, kind: str, content: Node, verb: str, change: Change) -> StatementFacts:
        if self.moved:
            change.code |= check_change(kind, change, self.catalogue, in_clear=self.seen.in_clear)
        names = names_of(change, self.catalogue, altered=self.altered is not Altered.NOT)
        if not self.seen.in_clear:
            check_harmless(kind, content, self.catalogue, self.seen)
            if self.count > 1:
                raise Refusal("ddl-masked", "a change of the schema is sent by itself here", "send it by itself")
        parts = [*change.parts, *change.types]
        found = collect(parts, self.catalogue, frozenset({id(content)}), in_clear=self.seen.in_clear)
        scope = self._scope(found)
        check_writes(found, scope)
        check_calls(found, scope)
        if change.stored:
            check_stored(scope)
        if scope.masked:
            self.compared |= scope.masked_among(compared(found.clauses))
        mask_relations(scope, self.rewriter)
        self.scrub = self.scrub or scope.scrub or bool(found.own and self.fields)
        effects = set(change.effects) | effects_of(found) | ({Effect.READ} if scope.reads else set())
        if kind == "ViewStmt" and self.altered is Altered.NOT and (stranger := scope.unknown):
            # The server makes a view temporary that reads something temporary.
            change.code.add(f"a view of {stranger}, which is temporary")
        self.alters = Altered.CODE if change.code else alters(kind, change, self.catalogue)
        return StatementFacts(
            verb=verb,
            effects=frozenset(effects),
            reads=frozenset(scope.reads),
            writes=names | scope.writes,
            functions=frozenset(found.functions),
            through=frozenset(scope.through | kin_of(change, self.catalogue)),
            reaches=scope.reaches,
            masked=frozenset(scope.masked_fields()),
            does=does(found),
            missing_where=missing_where(found, scope),
            calls=found.ruled,
            code=frozenset(change.code | found.coded),
        )

    def _after(self, before: Altered, facts: StatementFacts, control: Control) -> StatementFacts:
        """Judge a statement by what its transaction did to the schema before it, which the catalogue does not know."""
        if before is Altered.NOT or control in _ENDING:
            return facts
        if not self.seen.in_clear:
            # Fail closed: any name in it may stand for something else by now.
            raise Refusal("ddl-transaction", "the schema was changed earlier in this transaction", COMMIT_FIRST)
        if before is Altered.CODE and facts.effects - {Effect.SESSION}:
            return replace(facts, code=facts.code | {"what this transaction has defined"})
        return facts

    def _scope(self, found: Collected, *, plain: bool = False) -> Scope:
        scope = Scope.of(found, self.catalogue, self.seen, strict=self.strict, altered=self.altered)
        self.moves = rewrite_calls(found, self.rewriter, plain=plain)
        if self.moved:
            check_code(found, scope)
        return scope

    def _verb(self, kind: str, start: int) -> str:
        if kind in QUERIES:
            return QUERIES[kind]
        first = self.source.first(start)
        verb = self.source.word(first)
        if verb in ("create", "drop", "alter", "close", "comment", "lock"):
            second = first + 1
            while self.source.word(second) in _PASSED_OVER:
                second += 1
            verb = f"{verb} {self.source.word(second)}"
        return verb.upper().strip()

    def _query(
        self,
        root: Any,
        verb: str,
        reveals: Sequence[Reveal] = (),
        sought: Sequence[Candidate] = (),
        *,
        plain: bool = False,
    ) -> StatementFacts:
        returned: frozenset[str] = frozenset()
        if not plain and not self.seen.in_clear:
            returned = mask_returned(root, self.catalogue, self.seen, self.rewriter)
        passed = frozenset(id(one.call) for one in reveals)
        found = collect(root, self.catalogue, passed, in_clear=self.seen.in_clear, relations=self.relations)
        scope = self._scope(found, plain=plain)
        if verb == "EXPLAIN" and scope.views and not self.seen.in_clear:
            # The plan of a view shows its definition, whose literals the catalogue hides.
            raise Refusal("explain", "EXPLAIN of a view would show its definition", "explain a query on its tables")
        check_writes(found, scope)
        revealed: frozenset[str] = frozenset()
        if reveals:
            revealed, self.revealed = reveal(root["SelectStmt"], reveals, scope, self.rewriter)
        check_calls(found, scope)
        # What a function says when it fails can be what it has read by itself.
        self.scrub = self.scrub or bool(found.own and self.fields)
        if scope.masked:
            self.compared |= scope.masked_among(compared(found.clauses))
        if sought:
            self.searches = search(root["SelectStmt"], sought, scope, self.rewriter)
            self.compared -= {name for name, _ in self.searches}
        mask_relations(scope, self.rewriter)
        self.scrub = self.scrub or scope.scrub
        effects = effects_of(found)
        if scope.reads or verb in ("SELECT", "EXPLAIN", "COPY", "DECLARE", "PREPARE") or not effects:
            effects.add(Effect.READ)
        return StatementFacts(
            verb=verb,
            effects=frozenset(effects),
            reads=frozenset(scope.reads),
            writes=frozenset(scope.writes),
            functions=frozenset(found.functions),
            through=frozenset(scope.through),
            reaches=scope.reaches,
            masked=frozenset(scope.masked_fields()) | returned,
            does=does(found),
            missing_where=missing_where(found, scope),
            reveals=revealed,
            calls=found.ruled,
            searched=frozenset(name for name, _ in self.searches) if sought else frozenset(),
            code=frozenset(found.coded),
        )

    def _only_in_clear(self, verb: str) -> Refusal | None:
        """Refuse, where anything is masked, what could bring it in clear."""
        said = BY_VERB[verb]
        return None if self.seen.in_clear else Refusal("statement-kind", *said, verb=verb)

    def _whole(self, kind: str, content: Node, verb: str) -> StatementFacts:
        """Return the facts of what is about whole relations, without a query."""
        found = Collected(in_clear=self.seen.in_clear)
        found.targets += [(kind, one["RangeVar"], content) for one in content["relations"]]
        scope = self._scope(found)
        changes = kind == "TruncateStmt"
        return StatementFacts(
            verb,
            frozenset({Effect.WRITE if changes else Effect.ADMIN}),
            writes=frozenset(scope.writes),
            through=frozenset(scope.through),
            missing_where=frozenset(scope.writes) if changes else frozenset(),
            code=frozenset(found.coded),
        )

    def _body(self, start: int, end: int) -> str:
        """Return the text of a PREPARE's inner statement: what follows its AS."""
        at = self.source.first(start) + 2
        if self.source.word(at) == "(":
            at = self.source.closing(at) + 1
        if self.source.word(at) != "as":
            raise Refusal("prepare", "this form of PREPARE is not passed: name the statement plainly")
        return self.source.text[self.source.words[at].end : end].decode()

    def _explain(self, content: Node, start: int) -> StatementFacts:
        options = {option["DefElem"]["defname"]: option["DefElem"] for option in content.get("options", [])}
        if unknown := sorted(set(options) - EXPLAIN_OPTIONS):
            raise Refusal("explain", f"EXPLAIN option {unknown[0]} is not passed")
        kind, _ = wrapped(content["query"]) or ("", {})
        if kind not in QUERIES:
            raise Refusal("explain", "EXPLAIN is passed for SELECT, INSERT, UPDATE, DELETE and MERGE")
        before = self.scrub
        self.scrub = False
        facts = self._query(content["query"], "EXPLAIN")
        if self.scrub:
            hide_estimates(self.source, self.rewriter, content, options, start)
        self.scrub = self.scrub or before
        return facts

    def _copy(self, content: Node) -> tuple[StatementFacts, Control]:
        if content.get("is_program") or content.get("filename"):
            direction = "from" if content.get("is_from") else "to"
            raise Refusal(
                "copy-server", f"COPY {direction} the server's own files or programs is not passed", r"use \copy"
            )
        if content.get("query"):
            facts = replace(self._query(content["query"], "COPY"), copying="out")
            return facts, Control.COPY_OUT
        if not content.get("is_from"):
            found = Collected()
            columns = content.get("attlist")
            scope = Scope.of_copied(
                content["relation"], self.catalogue, self.seen, columns, strict=self.strict, altered=self.altered
            )
            mask_copied_relation(scope, content, self.rewriter)
            self.scrub = self.scrub or scope.scrub
            facts = StatementFacts(
                "COPY",
                frozenset({Effect.READ}),
                frozenset(scope.reads),
                masked=frozenset(scope.masked_fields()),
                through=frozenset(scope.through),
                copying="out",
            )
            return facts, Control.COPY_OUT
        found = collect(content.get("whereClause", {}), self.catalogue, in_clear=self.seen.in_clear)
        found.targets.append(("CopyStmt", content["relation"], content))
        scope = self._scope(found)
        check_writes(found, scope)
        mask_relations(scope, self.rewriter)
        self.scrub = self.scrub or scope.scrub
        effects = frozenset({Effect.WRITE, Effect.SESSION} if found.sets else {Effect.WRITE})
        relation = scope.target(content["relation"])
        filled = set(strings(content["attlist"])) if "attlist" in content else {one.name for one in relation.columns}
        return StatementFacts(
            "COPY",
            effects,
            frozenset(scope.reads),
            frozenset(scope.writes),
            through=frozenset(scope.through),
            functions=frozenset(found.functions),
            calls=found.ruled,
            code=frozenset(found.coded),
            masked=frozenset(f"{relation.qualified}.{name}" for name in scope.masks_of(relation) if name in filled),
            copying="in",
        ), Control.COPY_IN
