"""Who calls: the bot's public key, read when it is needed because the bot may start later than the broker."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.adapters.auditkey import read_public
from broker.adapters.clock import SystemClock
from broker.errors import Misconfigured
from broker.sessions.services import Refusal
from workflows.orders import HoldAnswer, Order, OrderInvalid, verify_call, verify_hold_answer, verify_order


class OrderKey:
    """Implements Callers with the key in a file; a changed file is read again."""

    def __init__(self, path: Path, clock: SystemClock) -> None:
        self._path = path
        self._clock = clock
        self._read: tuple[tuple[int, int, int], Ed25519PublicKey] | None = None

    def actor(self, token: str, method: str, path: str) -> str:
        """Return who a signed call is made for; raises Refusal `unauthorized` or `no_order_key`."""
        try:
            return verify_call(token, method, path, self._key(), self._clock.now())
        except OrderInvalid as error:
            raise Refusal("unauthorized", str(error)) from None

    def order(self, token: str) -> Order:
        """Return the order inside a token; raises Refusal `order_invalid` or `no_order_key`."""
        try:
            return verify_order(token, self._key(), self._clock.now())
        except OrderInvalid as error:
            raise Refusal("order_invalid", str(error)) from None

    def hold_answer(self, token: str) -> HoldAnswer:
        """Return the answer inside a token; raises Refusal `order_invalid` or `no_order_key`."""
        try:
            return verify_hold_answer(token, self._key(), self._clock.now())
        except OrderInvalid as error:
            raise Refusal("order_invalid", str(error)) from None

    def _key(self) -> Ed25519PublicKey:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._read is None or self._read[0] != stamp:
                self._read = (stamp, read_public(self._path))
            return self._read[1]
        except (OSError, Misconfigured):
            raise Refusal(
                "no_order_key",
                "the bot's public key is not there yet, so no order can be checked",
                f"start the bot, or set AIRLOCK_ORDER_KEY; looked in {self._path}",
            ) from None
