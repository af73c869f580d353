"""The settings that the broker pins on every upstream session, by server version and role.

They go into the startup packet, so that RESET and a rolled-back SET come back to them. What they are after a RESET is
read back before the client is let in.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime

from broker.sql.paths import written
from broker.sql.settings import TIMEOUTS, milliseconds
from policies.engine.decisions import Effect
from policies.engine.model import Policy

OLDEST, NEWEST = 13, 18
SLACK_MS = 1000
"""How much later than the broker the upstream's own timeouts end things, should nobody else."""
STARTED = "(extract(epoch from backend_start) operator(pg_catalog.*) 1000000)::pg_catalog.int8"
"""A backend's start in microseconds since the epoch; one spelling, so that two readings are equal."""
ARMED = TIMEOUTS
"""Those of the pins that follow from how much time a session has."""
READ_ONLY, MESSAGES = "default_transaction_read_only", "client_min_messages"
_LEVELS = ("notice", "warning", "error")
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
_EPOCH = 946_684_800_000_000
"""The server's own epoch, 2000-01-01, in microseconds since the usual one."""
# Words that a new process understands without reading much of its catalogue; their order is that of the answers.
_VERIFICATION = """
    select pg_catalog.pg_backend_pid(), pg_catalog.encode(pg_catalog.timestamptz_send(backend_start), 'hex')
    from pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()); reset all"""


def pinned(
    search_path: Sequence[str], *, version: int, remaining_ms: int, read_only: bool, session: str, clear: bool = False
) -> dict[str, str]:
    """Return the pins of one session; `version` is server_version_num, `remaining_ms` until the latest end.

    That is the grant's end with every extension that policy could give: what is armed upstream cannot be moved. `clear`
    says that nothing is masked for its person.
    """
    lasting = armed(remaining_ms)
    pins = {
        "client_encoding": "UTF8",
        "application_name": f"airlock:{session}",
        "search_path": written(search_path),
        "standard_conforming_strings": "on",
        "backslash_quote": "safe_encoding",
        "row_security": "on",
        READ_ONLY: "on" if read_only else "off",
        "statement_timeout": lasting,
        "idle_in_transaction_session_timeout": lasting,
        # What a trigger or function says without being asked for it could be what it reads.
        MESSAGES: "notice" if clear else "warning",
    }
    if version >= 140000:
        pins["idle_session_timeout"] = lasting
        pins["client_connection_check_interval"] = "500"
    if version >= 170000:
        # The others begin anew with each statement: a transaction of many short ones would go on.
        pins["transaction_timeout"] = lasting
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
        and (changing & set(rule.effects) or (not rule.effects and rule.general))
        for rule in policy.statements
    )


def remaining(until: datetime, now: datetime) -> int:
    """Return how many milliseconds a session can still have."""
    return int((until - now).total_seconds() * 1000)


def armed(remaining_ms: int) -> str:
    """Return what the timeouts are set to, so long before a session's latest end."""
    return str(min(max(remaining_ms, 0) + SLACK_MS, 2_147_483_647))


def narrowed(pinned: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """Return pins with what a client asks for where that is less: shorter timeouts, no right to write, no notices."""
    shorter = {name: asked[name] for name in ARMED if name in pinned and int(asked.get(name, 0))}
    less = {name: min(pinned[name], value, key=int) for name, value in shorter.items()}
    if READ_ONLY in asked:
        less[READ_ONLY] = "on"  # It may ask for nothing else.
    if (level := asked.get(MESSAGES, "notice").lower()) != "notice":
        less[MESSAGES] = max(pinned[MESSAGES], level, key=_LEVELS.index)
    return {**pinned, **less}


def arming(pinned: Mapping[str, str]) -> str:
    """Return the query that arms a connection which was logged in before its session began.

    A session may make each of these shorter; RESET ALL goes back to what the login said of them.
    """
    return f"select {', '.join(_set(name, pinned[name]) for name in ARMED if name in pinned)}"


def _set(name: str, value: str) -> str:
    return f"pg_catalog.set_config('{name}', '{value}', false)"


def verification(names: Sequence[str], waits: Mapping[str, str]) -> str:
    """Return the query that reads back who the upstream session is, and its pins after a RESET: that is how it begins.

    One row says the process and its start, then there is a row of one value for each name, and for each that it then
    sets as in `waits`.
    """
    shows = (f"show {name}" for name in names)
    return "; ".join([_VERIFICATION, *shows, *(f"select {_set(name, value)}" for name, value in waits.items())])


def started(sent: str) -> int:
    """Read a backend's start as the verification sends it, in microseconds as STARTED has them; raises ValueError."""
    if len(sent) != 16:
        raise ValueError(sent)
    (count,) = struct.unpack(">q", bytes.fromhex(sent))
    return int(count) + _EPOCH


def kept(wanted: str, shown: str) -> bool:
    """Say whether what a server shows of a pin is what was asked for: milliseconds are shown in the unit that fits."""
    return milliseconds(shown) == int(wanted) if wanted.isdecimal() else shown == wanted
