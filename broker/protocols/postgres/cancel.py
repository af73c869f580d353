"""Cancel keys: the secret is the broker's own, random, one per session, never the upstream's; guesses are bounded.

The process id in a key is the upstream's, as clients compare it with what `pg_backend_pid()` and notifications say.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict

from broker.protocols.postgres.startup import CancelKey

GUESSES = 10
"""Wrong keys from one address within a window; beyond, its requests are not looked at until the window is over."""
WINDOW = 10.0
_ADDRESSES = 10_000


class CancelKeys:
    """The keys of a broker's sessions, which are named by their ids: a request comes in wherever in the broker."""

    def __init__(self) -> None:
        self._sessions: dict[int, dict[bytes, str]] = {}
        """By process id, which two upstreams may both have, and secret."""
        self._guesses: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def issue(self, session: str, pid: int) -> CancelKey:
        same = self._sessions.setdefault(pid, {})
        while (secret := secrets.token_bytes(4)) in same:
            pass
        same[secret] = session
        return CancelKey(pid, secret)

    def revoke(self, key: CancelKey) -> None:
        same = self._sessions.get(key.pid, {})
        same.pop(key.secret, None)
        if not same:
            self._sessions.pop(key.pid, None)

    def leave(self, sessions: frozenset[str]) -> None:
        """Revoke the keys of sessions that could not do so themselves."""
        for pid, same in list(self._sessions.items()):
            for secret in [secret for secret, session in same.items() if session in sessions]:
                self.revoke(CancelKey(pid, secret))

    def find(self, key: CancelKey, address: str, now: float) -> str | None:
        """Return the session of a key, or None: wrong, or one guess too many."""
        since, count = self._guesses.get(address, (now, 0))
        if now - since > WINDOW:
            since, count = now, 0
        if count >= GUESSES:
            return None
        for secret, session in self._sessions.get(key.pid, {}).items():
            if hmac.compare_digest(secret, key.secret):
                return session
        self._guesses[address] = since, count + 1
        self._guesses.move_to_end(address)
        if len(self._guesses) > _ADDRESSES:
            self._guesses.popitem(last=False)
        return None
