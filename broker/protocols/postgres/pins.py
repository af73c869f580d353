"""The settings that the broker pins on every upstream session, by server version and role.

They go into the startup packet, so that RESET and a rolled-back SET come back to them. What they are, and what RESET
would bring, is read back before the client is let in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.engine.decisions import Effect
from policies.engine.model import Policy

OLDEST, NEWEST = 13, 18
SLACK_MS = 1000
"""How much later than the broker the upstream's own timeouts end things, should nobody else."""
STARTED = "(extract(epoch from backend_start) operator(pg_catalog.*) 1000000)::pg_catalog.int8"
"""A backend's start in microseconds since the epoch; one spelling, so that two readings are equal."""
ARMED = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)
"""Those of the pins that follow from how much time a session has."""
LOST_HOST = {
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "0",
}
"""Has the upstream notice within five seconds that the broker's host is lost without a word, and end its process.

That holds where it waits or computes (from 14 on). Where it is sending a result, its kernel gives up after a quarter of
an hour: a user timeout would be sooner, but Linux then counts no keepalives, and takes a client that leaves a result
unread for one that is lost. Not read back, for an upstream's system may lack one of them.
"""
# The functions behind pg_settings and pg_stat_activity: a new process takes twice as long to open those.
_VERIFICATION = """
    select '.pid', pg_catalog.pg_backend_pid()::pg_catalog.text, STARTED::pg_catalog.text
    from pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())
    union all
    select name, setting, reset_val from pg_catalog.pg_show_all_settings()
    where name operator(pg_catalog.=) any (array[NAMES]::pg_catalog.text[])""".replace("STARTED", STARTED)


def pinned(
    search_path: Sequence[str], *, version: int, remaining_ms: int, read_only: bool, session: str, clear: bool = False
) -> dict[str, str]:
    """Return the pins of one session; `version` is server_version_num, `remaining_ms` until the latest end.

    That is the grant's end with every extension that policy could give: what is armed upstream cannot be moved. `clear`
    says that nothing is masked for its person.
    """
    remaining = armed(remaining_ms)
    pins = {
        "client_encoding": "UTF8",
        "application_name": f"airlock:{session}",
        "search_path": quoted_path(search_path),
        "standard_conforming_strings": "on",
        "backslash_quote": "safe_encoding",
        "row_security": "on",
        "default_transaction_read_only": "on" if read_only else "off",
        "statement_timeout": remaining,
        "idle_in_transaction_session_timeout": remaining,
        # What a trigger or function says without being asked for it could be what it reads.
        "client_min_messages": "notice" if clear else "warning",
    }
    if version >= 140000:
        pins["idle_session_timeout"] = remaining
        pins["client_connection_check_interval"] = "500"
    if version >= 170000:
        # The others begin anew with each statement: a transaction of many short ones would go on.
        pins["transaction_timeout"] = remaining
    return pins


def never_changes(policy: Policy, person: str, resource: str, role: str) -> bool:
    """Say whether no rule could let this person change anything here, so that the session is pinned read-only."""
    changing = {Effect.WRITE, Effect.DDL, Effect.ADMIN}
    groups = policy.groups_of(person)
    return not any(
        rule.decision != "deny"
        and (not rule.resources or resource in rule.resources)
        and (not rule.roles or role in rule.roles)
        and (not rule.groups or groups & set(rule.groups))
        and (changing & set(rule.effects) or (not rule.effects and not rule.named_functions))
        for rule in policy.statements
    )


def armed(remaining_ms: int) -> str:
    """Return what the timeouts are set to, so long before a session's latest end."""
    return str(min(max(remaining_ms, 0) + SLACK_MS, 2_147_483_647))


def arming(pinned: Mapping[str, str]) -> str:
    """Return the query that arms a connection which was logged in before its session began.

    No session may change any of these, but RESET ALL, where it passes, goes back to what the login said of them.
    """
    calls = (f"pg_catalog.set_config('{name}', '{pinned[name]}', false)" for name in ARMED if name in pinned)
    return f"select {', '.join(calls)}"


def verification(names: Sequence[str]) -> str:
    """Return the query that reads back who the upstream session is, and its pins: as they are, and after a RESET."""
    return _VERIFICATION.replace("NAMES", ", ".join(f"'{name}'" for name in names))


def quoted_path(search_path: Sequence[str]) -> str:
    """Write a search path; pg_temp stands last, so that a temporary table cannot shadow a real one."""
    return ", ".join([_quoted(name) for name in search_path] + ["pg_temp"])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
