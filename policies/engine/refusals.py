"""Why a statement is denied that no rule lets pass, and what would: the words of each, with the next step."""

from __future__ import annotations

from policies.engine.conditions import BY_VERB, EVERY_FUNCTION, said_of_verb
from policies.engine.decisions import Deny, Effect, OwnFunction, StatementFacts
from policies.engine.rules import StatementRule


def uninspected(rule: StatementRule) -> Deny:
    """Deny a DO whose code could do what a rule forbids: whoever wrote it need not have meant that."""
    why, hint = BY_VERB["DO"]
    return Deny(f"{why}, and may do what is forbidden: {rule.message or f'rule {rule.id}'}", (rule.id,), hint)


def uncalled(call: OwnFunction) -> Deny:
    """Deny a call of a function that does more than compute, or is of users' own."""
    needed = f"{'`effects: [write]` and ' if call.acting else ''}`functions: [{call}]`"
    if not call.schema:
        hint = f"functions that wait, lock, count or signal need a rule of their own: one that says {needed}"
        return Deny(f"{call} does more than compute, and no rule lets it be called", ("default-function",), hint)
    if call.schema == "pg_catalog":
        what = f"{call} is an extension's, which has put it among the builtin functions, and no rule can name it"
        return Deny(what, ("default-function",), "ask whoever runs the database")
    what = "is a function of this database's own that could change data" if call.acting else "is of this database's own"
    hint = f"use builtin functions, or query the tables directly; a rule that says {needed} would let it pass"
    return Deny(f"{call} {what}, and no rule lets it be called", ("default-function",), hint)


def unnamed(setting: str) -> Deny:
    """Deny what sets or shows a setting of an application's own: row security and functions may go by it."""
    hint = f"a rule that says `effects: [session]` and `settings: [{setting}]` would let it be set and shown"
    return Deny(f"{setting} is a setting of an application's own, and no rule names it", ("default-setting",), hint)


def uncoded(code: frozenset[str], effect: Effect) -> Deny:
    """Deny what defines or runs code that no name tells apart."""
    listed = ", ".join(sorted(code)[:3])
    hint = f"a rule that says `effects: [{effect.value}]` and `functions: ['{EVERY_FUNCTION}']` would let it pass"
    if effect is not Effect.DDL:
        # It could be made before this runs, in this very transaction, so nobody can say that it is not there.
        hint = f"a name that was mistyped counts as such code too; {hint}"
    return Deny(f"this is about code of this database's own ({listed}), and no rule lets it", ("default-code",), hint)


def uncovered(effect: Effect, facts: StatementFacts, nearly: list[str]) -> Deny:
    """Deny what no rule covers; `nearly` says what kept those that almost do from it."""
    named = {
        Effect.READ: "reading is not allowed by this role",
        Effect.WRITE: "changing data is not allowed by this role",
        Effect.DDL: "changing the schema is not allowed by this role",
        Effect.SESSION: "changing session settings is not allowed by this role",
        Effect.ADMIN: "administering the server is not allowed by this role",
    }
    hint = "; ".join(dict.fromkeys(nearly)) or None
    if (said := said_of_verb(facts.verb)) is not None and not nearly:
        return Deny(said[0], ("default-verb",), said[1])
    if nearly and effect is Effect.WRITE and facts.copying == "in":
        return Deny("copying data in is not allowed by this role", ("default-copy",), hint)
    return Deny(f"{named[effect]}{' in this form' if nearly else ''}", (f"default-{effect.value}",), hint)
