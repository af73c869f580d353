"""Examines one role of a resource as the broker uses it: what it connects to, what it may do, what the policy names.

Nothing stays changed: every query is read-only, the only process that is ended is one that was opened for it, and the
only role that is made, where sessions have roles of their own, is dropped again.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.errors import AirlockError, Misconfigured, UpstreamUnavailable
from broker.protocols.postgres import pins
from broker.protocols.postgres.admin import Admin
from broker.protocols.postgres.examining import (
    covered,
    fields,
    fitting,
    leftovers,
    provisioner,
    rights,
    server,
    shown_derived,
    typed,
)
from broker.protocols.postgres.identities import make
from broker.protocols.postgres.identity import identity_of
from broker.protocols.postgres.provision import wanted
from broker.protocols.postgres.rereading import read_rows
from broker.protocols.postgres.upstream import Upstream
from broker.sessions.findings import Finding, Grade, good, note, problem, warning
from broker.sessions.model import IdentityEnd, Lease
from broker.sessions.ports import Endpoint
from broker.sql.building import build
from policies.engine.model import Policy

_ROLE = """
    select rolname::text as name, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit,
           rolvaliduntil < now() + interval '7 days' as expires, rolvaliduntil::text as until,
           (select array_agg(g.rolname::text order by 1) from pg_roles g
            where g.oid <> r.oid and not r.rolsuper and pg_has_role(r.oid, g.oid, 'member')) as groups,
           has_database_privilege(current_database(), 'temp') as temp,
           has_database_privilege(current_database(), 'create') as creates,
           (select array_agg(nspname::text order by 1) from pg_namespace
            where has_schema_privilege(oid, 'create') and nspname !~ '^pg_(toast|temp)') as schemas,
           (select array_agg(lanname::text order by 1) from pg_language
            where not lanpltrusted and lanname not in ('internal', 'c')
                  and has_language_privilege(oid, 'usage')) as languages,
           (select array_agg(distinct format('%s %s.%s', case c.relkind when 'v' then 'view' when 'm' then 'view'
                   when 'S' then 'sequence' else 'table' end, n.nspname, c.relname)) from pg_class c
            join pg_namespace n on n.oid = c.relnamespace
            where c.relowner = r.oid and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')) as owns,
           (select array_agg(p.oid::regprocedure::text order by 1) from pg_proc p
            where p.proname in ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'lo_import', 'lo_export',
                                'pg_reload_conf', 'pg_rotate_logfile', 'pg_promote')
                  and p.pronamespace = 'pg_catalog'::regnamespace
                  and has_function_privilege(p.oid, 'execute')) as files
    from pg_roles r where rolname = current_user"""
_SERVER = """
    select current_setting('server_version') as version, current_setting('password_encryption') as passwords,
           current_setting('log_statement') as log_statement,
           current_setting('log_min_duration_statement') as log_duration,
           current_setting('track_counts')::bool as counts, current_database()::text as database,
           pg_is_in_recovery() as standby,
           (select ssl from pg_stat_ssl where pid = pg_backend_pid()) as tls,
           (select version from pg_stat_ssl where pid = pg_backend_pid()) as tls_version"""
_RELATIONS = """
    select n.nspname || '.' || c.relname as name, c.relkind::text as kind,
           has_schema_privilege(n.oid, 'usage') as reached,
           has_table_privilege(c.oid, 'select') as reads,
           has_table_privilege(c.oid, 'insert') as inserts, has_table_privilege(c.oid, 'update') as updates,
           has_table_privilege(c.oid, 'delete') as deletes, has_table_privilege(c.oid, 'truncate') as truncates,
           c.relrowsecurity as row_security,
           (select array_agg(a.attname::text order by a.attnum) from pg_attribute a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as fields,
           (select array_agg(distinct s.nspname::text) from pg_attribute a join pg_type d on d.oid = a.atttypid
            join pg_type t on t.oid = case d.typtype when 'd' then d.typbasetype else d.oid end
            join pg_namespace s on s.oid = t.typnamespace
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                  and not has_schema_privilege(s.oid, 'usage')) as unnamed
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    order by 1"""

_MAKER = """
    select rolname::text as name, rolsuper, rolcreaterole, rolinherit,
           pg_has_role($1, 'member with admin option') as hands_out
    from pg_roles where rolname = current_user"""
_LEFTOVERS = """
    select rolname::text as name, rolcanlogin as open from pg_roles
    where starts_with(rolname::text, 'airlock_s_') and (not rolcanlogin or rolvaliduntil < now())
    order by 1"""
TRIAL = "00000000"
"""In the names of roles that an examination makes, where a broker's own stands in others."""


async def examine(policy: Policy, resource: str, role: str, endpoint: Endpoint) -> list[Finding]:
    """Return everything that is right and wrong with a role; what cannot be reached is a finding too."""
    admin = Admin(endpoint)
    found = list(_transport(endpoint))
    try:
        version = await admin.version()
        (one,) = await admin.fetch(_SERVER)
        found += [*server(one, own_roles=endpoint.provisioner is not None), *_encrypted(endpoint, one)]
        (own,) = await admin.fetch(_ROLE)
        want = wanted(policy, resource, role, str(own["name"]))
        found += rights(own, str(one["database"]), alters=want.alters)
        relations = await admin.fetch(_RELATIONS)
        found += covered(want, relations)
        found += fields(policy, resource, relations)
        rows, version = await read_rows(admin)
        catalogue = build(rows, policy.resources[resource].search_path, version)
        found += [*typed(policy, resource, want.user, relations), *fitting(policy, resource, catalogue)]
        found += shown_derived(policy, resource, catalogue)
        if endpoint.provisioner is None:
            found += await _session(policy, resource, endpoint, admin, version)
    except (UpstreamUnavailable, Misconfigured) as error:
        found.append(problem(f"{_named(endpoint)} cannot be used: {error}", *_how(str(error), endpoint)))
    finally:
        await admin.close()
    if endpoint.provisioner is not None and all(one.grade is not Grade.PROBLEM for one in found):
        found += await _own_roles(policy, resource, endpoint, endpoint.provisioner)
    return found


async def _own_roles(policy: Policy, resource: str, endpoint: Endpoint, maker: Endpoint) -> list[Finding]:
    """Look at who makes the roles of sessions, and have it make one."""
    admin = Admin(maker)
    found: list[Finding] = []
    try:
        version = await admin.version()
        (own,) = await admin.fetch(_MAKER, endpoint.user)
        found += provisioner(own, endpoint.user, version)
        found += leftovers(await admin.fetch(_LEFTOVERS))
        if all(one.grade is not Grade.PROBLEM for one in found):
            found += await _session(policy, resource, endpoint, admin, version)
    except (UpstreamUnavailable, Misconfigured) as error:
        found.append(problem(f"{_named(maker)} cannot be used: {error}", *_how(str(error), maker)))
    finally:
        await admin.close()
    return found


def _transport(endpoint: Endpoint) -> Iterator[Finding]:
    """Judge what the policy says of TLS, before anything is sent."""
    if endpoint.tls == "verify-full":
        yield good("the policy has the server's certificate and name checked")
    elif endpoint.tls == "require":
        yield warning(
            "the connection is encrypted, but anybody could stand in for the server: its certificate is not checked",
            "in resources.yaml: tls: verify-full, and `ca:` for a certificate authority of your own",
        )
    elif _on_this_machine(endpoint.host):
        yield note("the connection is not encrypted; it does not leave this machine")
    else:
        yield problem(
            f"the connection to {endpoint.host} is not encrypted, and it leaves this machine",
            "in resources.yaml: tls: verify-full, and at the server: alter system set ssl = on;",
        )


def _on_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("/")


def _encrypted(endpoint: Endpoint, one: dict[str, Any]) -> Iterator[Finding]:
    if endpoint.tls != "disable":
        yield good(f"{one['tls_version']}") if one["tls"] else problem("the server answered without TLS")


def _named(endpoint: Endpoint) -> str:
    return f"{endpoint.user} at {endpoint.host}:{endpoint.port}, database {endpoint.database},"


def _how(error: str, endpoint: Endpoint) -> tuple[str, ...]:
    """Say what usually mends a connection that does not come about."""
    if "password authentication failed" in error or "InvalidPassword" in error:
        # The server says the same of a role that does not exist.
        made = "where the role is not made yet, `airlock provision RESOURCE --print` shows what makes it"
        return (f"put the right `user:password` where {endpoint.source.credential} points; {made}",)
    if "is not permitted to log in" in error:
        return (f"alter role {endpoint.user} login;",)
    if "permission denied for database" in error:
        return (f"grant connect on database {endpoint.database} to {endpoint.user};",)
    if "pg_hba" in error:
        kind = "host" if endpoint.tls == "disable" else "hostssl"
        return (f"in pg_hba.conf: {kind} {endpoint.database} {endpoint.user} ADDRESS/32 scram-sha-256",)
    if "rejected SSL upgrade" in error:
        without = " (or tls: disable in resources.yaml, for it is on this machine)"
        on = without if _on_this_machine(endpoint.host) else ""
        return (
            f"the server speaks no TLS; with a certificate: alter system set ssl = on; select pg_reload_conf();{on}",
        )
    if "SSL" in error or "certificate" in error:
        return ("name the server's certificate authority in resources.yaml, as `ca:`, and its name as `host:`",)
    if "asks for nothing" in error:
        kind = "host" if endpoint.tls == "disable" else "hostssl"
        line = f"{kind} {endpoint.database} {endpoint.user} ADDRESS/32 scram-sha-256"
        return (f"it lets anybody in (`trust`): in pg_hba.conf, above that line: {line}", "select pg_reload_conf();")
    if "SCRAM" in error:
        return (f"in psql, with password_encryption = 'scram-sha-256': \\password {endpoint.user}",)
    return ("check host, port and database in resources.yaml, and that the server listens there",)


async def _session(policy: Policy, resource: str, endpoint: Endpoint, admin: Admin, version: int) -> list[Finding]:
    """Open a session as the broker does, with SCRAM and every pin read back, and end it as the reaper does."""
    id_ = f"s{secrets.token_hex(8)}"
    held = policy.resources[resource]
    wanted_pins = pins.pinned(held.search_path, version=version, remaining_ms=60_000, read_only=True, session=id_)
    identity = identity_of(TRIAL, id_) if endpoint.provisioner is not None else None
    upstream = Upstream(identity.endpoint(endpoint) if identity is not None else endpoint)

    async def made() -> None:
        """Nothing has to outlive this."""
        if identity is not None:
            await make(admin, identity, endpoint.user, datetime.now(UTC) + timedelta(minutes=1))

    try:
        logged_in = await upstream.open({}, wanted_pins, made)
    except AirlockError as error:
        return [problem(f"a session does not open: {error}", *_how(str(error), endpoint))]
    now = datetime.now(UTC)
    lease = Lease(
        session=id_,
        grant="doctor",
        protocol="postgres",
        resource=resource,
        role="",
        expires_at=now + timedelta(minutes=1),
        broker_pid=0,
        local_port=0,
        source=endpoint.source,
        pid=logged_in.pid,
        backend_start=logged_in.backend_start,
        identity=identity.name if identity is not None else None,
    )
    opened = good("a session opens with SCRAM-SHA-256, and the server keeps what the broker pins")
    try:
        killed = await admin.kill(lease)
        if killed.identity is IdentityEnd.DROPPED:
            return [opened, good("the session had a role of its own: it is ended, verified gone, and its role dropped")]
        if killed.verified and identity is None:
            return [opened, good("a session of the role is ended by the broker, and verified gone")]
        mend = f"grant execute on function pg_terminate_backend to {endpoint.user};"
        return [opened, problem("a session of the role cannot be ended by the broker", mend)]
    finally:
        upstream.abort()
