"""What the policy will do to a session, in words for a card: what is masked, asked about, blocked."""

from __future__ import annotations

from typing import assert_never

from bot.text import clip, one_line
from policies.engine.decide import decide_statement, field_view
from policies.engine.decisions import Ask, Deny, Effect, Mask, MaskKind, StatementFacts
from policies.engine.model import Policy
from workflows.words import series

FIELDS_SHOWN = 12
_EFFECTS = {
    Effect.READ: "reading",
    Effect.WRITE: "changing data",
    Effect.DDL: "changing the schema",
    Effect.ADMIN: "administering the server",
}


def masked_words(policy: Policy, person: str, resource: str, role: str) -> str:
    """Say which fields a person would see masked under a role, and how."""
    level = policy.resources[resource].roles.get(role)
    words = []
    for relation, fields in field_view(policy, person, resource).items():
        if level is None or not level.covers(relation):
            continue
        table = relation.removeprefix("public.")
        named = [f"{table}.{name} ({_mask_words(mask)})" for name, mask in fields.masks.items()]
        if len(named) > FIELDS_SHOWN:
            named = [*named[:FIELDS_SHOWN], f"{len(named) - FIELDS_SHOWN} more fields of {table}"]
        if fields.others is not None:
            named.append(f"any other field of {table} that nobody has classified")
        words.append(", ".join(named))
    return clip("; ".join(word for word in words if word), 900)


def _mask_words(mask: Mask) -> str:
    match mask.kind:
        case MaskKind.HIDE:
            return "hidden"
        case MaskKind.PARTIAL:
            return f"last {mask.tail} shown"
        case MaskKind.FIXED:
            return "a fixed text"
        case MaskKind.NULL:
            return "empty"
        case MaskKind.KEYS:
            return f"only {', '.join(mask.show) or 'its form'} shown"
        case _:
            assert_never(mask.kind)


def effect_words(policy: Policy, person: str, resource: str, role: str) -> tuple[str, str]:
    """Say what a session would refuse, and what it would ask a reviewer for."""
    refused: dict[str, list[str]] = {}
    asked: list[str] = []
    for effect, words in _EFFECTS.items():
        facts = StatementFacts(verb="", effects=frozenset({effect}))
        match decide_statement(policy, person, resource, role, facts):
            case Deny(message=message, rules=rules):
                reason = "" if rules[0].startswith("default") else f" ({one_line(message)})"
                refused.setdefault(reason, []).append(words)
            case Ask(requirement=requirement, shape=shape):
                asked.append(f"{words} ({requirement}{', or once for statements of one shape' if shape else ''})")
            case _:
                pass
    return clip("; ".join(f"{series(words)}{why}" for why, words in refused.items()), 900), "; ".join(asked)
