"""Identifiers and timestamps of the lengths and shapes that Slack's own have."""

import secrets
import string
import time
from collections.abc import Callable

_ALPHABET = string.ascii_uppercase + string.digits


def make_id(prefix: str) -> str:
    """Makes an identifier such as `V8K2Q0X41ZP`."""
    return prefix + "0" + "".join(secrets.choice(_ALPHABET) for _ in range(9))


def make_block_id() -> str:
    """Makes the id of a block that came without one."""
    return secrets.token_urlsafe(6)[:5].replace("-", "x").replace("_", "y")


def make_hash() -> str:
    """Makes the hash that tells one state of a view from the next."""
    return f"{int(time.time())}.{secrets.token_urlsafe(6)}"


def make_trigger(team: int = 1234567890) -> str:
    """Makes a trigger id: team number, moment, secret."""
    return f"{secrets.randbelow(10**13)}.{team}.{secrets.token_hex(16)}"


class Timestamps:
    """Gives message timestamps that grow and never repeat, whatever the clock does."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = 0

    def seen(self, ts: str) -> None:
        """Learns a timestamp that exists already."""
        self._last = max(self._last, micros(ts))

    def next(self) -> str:
        """Makes the next timestamp."""
        self._last = max(self._last + 1, int(self._clock() * 1_000_000))
        return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"


def micros(ts: str) -> int:
    """Reads a timestamp as whole microseconds; anything unreadable is 0."""
    seconds, _, fraction = ts.partition(".")
    if not (seconds.isascii() and seconds.isdigit() and (fraction or "0").isascii() and (fraction or "0").isdigit()):
        return 0
    return int(seconds) * 1_000_000 + int(fraction[:6].ljust(6, "0") or "0")
