"""The engine: what a person may ask for, run and see; default deny, deny beats ask beats allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from policies.engine.conditions import (
    EVERY_FUNCTION,
    every_verb,
    followed,
    holds,
    names_call,
    names_setting,
    of_verbs,
    said_of_verb,
)
from policies.engine.decisions import (
    HIDE,
    NO_LIMITS,
    UNASKED,
    Allow,
    Ask,
    Decision,
    Deny,
    Effect,
    FieldView,
    Limits,
    Mask,
    MaskKind,
    RelationFields,
    Rows,
    StatementFacts,
    all_clear,
    combine,
    covered,
)
from policies.engine.durations import format_duration
from policies.engine.fieldrules import FieldRule
from policies.engine.model import Policy
from policies.engine.refusals import uncalled, uncoded, uncovered, uninspected, unnamed
from policies.engine.rules import AccessRule, Rule, StatementRule


@dataclass(frozen=True, slots=True)
class Terms:
    """What a person may ask for on a resource's role, and for how long at most."""

    resource: str
    role: str
    max_duration: timedelta
    pending_for: timedelta
    decision: Decision


def decide_access(policy: Policy, person: str, resource: str, role: str, duration: timedelta) -> Decision:
    """Decide an access request; a policy that cannot be evaluated denies."""
    terms = terms_of(policy, person, resource, role)
    if isinstance(terms.decision, Deny):
        return terms.decision
    if duration > terms.max_duration:
        limit = format_duration(terms.max_duration)
        return Deny(
            f"{role} on {resource} is given for at most {limit}",
            terms.decision.rules,
            f"/access {resource} {role} {limit}",
        )
    return terms.decision


def terms_of(policy: Policy, person: str, resource: str, role: str) -> Terms:
    """Return what the access rules say of one role; the narrowest durations of the rules that agree."""
    rules: list[AccessRule] = []
    decision: Decision
    if not (found := policy.people.get(person)) or not found.active:
        decision = Deny("you are not in the policy's list of people", ("people",))
    elif resource not in policy.resources:
        decision = Deny(f"there is no resource `{resource}`", ("resources",))
    elif role not in policy.resources[resource].roles:
        roles = ", ".join(policy.resources[resource].roles)
        decision = Deny(f"{resource} has no role `{role}`", ("resources",), f"roles: {roles}")
    else:
        rules = [rule for rule in policy.access if _speaks_of(policy, rule, person, resource, role)]
        decision = combine(_answer(rule) for rule in rules)
    granting = [rule for rule in rules if rule.decision != "deny"]
    return Terms(
        resource,
        role,
        min((rule.max_duration for rule in granting), default=timedelta()),
        min((rule.pending_for for rule in granting), default=timedelta(hours=1)),
        decision,
    )


def may_ask(policy: Policy, person: str) -> list[Terms]:
    """Return every role a person may ask for."""
    terms = (
        terms_of(policy, person, name, role) for name, resource in policy.resources.items() for role in resource.roles
    )
    return [term for term in terms if not isinstance(term.decision, Deny)]


def decide_statement(
    policy: Policy,
    person: str,
    resource: str,
    role: str,
    facts: StatementFacts,
    now: datetime | None = None,
    rows: Rows = None,
) -> Decision:
    """Decide one statement of a session; its relations must be covered by the role, its effects by rules.

    `rows` is what the planner expects; while nobody has asked it, what depends on it is allowed, and says so. Without a
    moment, what is allowed or asked at some time is not, and what is denied at some time is (fail closed).
    """
    held = policy.resources.get(resource)
    level = held.roles.get(role) if held else None
    if level is None or not policy.groups_of(person) or person not in policy.people:
        return Deny("this role is not in the policy any more", ("resources",))
    for relation in sorted(facts.relations):
        if not level.covers(relation):
            return Deny(
                f"{relation} is not covered by {role} on {resource}",
                (f"resources.{resource}.{role}",),
                f"{role} covers: {', '.join(level.relations)}",
            )
    rules = [rule for rule in policy.statements if _speaks_of(policy, rule, person, resource, role)]
    if (facts.calls or facts.code) and not all_clear(field_view(policy, person, resource)):
        # Code that nobody has looked at could read what is masked (fail closed).
        rules = [rule for rule in rules if rule.decision == "deny" or EVERY_FUNCTION not in rule.functions]
    answer = combine(_statement_answers(rules, facts, now, rows))
    return combine((answer, *(_reveal(policy, person, resource, field) for field in sorted(facts.reveals))))


