"""SQL for roles that can do what the policy lets them do, and no more; text only, nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policies.engine.decisions import Effect
from policies.engine.model import Policy

APART = 16
"""Since this version CREATEROLE reaches only the roles that it was given, and made."""
CREATEROLE_REACHES = (
    f"before version {APART} a role with CREATEROLE makes itself a member of any role that is no superuser, also of "
    "pg_execute_server_program"
)
RIGHTS = "login nosuperuser nocreatedb nocreaterole noreplication nobypassrls"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A role as the policy wants it: its name upstream, what it covers, whether it may change rows and the schema."""

    user: str
    database: str
    relations: tuple[str, ...]
    writes: bool
    alters: bool = False


def wanted(policy: Policy, resource: str, role: str, user: str) -> Wanted:
    """Return what a resource's role needs."""
    held = policy.resources[resource]
    writes, alters = (
        any(
            rule.decision != "deny"
            and (not rule.resources or resource in rule.resources)
            and (not rule.roles or role in rule.roles)
            and (effect in rule.effects if rule.effects else rule.general)
            for rule in policy.statements
        )
        for effect in (Effect.WRITE, Effect.DDL)
    )
    return Wanted(user, held.upstream.database, tuple(held.roles[role].relations), writes, alters)


def provision(want: Wanted) -> list[str]:
    """Return the statements that make a good role, to be run by an administrator in the role's database."""
    user, database = quoted(want.user), quoted(want.database)
    every = "*.*" in want.relations
    relations = [name for name in want.relations if name != "*.*"]
    schemas = list(dict.fromkeys(quoted(name.partition(".")[0]) for name in relations))
    lines = [
        f"-- {want.user}, in the database {want.database}",
        "set password_encryption = 'scram-sha-256';",
        f"create role {user} {RIGHTS};",
        f"-- choose a password, as psql asks for it: \\password {user}",
        f"revoke temporary on database {database} from public;",
        f"grant connect on database {database} to {user};",
    ]
    for schema in schemas:
        lines += [f"revoke create on schema {schema} from public;", f"grant usage on schema {schema} to {user};"]
    rights = "select, insert, update, delete" if want.writes else "select"
    lines += [f"grant {rights} on {target} to {user};" for target in _targets(relations)]
    if every:
        lines.append(
            f"-- the policy covers every schema: grant usage on each, and {rights} on all its tables, to {user}"
        )
    lines += [
        f"-- tables of tomorrow: who makes them runs, once: alter default privileges in schema {schema} grant {rights} "
        f"on tables to {user};"
        for schema in (quoted(name.removesuffix(".*")) for name in relations if name.endswith(".*"))
    ]
    if want.writes:
        lines += [f"grant usage on all sequences in schema {schema} to {user};" for schema in schemas]
    return lines


def provisioner(maker: str, levels: Sequence[str], database: str, version: int) -> list[str]:
    """Return the statements that make who makes a role for each session, and ends it, on a server's major version.

    From 16 on it is an administrator of nothing but the levels, whose rights it has only by the sessions that it made.
    """
    user, apart = quoted(maker), version >= APART
    lines = [
        f"-- {maker} makes a role for each session of {' and '.join(levels)}, ends it and drops it",
        f"create role {user} login createrole inherit nosuperuser nocreatedb noreplication nobypassrls;",
        f"-- choose a password, as psql asks for it: \\password {user}",
        f"grant connect on database {quoted(database)} to {user};",
    ]
    if apart:
        lines.append(f"-- as version {APART} and newer understand it: `--server {APART - 1}` writes it for older ones")
        lines += [f"grant {quoted(level)} to {user} with admin true, inherit false, set false;" for level in levels]
    else:
        lines.append(f"-- {CREATEROLE_REACHES}: guard {maker} as you guard the server's superuser")
    lines += [
        "-- in pg_hba.conf the roles of sessions are members of their level, where it does not let everybody in:",
        *(f"-- hostssl {quoted(database)} +{quoted(level)} ADDRESS/32 scram-sha-256" for level in levels),
    ]
    return lines


def _targets(relations: Sequence[str]) -> list[str]:
    named = [relation for relation in relations if not relation.endswith(".*")]
    whole = [relation.removesuffix(".*") for relation in relations if relation.endswith(".*")]
    tables = [", ".join(qualified(relation) for relation in named)] if named else []
    return [*tables, *(f"all tables in schema {quoted(schema)}" for schema in whole)]


def qualified(relation: str) -> str:
    """Quote a relation's name of two parts, where it needs it."""
    schema, _, name = relation.partition(".")
    return f"{quoted(schema)}.{quoted(name)}"


def quoted(name: str) -> str:
    """Quote a name where it needs it; a plain word stays as people write it."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower() and not name[0].isdigit()
    if plain and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


_RESERVED = frozenset(
    "all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation "
    "column concurrently constraint create cross current_catalog current_date current_role current_schema current_time "
    "current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze "
    "from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like "
    "limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary "
    "references returning right select session_user similar some symmetric system_user table tablesample then to "
    "trailing true union unique user using variadic verbose when where window with".split()
)
"""PostgreSQL's reserved words, of versions 13 to 18."""
