"""What a policy's strict types cannot see: names that refer to nothing, and rules that never speak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from policies.engine.conditions import EVERY_FUNCTION
from policies.engine.decisions import Effect
from policies.engine.model import Policy, Resource, Role
from policies.engine.rules import AccessRule, Rule, StatementRule

COMMAND_WORDS = frozenset({"connect", "extend", "help", "list", "revoke", "status", "task"})
"""Words after `/access` that are commands, so no resource may be called so."""


def problems(policy: Policy) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what strict types cannot see, each with its path: names that refer to nothing, clashes."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    for name in policy.resources:
        if name in COMMAND_WORDS:
            found.append((("resources", name), f"`{name}` is a word of the /access command"))
        found += [(("resources", name, *path), text) for path, text in _path_problems(policy.resources[name])]
        found += [(("resources", name, *path), text) for path, text in _role_problems(policy.resources[name])]
    slack_ids: dict[str, str] = {}
    for handle, person in policy.people.items():
        found += [(("people", handle, "groups"), text) for text in _absent("group", person.groups, policy.groups)]
        if person.slack and slack_ids.setdefault(person.slack, handle) != handle:
            found.append(
                (("people", handle, "slack"), f"`{person.slack}` already belongs to `{slack_ids[person.slack]}`")
            )
    ids: set[str] = set()
    sections: tuple[tuple[str, list[AccessRule] | list[StatementRule]], ...] = (
        ("access", policy.access),
        ("statements", policy.statements),
    )
    for section, rules in sections:
        for index, rule in enumerate(rules):
            found += [((section, index, key), text) for key, text in _rule_problems(policy, rule)]
            found += _repeated(ids, rule.id, (section, index, "id"))
    for index, field_rule in enumerate(policy.fields):
        found += _repeated(ids, field_rule.id, ("fields", index, "id"))
        if field_rule.relation.endswith(".*"):
            text = "the fields of one relation are classified at a time: name it, without a star"
            found.append((("fields", index, "relation"), text))
        missing = _absent("resource", [field_rule.resource], policy.resources)
        found += [(("fields", index, "resource"), text) for text in missing]
        found += [(("fields", index, "groups"), text) for text in _absent("group", field_rule.groups, policy.groups)]
        for name in field_rule.masks:
            needed = field_rule.revealing(name)
            asked = {group for need in needed.needs for group in need.groups} if needed is not None else set()
            path = ("fields", index, "masks", name, "reviewers")
            found += [(path, text) for text in _absent("group", sorted(asked), policy.groups)]
    return found


def _absent(kind: str, names: Iterable[str], known: Iterable[str], where: str = "") -> list[str]:
    """Say which names refer to nothing, and what each may have been meant to be."""
    there = sorted(known)
    nearest = {name: get_close_matches(name, there, 1) for name in names if name not in there}
    return [
        f"no {kind} `{name}`{where}{f', did you mean `{near[0]}`?' if near else ''}" for name, near in nearest.items()
    ]


def warnings(policy: Policy) -> list[str]:
    """Return what is legal and worth a second look."""
    found = [
        f"fields `{rule.id}`: `others: clear` shows every new column of {rule.relation} to "
        f"{', '.join(rule.groups) or 'everybody'}"
        for rule in policy.fields
        if rule.others == "clear"
    ]
    found += [
        f"fields `{rule.id}`: `rows: clear` lets which rows {rule.relation} shows tell of masked fields"
        for rule in policy.fields
        if rule.rows == "clear"
    ]
    if "slack" in policy.resources:
        found.append("resource `slack`: `airlock doctor slack` examines the Slack app, never this resource")
    for rule in (*policy.access, *policy.statements):
        found += [
            f"rule `{rule.id}`: needs {need}, of whom there are {there}: "
            + ("nobody can ever meet that" if there < need.count else "too few where one of them asks or is away")
            for need in rule.requirement.needs
            if (there := len(policy.members(need.groups))) < need.count + 1
        ]
    found += [_shaped(rule) for rule in policy.statements if rule.offers_shape]
    found += [
        f"rule `{rule.id}` names no `effects`, so it lets changes of data and of the schema pass too"
        for rule in policy.statements
        if rule.decision == "allow"
        and not (rule.effects or rule.verbs or rule.functions or rule.copies or rule.settings)
    ]
    return [*found, *_idle(policy)]


def _shaped(rule: StatementRule) -> str:
    """Say what approving a shape gives away."""
    changes = not rule.effects or Effect.WRITE in rule.effects
    bounded = f", each change within {rule.max_rows} rows" if changes and rule.max_rows is not None else ""
    return (
        f"rule `{rule.id}`: `shape: grant` lets a statement whose shape was approved run with values that nobody sees "
        f"first, until the grant ends{bounded}"
    )


def _idle(policy: Policy) -> Iterator[str]:
    """Say which rules never decide anything, and why."""
    yield from _shadowed(policy.access)
    yield from _shadowed(policy.statements)
    for rule in (*policy.access, *policy.statements):
        if rule.groups and not policy.members(rule.groups):
            yield f"rule `{rule.id}` never speaks: nobody is in {' or '.join(rule.groups)}"
    for rule in policy.statements:
        if rule.offers_shape and not _has_shapes(rule):
            yield f"rule `{rule.id}`: its `shape` offers nothing: only SELECT, INSERT, UPDATE and DELETE have one"
        yield from _narrowed(policy, rule)
        if rule.decision == "ask" and rule.copies == ["in"]:
            yield f"rule `{rule.id}` lets nothing pass: what is copied in cannot be shown to reviewers first"
        if rule.missing_where and rule.effects and Effect.WRITE not in rule.effects:
            yield f"rule `{rule.id}` never speaks: only what writes can lack a WHERE"
        if rule.copy_limit is not None and rule.effects and not {*rule.effects} & {Effect.READ, Effect.WRITE}:
            yield f"rule `{rule.id}`: its `copy_limit` limits nothing, for it is about neither reading nor writing"
        yield from _unmasked(policy, rule)
        roles = _levels(policy, rule)
        for relation in rule.relations:
            if roles and not any(_meet(relation, covered) for role in roles for covered in role.relations):
                yield f"rule `{rule.id}`: no role that it speaks of covers {relation}"


def _has_shapes(rule: StatementRule) -> bool:
    about = not rule.effects or bool({*rule.effects} & {Effect.READ, Effect.WRITE})
    return about and not rule.copies and (not rule.verbs or bool({*rule.verbs} & _SHAPED))


def _narrowed(policy: Policy, rule: StatementRule) -> Iterator[str]:
    """Say where a rule about the schema lets little pass: fields are masked, so what could tell of them is refused."""
    about = {*rule.effects} & {Effect.DDL, Effect.ADMIN}
    masked = sorted({one.resource for one in policy.fields if not rule.resources or one.resource in rule.resources})
    if rule.decision != "deny" and about and masked:
        where = " and ".join(masked)
        yield f"rule `{rule.id}`: where fields are masked on {where}, only changes pass that can tell nothing"


def _unmasked(policy: Policy, rule: StatementRule) -> Iterator[str]:
    """Say what functions that may be called could read: they run with the role's rights, or their owner's."""
    named_ones = [name for name in rule.own_functions if name != EVERY_FUNCTION]  # which is for nobody with masks
    for resource in policy.resources if named_ones and rule.decision != "deny" else ():
        masked = dict.fromkeys(one.relation for one in policy.fields if one.resource == resource)
        if masked and (not rule.resources or resource in rule.resources):
            named = ", ".join(named_ones)
            yield (
                f"rule `{rule.id}`: {named} may read by themselves what is masked on {resource} ({', '.join(masked)}), "
                "and return it in clear: read their source first"
            )


def _levels(policy: Policy, rule: Rule) -> list[Role]:
    return [
        role
        for name, resource in policy.resources.items()
        for called, role in resource.roles.items()
        if (not rule.resources or name in rule.resources) and (not rule.roles or called in rule.roles)
    ]


def _meet(relation: str, covered: str) -> bool:
    (schema, name), (other, called) = relation.split("."), covered.split(".")
    if "*" in (schema, other):
        return True
    return schema == other and (name == called or "*" in (name, called))


_SHAPED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_RANK = {"deny": 2, "ask": 1, "allow": 0}
_SAYS = {"deny": "denies", "ask": "asks about", "allow": "allows"}


def _shadowed(rules: Sequence[Rule]) -> Iterator[str]:
    """Say which rules make no difference, for another speaks of all that they do and beats them, or says the same."""
    for index, rule in enumerate(rules):
        for at, other in enumerate(rules):
            beats = _RANK[other.decision] > _RANK[rule.decision] and (
                other.decision == "deny" or not _adds(rule, other)
            )
            same = other.decision == rule.decision != "ask" and at < index and not _adds(rule, other)
            if at != index and (beats or same) and _speaks_of_all(other, rule):
                yield f"rule `{rule.id}` makes no difference: `{other.id}` {_SAYS[other.decision]} all that it is about"
                break


def _adds(rule: Rule, other: Rule) -> bool:
    """Say whether a rule limits what another of the same decision lets pass."""
    if isinstance(rule, AccessRule):
        return rule.decision != "deny"
    if not isinstance(rule, StatementRule) or not isinstance(other, StatementRule):
        return False
    return any(
        mine is not None and mine != theirs
        for mine, theirs in (
            (rule.copy_limit, other.copy_limit),
            (rule.max_estimated_rows, other.max_estimated_rows),
        )
    )


def _speaks_of_all(other: Rule, rule: Rule) -> bool:
    """Say whether whatever a rule speaks of, another does too."""
    lists: list[tuple[Sequence[str], Sequence[str]]] = [
        (rule.resources, other.resources),
        (rule.roles, other.roles),
        (rule.groups, other.groups),
    ]
    if isinstance(rule, StatementRule) and isinstance(other, StatementRule):
        lists += [(rule.effects, other.effects), (rule.verbs, other.verbs), (rule.functions, other.functions)]
        lists += [(rule.relations, other.relations), (rule.copies, other.copies), (rule.settings, other.settings)]
        if rule.settings and not other.settings and other.decision != "deny":
            return False
        if other.missing_where not in (None, rule.missing_where) or (other.when and other.when != rule.when):
            return False
        if rule.decision != "deny" and not rule.copies and other.decision != "deny" and other.copies:
            return False
        if other.decision != "deny" and "in" in rule.copies and not other.copies:
            return False  # A rule without `copies` does not speak of COPY FROM, unless it denies.
    return all(not wide or (narrow and set(narrow) <= set(wide)) for narrow, wide in lists)


def _repeated(ids: set[str], rule: str, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], str]]:
    if rule in ids:
        return [(path, f"rule id `{rule}` is used twice")]
    ids.add(rule)
    return []


def _path_problems(resource: Resource) -> Iterator[tuple[tuple[str, int], str]]:
    for index, schema in enumerate(resource.search_path):
        if schema.startswith("pg_") or schema == "information_schema":
            # What stands there by itself is looked through in an order that the broker counts on.
            yield ("search_path", index), f"`{schema}` is the server's own: name schemas with tables of yours"
        elif schema in resource.search_path[:index]:
            yield ("search_path", index), f"`{schema}` is there already"


def _role_problems(resource: Resource) -> Iterator[tuple[tuple[str, str, str], str]]:
    for name, role in resource.roles.items():
        for lower in role.above:
            if lower not in resource.roles:
                yield ("roles", name, "above"), f"no role `{lower}` on this resource"
        if role.identity == "ephemeral" and resource.provisioner is None:
            yield ("roles", name, "identity"), "an ephemeral role needs a `provisioner` on its resource"
        if role.identity == "ephemeral" and role.spares:
            yield ("roles", name, "spares"), "an ephemeral role is made for its session, and cannot be ahead of it"
        if role.credential == resource.provisioner:
            yield ("roles", name, "credential"), "it is the provisioner's, which is no role of its own"
        if name in resource.below(name):
            yield ("roles", name, "above"), f"`{name}` would be lower than itself"


def _rule_problems(policy: Policy, rule: Rule) -> list[tuple[str, str]]:
    known = {role for name in rule.resources or policy.resources for role in _roles(policy, name)}
    reviewing = sorted({group for need in rule.requirement.needs for group in need.groups})
    missing = {
        "resources": _absent("resource", rule.resources, policy.resources),
        "roles": _absent("role", rule.roles, known, " on these resources"),
        "groups": _absent("group", rule.groups, policy.groups),
        "reviewers": _absent("group", reviewing, policy.groups),
    }
    return [(key, text) for key, texts in missing.items() for text in texts]


def _roles(policy: Policy, resource: str) -> set[str]:
    found = policy.resources.get(resource)
    return set(found.roles) if found else set()