def freely_read(policy: Policy, person: str, resource: str, role: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what of a role's relations a person may read like every other, and what of that a rule stands before.

    What only some of the time or some of the rules let pass is not among the first (fail closed).
    """
    held = policy.resources.get(resource)
    level = held.roles.get(role) if held else None
    if level is None:
        return (), ()
    plain = StatementFacts("SELECT", frozenset({Effect.READ}))
    rules = [rule for rule in policy.statements if _speaks_of(policy, rule, person, resource, role)]
    reading = [
        rule
        for rule in rules
        if (not rule.effects or Effect.READ in rule.effects)
        and _is_about(rule, plain)
        and not rule.copies
        and rule.missing_where is not True
    ]
    before = {name for rule in reading if rule.decision != "allow" for name in rule.relations}
    # A rule with hours that names no relations has the catalogue read in those hours only, too.
    letting = [rule.relations for rule in reading if rule.decision != "deny" and not (rule.relations and rule.when)]
    free = (name for name in level.relations if any(not listed or covered(listed, name) for listed in letting))
    return tuple(free), tuple(sorted(before))


def settings_named(policy: Policy, person: str, resource: str, role: str) -> tuple[str, ...]:
    """Return the settings of an application's own that a person may have to do with, as rules name them."""
    rules = (rule for rule in policy.statements if _speaks_of(policy, rule, person, resource, role))
    return tuple(sorted({name for rule in rules if rule.decision != "deny" for name in rule.settings}))


def _reveal(policy: Policy, person: str, resource: str, field: str) -> Decision:
    """Decide whether a masked field may come in clear: the rule that masks it says who must agree."""
    relation, _, name = field.rpartition(".")
    rule = _masking(_field_rules(policy, person, resource, relation), name)
    requirement = rule.revealing(name) if rule is not None else None
    if rule is None or requirement is None:
        ids = (rule.id,) if rule is not None else ("fields",)
        return Deny(f"{field} is not revealed to anybody by this policy", ids, "without airlock.reveal it comes masked")
    return Ask(requirement, (rule.id,))


def timed(policy: Policy, now: datetime) -> frozenset[str]:
    """Return the ids of the rules with hours that hold at a moment: while they stay the same, so do decisions."""
    return frozenset(rule.id for rule in policy.statements if rule.when and holds(rule.when, now, unknown=False))


def _statement_answers(
    rules: list[StatementRule], facts: StatementFacts, now: datetime | None, rows: Rows
) -> Iterator[Decision]:
    for rule in rules:
        if rule.decision == "deny" and _touches(rule, facts) and holds(rule.when, now, unknown=True):
            yield _answer(rule) if facts.verb != "DO" or rule.verbs else uninspected(rule)
    if not facts.effects:
        # BEGIN, COMMIT, FETCH and the like do nothing of their own; what they enclose was decided itself.
        yield Allow(("no-effect",))
    for effect in sorted(facts.effects):
        # Each effect needs a rule of its own: one that reads and writes is not covered by a rule about reads.
        answers, nearly = _answers((one for one in rules if one.general), facts, effect, now, rows)
        yield combine(answers) if answers else uncovered(effect, facts, nearly)
    for call in sorted(facts.calls):
        # And so does each function of users' that a call could mean: what else a statement does says nothing of them.
        naming = (one for one in rules if any(names_call(listed, call) for listed in one.named_functions))
        answers, _ = _answers(naming, facts, Effect.WRITE if call.acting else Effect.READ, now, rows)
        if answers:
            yield combine(answers)
        elif not call.computes:
            yield uncalled(call)
    for setting in sorted(facts.settings):
        naming = (one for one in rules if any(names_setting(listed, setting) for listed in one.settings))
        answers, _ = _answers(naming, facts, Effect.SESSION, now, rows)
        yield combine(answers) if answers else unnamed(setting)
    if facts.code:
        # What no name tells apart is under rules about all of it: to define it, and to run it.
        effect = next((one for one in (Effect.DDL, Effect.ADMIN) if one in facts.effects), Effect.WRITE)
        every = [one for one in rules if EVERY_FUNCTION in one.functions]
        # That its verb has to be named, or that it copies in, is what the rules about its effects have seen to.
        plain = replace(facts, verb="", copying="")
        answers = [
            *_answers((one for one in every if one.verbs or one.copies), facts, effect, now, rows)[0],
            *_answers((one for one in every if not (one.verbs or one.copies)), plain, effect, now, rows)[0],
        ]
        yield combine(answers) if answers else uncoded(facts.code, effect)


def _answers(
    rules: Iterable[StatementRule], facts: StatementFacts, effect: Effect, now: datetime | None, rows: Rows
) -> tuple[list[Decision], list[str]]:
    """Return what rules say that let an effect pass, and what kept those from it that almost do."""
    found = [(rule, _obstacle(rule, facts, effect, now)) for rule in rules if rule.decision != "deny"]
    passing = [_weighed(rule, rows) for rule, obstacle in found if obstacle is None]
    if passing:
        # What is asked about one relation is asked wherever it is touched: joining another does not lead around it.
        passing += [_answer(rule) for rule, why in found if why is not None and _asks_of_part(rule, facts, effect, now)]
    return passing, [text for _, text in found if text]


def _asks_of_part(rule: StatementRule, facts: StatementFacts, effect: Effect, now: datetime | None) -> bool:
    """Say whether a rule asks about some of a statement's relations or verbs, and speaks of it in every other way."""
    if rule.decision != "ask":
        return False
    part = frozenset(name for name in facts.relations if not rule.relations or covered(rule.relations, name))
    if rule.relations and not part and not (effect is Effect.WRITE and _reaches(rule, facts)):
        return False
    less = replace(facts, reads=facts.reads & part, writes=facts.writes & part, does=frozenset())
    verbs = (*every_verb(facts.verb, facts.does), *followed(rule.verbs, rule.relations, facts))
    return any(_obstacle(rule, replace(less, verb=verb), effect, now) is None for verb in verbs)


def _weighed(rule: StatementRule, rows: Rows) -> Decision:
    """Answer for a rule by how many rows the planner expects."""
    most = rule.max_estimated_rows
    if most is None or (isinstance(rows, int) and rows <= most):
        return _answer(rule)
    if rows is UNASKED:
        return Allow((rule.id,), rule.bound, _limits(rule), estimating=True)
    if rule.above == "ask":
        return Ask(rule.requirement, (rule.id,), rule.bound, _limits(rule))
    expected = f"the planner expects {rows} rows" if rows is not None else "nobody can say how many rows this is about"
    return Deny(f"{expected}, and at most {most} are allowed", (rule.id,), rule.hint or "narrow it down with a WHERE")


def _reaches(rule: StatementRule, facts: StatementFacts) -> bool:
    """Say whether a rule is about writing what foreign keys have follow a statement's writes."""
    writing = not rule.effects or Effect.WRITE in rule.effects
    return writing and any(covered(rule.relations, name) for name in facts.reaches)


def _touches(rule: StatementRule, facts: StatementFacts) -> bool:
    named = facts.relations | facts.through
    return (
        (not rule.effects or bool(facts.all_effects & set(rule.effects)))
        and (not rule.relations or any(covered(rule.relations, name) for name in named) or _reaches(rule, facts))
        and _is_about(rule, facts)
        and (not rule.copies or facts.copying in rule.copies)
        and (rule.missing_where is None or rule.missing_where == bool(facts.missing_where))
    )


def _is_about(rule: StatementRule, facts: StatementFacts) -> bool:
    denies = rule.decision == "deny"
    return (
        of_verbs(rule.verbs, rule.relations, facts, denies=denies)
        and (
            not rule.functions
            or bool(facts.functions & set(rule.functions))
            or any(names_call(listed, call, denies=denies) for listed in rule.named_functions for call in facts.calls)
            or (bool(facts.code) and EVERY_FUNCTION in rule.functions)
        )
        and (not rule.settings or any(names_setting(listed, one) for listed in rule.settings for one in facts.settings))
    )


def _obstacle(rule: StatementRule, facts: StatementFacts, effect: Effect, now: datetime | None) -> str | None:
    """Return what keeps a rule from letting an effect pass, as what to do about it; None where nothing does.

    It is empty where the rule speaks of something else.
    """
    if (rule.effects and effect not in rule.effects) or not _is_about(rule, facts):
        return ""
    if said_of_verb(facts.verb) is not None and not rule.verbs:
        return ""  # Nobody who writes a rule about writes in general thinks of it.
    if rule.named_functions and effect is Effect.WRITE and not rule.effects:
        return ""  # What could change data passes where the rule says so.
    if rule.copies and facts.copying not in rule.copies:
        return ""
    if facts.copying == "in" and effect is Effect.WRITE and not rule.copies:
        # What is copied in is seen by nobody first, so a rule about writes in general does not speak of it.
        return "insert the rows instead: copying in needs a rule that says `copies: [in]`"
    # What is asked about a relation is asked too where a view stands before it; what is allowed of it is not.
    behind = rule.decision == "ask" and any(covered(rule.relations, name) for name in facts.through)
    if rule.relations and not behind and not all(covered(rule.relations, name) for name in facts.relations):
        return f"rule {rule.id} is about {', '.join(rule.relations)}"
    if rule.missing_where is not None and rule.missing_where != bool(facts.missing_where):
        return "" if rule.missing_where else "add a WHERE that names a column"
    if not holds(rule.when, now, unknown=False):
        return f"rule {rule.id} is for {' and '.join(str(window) for window in rule.when)}"
    return None


def _speaks_of(policy: Policy, rule: Rule, person: str, resource: str, role: str) -> bool:
    return (
        (not rule.resources or resource in rule.resources)
        and (not rule.roles or role in rule.roles)
        and (not rule.groups or bool(policy.groups_of(person) & set(rule.groups)))
    )


def _answer(rule: Rule) -> Decision:
    match rule.decision:
        case "allow":
            return Allow((rule.id,), rule.bound, _limits(rule))
        case "ask":
            return Ask(rule.requirement, (rule.id,), rule.bound, _limits(rule), shape=rule.offers_shape)
        case "deny":
            return Deny(rule.message or f"rule {rule.id} forbids this", (rule.id,), rule.hint)


def _limits(rule: Rule) -> Limits:
    limit = rule.copy_limit if isinstance(rule, StatementRule) else None
    return Limits(limit.rows, limit.bytes) if limit is not None else NO_LIMITS


def field_view(policy: Policy, person: str, resource: str) -> FieldView:
    """Return what a person sees of each relation that has field rules on a resource.

    Whitelists of several groups add up: a field is clear where any rule that speaks of the person lists it. A relation
    with rules, none of which speaks of the person, shows nothing.
    """
    view: FieldView = {}
    for relation in dict.fromkeys(rule.relation for rule in policy.fields if rule.resource == resource):
        view[relation] = _joined_view(_field_rules(policy, person, resource, relation))
    return view


def _field_rules(policy: Policy, person: str, resource: str, relation: str) -> list[FieldRule]:
    return [
        rule
        for rule in policy.fields
        if rule.resource == resource
        and rule.relation == relation
        and (not rule.groups or policy.groups_of(person) & set(rule.groups))
    ]


def _masking(rules: list[FieldRule], name: str) -> FieldRule | None:
    """Return the rule by which a field that is named is masked; None where it is clear, or only among the others."""
    if any(_clears(rule, name) for rule in rules):
        return None
    return next((rule for rule in rules if name in rule.masks), None)


def _joined_view(rules: list[FieldRule]) -> RelationFields:
    masks: dict[str, Mask] = {}
    for rule in rules:
        for name in rule.masks:
            if not any(_clears(other, name) for other in rules):
                masks.setdefault(name, rule.mask_of(name))
    others = [rule.others for rule in rules]
    deciding = ((name, _masking(rules, name)) for name in masks)
    searches = {name: most for name, one in deciding if one is not None and (most := one.searching(name)) is not None}
    return RelationFields(
        clear=frozenset(name for rule in rules for name in rule.clear),
        masks=masks,
        others=None if "clear" in others else next((Mask(MaskKind(kind)) for kind in others), HIDE),
        rules=tuple(rule.id for rule in rules) or ("fields",),
        rows=any(rule.rows == "clear" for rule in rules),
        searches=searches,
    )


def _clears(rule: FieldRule, name: str) -> bool:
    return name in rule.clear or (rule.others == "clear" and name not in rule.masks)
