"""Cancel keys of the broker's own: random, one per session, never the upstream's; guesses are bounded."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from typing import Generic, TypeVar

from broker.protocols.postgres.startup import CancelKey

S = TypeVar("S")
GUESSES = 10
"""Wrong keys from one address within a window; beyond, its requests are not looked at until the window is over."""
WINDOW = 10.0
_ADDRESSES = 10_000


class CancelKeys(Generic[S]):
    def __init__(self) -> None:
        self._sessions: dict[int, tuple[bytes, S]] = {}
        self._guesses: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def issue(self, session: S) -> CancelKey:
        while (pid := secrets.randbelow(0x7FFF_FFFF) + 1) in self._sessions:
            pass
        key = CancelKey(pid, secrets.token_bytes(4))
        self._sessions[pid] = key.secret, session
        return key

    def revoke(self, key: CancelKey) -> None:
        self._sessions.pop(key.pid, None)

    def find(self, key: CancelKey, address: str, now: float) -> S | None:
        """Return the session of a key, or None: wrong, or one guess too many."""
        since, count = self._guesses.get(address, (now, 0))
        if now - since > WINDOW:
            since, count = now, 0
        if count >= GUESSES:
            return None
        secret, session = self._sessions.get(key.pid, (b"", None))
        if secret and hmac.compare_digest(secret, key.secret):
            return session
        self._guesses[address] = since, count + 1
        self._guesses.move_to_end(address)
        if len(self._guesses) > _ADDRESSES:
            self._guesses.popitem(last=False)
        return None
