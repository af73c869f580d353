"""Builtin functions that do more than compute: one passes only under a rule that names it."""

from __future__ import annotations

_ACTING = "nextval setval pg_notify pg_cancel_backend pg_terminate_backend"
_WAITING = """
    pg_sleep pg_sleep_for pg_sleep_until pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock
    pg_advisory_xact_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock
    pg_try_advisory_xact_lock_shared pg_advisory_unlock pg_advisory_unlock_shared txid_current
    pg_current_xact_id
"""
NAMED: dict[str, bool] = {**dict.fromkeys(_WAITING.split(), False), **dict.fromkeys(_ACTING.split(), True)}
"""Function -> whether it acts on what outlives its statement: it then needs a rule that says `effects: [write]` too.

None of them reads tables, or runs SQL that it is given: what does is never let pass.
"""
