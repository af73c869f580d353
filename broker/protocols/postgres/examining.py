"""Judges what an examination read: of the server, of the role, of the relations and fields that the policy names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from broker.protocols.postgres.provision import APART, CREATEROLE_REACHES, Wanted, qualified, quoted
from broker.sessions.findings import Finding, good, note, problem, warning
from broker.sql.catalogue import Catalogue
from broker.sql.masks import shows
from broker.sql.searching import comparing
from broker.sql.sight import sights
from policies.engine.decisions import HIDE, MaskKind, RelationFields
from policies.engine.model import Policy

Row = dict[str, Any]
SHOWN = 6
FEW_CONNECTIONS = 10
_ATTRIBUTES = {
    "rolsuper": ("superuser", "it is a superuser, for whom no right of the database holds"),
    "rolcreaterole": ("createrole", "it can make roles, and members of most"),
    "rolcreatedb": ("createdb", "it can make databases"),
    "rolreplication": ("replication", "it can read every change of every table by replication"),
    "rolbypassrls": ("bypassrls", "row security does not hold for it"),
}
_CHANGES = ("insert", "update", "delete", "truncate")


def server(one: Row, *, own_roles: bool = False) -> Iterator[Finding]:
    """Judge the server; its version was found to be served already. `own_roles` says that sessions have such."""
    yield good(f"PostgreSQL {one['version']}")
    if one["standby"]:
        yield note(
            "it is a hot standby: sessions can only read, and what mends a role or a right is run on its primary"
        )
        if own_roles:
            text = (
                "no role can be made on a standby, so no session with a role of its own (`identity: ephemeral`) opens"
            )
            yield problem(text, "in resources.yaml: identity: shared, or the primary as the upstream")
    if one["passwords"] != "scram-sha-256":
        yield warning(
            f"new passwords are stored as {one['passwords']}, with which no session opens",
            "alter system set password_encryption = 'scram-sha-256'; select pg_reload_conf();",
        )
    if not one["counts"]:
        yield warning(
            "the server does not count the rows that are changed, so a change with a row bound is refused",
            "alter system set track_counts = on; select pg_reload_conf();",
        )
    logs = one["log_statement"] != "none" or one["log_duration"] != "-1"
    if logs:
        how = f"log_statement {one['log_statement']}, log_min_duration_statement {one['log_duration']}"
        yield note(f"the server logs statements too ({how}): its log has literals, so guard it like the recordings")
    else:
        yield note("the server logs no statements: the recordings are the only account of them")


def rights(own: Row, database: str, *, alters: bool = False) -> Iterator[Finding]:
    """Judge what the role is and may do beside its tables; `alters` says that the policy lets it change the schema."""
    found = [*_attributes(own, alters=alters), *_memberships(own), *_limits(own)]
    if not own["rolsuper"]:
        found += [*([] if alters else _makes(own, quoted(database))), *_reaches(own)]
    yield from found or [good(f"{own['name']} can do nothing beside its tables")]


def _attributes(own: Row, *, alters: bool) -> Iterator[Finding]:
    user = quoted(own["name"])
    for key, (word, why) in _ATTRIBUTES.items():
        if own[key]:
            yield problem(f"{own['name']}: {why}", f"alter role {user} no{word};")
    if alters:
        yield note(
            f"{own['name']} may make, change and own what it has the right to: the policy lets it change the schema"
        )
    elif owned := own["owns"]:
        text = f"{own['name']} owns {_listed(owned)}, so it can change and grant them"
        yield problem(text, f"reassign owned by {user} to OWNER;")


def _memberships(own: Row) -> Iterator[Finding]:
    for group in own["groups"] or ():
        mend = f"revoke {quoted(group)} from {quoted(own['name'])};"
        if group.startswith("pg_"):
            yield problem(f"{own['name']} is a member of {group}, which may more than any policy says", mend)
        else:
            yield warning(f"{own['name']} is a member of {group}, and has its rights too", mend)


def _makes(own: Row, database: str) -> Iterator[Finding]:
    name, user = own["name"], quoted(own["name"])
    if own["temp"]:
        mend = f"revoke temporary on database {database} from public, {user};"
        yield problem(f"{name} can make temporary tables and functions", mend)
    if own["creates"]:
        yield problem(f"{name} can make schemas", f"revoke create on database {database} from public, {user};")
    for schema in own["schemas"] or ():
        mend = f"revoke create on schema {quoted(schema)} from public, {user};"
        yield problem(f"{name} can make tables and functions in the schema {schema}", mend)


def _reaches(own: Row) -> Iterator[Finding]:
    name, user = own["name"], quoted(own["name"])
    for language in own["languages"] or ():
        mend = f"revoke usage on language {quoted(language)} from public, {user};"
        yield problem(f"{name} may use the language {language}, which can do anything on the server", mend)
    for function in own["files"] or ():
        yield problem(f"{name} may call {function}", f"revoke execute on function {function} from public, {user};")


def _limits(own: Row) -> Iterator[Finding]:
    name, user = own["name"], quoted(own["name"])
    if 0 <= own["rolconnlimit"] < FEW_CONNECTIONS:
        text = f"{name} may open {own['rolconnlimit']} connections, of which the broker keeps up to 4"
        yield warning(text, f"alter role {user} connection limit -1;")
    if own["expires"]:
        yield warning(
            f"the password of {name} is good until {own['until']}", f"alter role {user} valid until 'infinity';"
        )


def provisioner(own: Row, level: str, version: int) -> Iterator[Finding]:
    """Judge who makes the roles of sessions."""
    name, user, apart = own["name"], quoted(own["name"]), version >= APART * 10000
    if own["rolsuper"]:
        yield problem(f"{name} is a superuser, where making roles is enough", f"alter role {user} nosuperuser;")
    if not own["rolcreaterole"]:
        yield problem(f"{name} cannot make the roles of sessions", f"alter role {user} createrole;")
    if not own["rolinherit"]:
        yield problem(f"{name} could not end the sessions whose roles it makes", f"alter role {user} inherit;")
    if apart and not own["hands_out"]:
        mend = f"grant {quoted(level)} to {user} with admin true, inherit false, set false;"
        yield problem(f"{name} cannot give the rights of {level} to the roles of sessions", mend)
    if not apart:
        yield note(f"{CREATEROLE_REACHES}: guard {name} as you guard the server's superuser")


def leftovers(rows: Sequence[Row]) -> Iterator[Finding]:
    """Judge roles of sessions that are over."""
    for row in rows:
        name = quoted(row["name"])
        if row["open"]:
            yield warning(f"{row['name']} was made for a session that is over", f"drop role {name};")
        else:
            text = f"{row['name']} was made for a session that is over, and owns something: it was disabled"
            mend = f"drop owned by {name}; -- or reassign owned by {name} to OWNER; in each database"
            yield warning(text, mend, f"drop role {name};")


def covered(want: Wanted, relations: Sequence[Row]) -> Iterator[Finding]:
    """Judge the relations: each one that the policy covers is there and can be read, and no other can."""
    user = quoted(want.user)
    by_name = {row["name"]: row for row in relations}
    names = [name for name in want.relations if not name.endswith(".*")]
    schemas = tuple(name.removesuffix("*") for name in want.relations if name.endswith(".*") and name != "*.*")
    if "*.*" in want.relations:
        schemas = tuple(dict.fromkeys(f"{name.partition('.')[0]}." for name in by_name))
    wrong = []
    for name in names:
        row = by_name.get(name)
        if row is None:
            wrong.append(problem(f"{name} does not exist", "take it from the role's `relations` in resources.yaml"))
        else:
            wrong += _reached(want, row, user)
    for prefix in schemas:
        within = [row for row in relations if row["name"].startswith(prefix)]
        if not within:
            wrong.append(problem(f"the schema {prefix.rstrip('.')} has no relations, or does not exist"))
        unread = [row["name"] for row in within if not (row["reached"] and row["reads"])]
        if unread:
            schema = quoted(prefix.rstrip("."))
            grants = (
                f"grant usage on schema {schema} to {user};",
                f"grant select on all tables in schema {schema} to {user};",
            )
            wrong.append(problem(f"{want.user} cannot read {_listed(unread)}", *grants))
        wrong += _changed(want, within, user)
    over = [
        row["name"]
        for row in relations
        if row["reached"]
        and row["reads"]
        and row["name"] not in names
        and not row["name"].startswith(schemas or ("\0",))
    ]
    if over:
        revokes = [f"revoke all on {qualified(name)} from public, {user};" for name in over[:SHOWN]]
        text = f"{want.user} could read {_listed(over)}, which the policy does not cover: the broker alone refuses it"
        wrong.append(warning(text, *revokes))
    yield from wrong or [good(f"{want.user} can read what its role covers, and nothing else")]


def _reached(want: Wanted, row: Row, user: str) -> Iterator[Finding]:
    name, schema = row["name"], quoted(row["name"].partition(".")[0])
    if not row["reached"]:
        yield problem(f"{want.user} may not use the schema of {name}", f"grant usage on schema {schema} to {user};")
    if not row["reads"]:
        yield problem(f"{want.user} cannot read {name}", f"grant select on {qualified(name)} to {user};")
    if row["kind"] == "f":
        yield warning(f"{name} is a foreign table, and statements on it are refused", "cover other tables instead")
    if want.writes and not _changes(row) and row["kind"] in ("r", "p"):
        grant = f"grant insert, update, delete on {qualified(name)} to {user};"
        yield warning(f"the policy lets the role change {name}, and {want.user} may not", grant)
    yield from _changed(want, [row], user)
    if row["row_security"]:
        yield note(f"{name} has row security: the role sees the rows that its policies give it")


def _changed(want: Wanted, rows: Sequence[Row], user: str) -> Iterator[Finding]:
    """Judge rights to change what no rule lets the role change: the broker alone would stand in the way."""
    changed = [row["name"] for row in rows if _changes(row)]
    if changed and not want.writes:
        words = _listed(sorted({word for row in rows for word in _changes(row)}, key=_CHANGES.index))
        revokes = [f"revoke {', '.join(_CHANGES)} on {qualified(name)} from public, {user};" for name in changed]
        text = f"{want.user} may {words} on {_listed(changed)}, and no rule lets the role change anything"
        yield warning(text, *revokes)


def _changes(row: Row) -> list[str]:
    return [word for word in _CHANGES if row[f"{word}s"]]


def fields(policy: Policy, resource: str, relations: Sequence[Row]) -> Iterator[Finding]:
    """Judge the field rules: every field that they name is there, and what nobody classified is named."""
    by_name = {row["name"]: set(row["fields"] or ()) for row in relations}
    named: dict[str, set[str]] = {}
    wrong = []
    for rule in policy.fields:
        if rule.resource != resource:
            continue
        known = by_name.get(rule.relation)
        if known is None:
            wrong.append(problem(f"fields `{rule.id}`: {rule.relation} does not exist", "mend it in fields.yaml"))
            continue
        mentioned = {*rule.clear, *rule.masks}
        named.setdefault(rule.relation, set()).update(mentioned)
        if missing := sorted(mentioned - known):
            text = f"fields `{rule.id}`: {rule.relation} has no {_listed(missing)}"
            wrong.append(problem(text, "mend the names in fields.yaml: a field that is not named is masked"))
    for relation, mentioned in sorted(named.items()):
        if unknown := sorted(by_name[relation] - mentioned):
            wrong.append(note(f"nobody has classified {_listed(unknown)} of {relation}: masked until somebody does"))
    if named and not wrong:
        yield good("every field that a rule names is there, and every field of those relations is classified")
    yield from wrong


def typed(policy: Policy, resource: str, user: str, relations: Sequence[Row]) -> Iterator[Finding]:
    """Judge the types of fields under rules: a mask names its type, so the role has to be let to."""
    ruled = {rule.relation for rule in policy.fields if rule.resource == resource}
    closed: dict[str, list[str]] = {}
    for row in relations:
        for schema in row["unnamed"] or () if row["name"] in ruled else ():
            closed.setdefault(schema, []).append(row["name"])
    for schema, names in closed.items():
        text = f"{user} may not use the schema {schema}, which has types of masked fields of {_listed(names)}"
        yield problem(text, f"grant usage on schema {quoted(schema)} to {quoted(user)};")


def fitting(policy: Policy, resource: str, catalogue: Catalogue) -> Iterator[Finding]:
    """Judge masks and searches by the types of their fields."""
    for rule in policy.fields:
        found = catalogue.by_name.get(rule.relation)
        for column in found.columns if found is not None and rule.resource == resource else ():
            name, mask = f"{rule.relation}.{column.name}", rule.masks.get(column.name)
            if mask is None:
                continue
            kind = column.type.removeprefix("pg_catalog.")
            if not shows(column, mask.made()):
                text = f"fields `{rule.id}`: `{mask.mask.value}` shows nothing of {name}, which is {kind}: it is hidden"
                yield warning(text, _SHOWN_OF[mask.mask])
            if mask.search is not None and comparing(column, catalogue) is None:
                text = f"fields `{rule.id}`: no search finds anything in {name}, which is {kind}"
                yield warning(text, "take `search` from it: texts, numbers, dates and uuids can be searched")


_SHOWN_OF = {
    MaskKind.KEYS: "keys are shown of jsonb: say `hide`",
    MaskKind.PARTIAL: "parts are shown of texts: say `hide`",
    MaskKind.FIXED: "say `hide`, or a value that every field of this type can have",
}


def shown_derived(policy: Policy, resource: str, catalogue: Catalogue) -> Iterator[Finding]:
    """Judge what rules show by name although it is made of masked fields: a view's column, a generated one."""
    view: dict[str, RelationFields] = {}
    for rule in policy.fields:
        if rule.resource == resource:
            # What any rule masks counts as masked: a group may see less than another.
            before = view.get(rule.relation)
            clear = frozenset(rule.clear)
            view[rule.relation] = RelationFields(clear & before.clear if before else clear)
    for rule in policy.fields:
        found = next((one for one in catalogue.by_oid.values() if one.qualified == rule.relation), None)
        if rule.resource != resource or found is None:
            continue
        derived = {column.name for column in found.columns if column.attnum in catalogue.generated.get(found.oid, {})}
        if found.kind in ("v", "m"):
            derived = {column.name for column in found.columns}
        hidden = {column.name for column in found.columns} - derived - view[rule.relation].clear
        without = RelationFields(view[rule.relation].clear - derived, dict.fromkeys(hidden, HIDE), others=None)
        why = sights(catalogue, {**view, rule.relation: without}).of(found).why
        for name in sorted(derived & set(rule.clear) & set(why)):
            yield warning(f"fields `{rule.id}` shows {rule.relation}.{name}, although it is {why[name]}")


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:SHOWN])
    left = len(names) - len(shown)
    return ", ".join([*shown, f"{left} more"] if left else shown)
