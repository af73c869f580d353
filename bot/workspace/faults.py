"""Misbehaviour on request, so that an app's answer to a bad day can be tried."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

KNOWN = "status, drop, rate, duplicate, lose_ack, delay_ms, signature, silent_socket, drop_socket, disconnect"


class UnknownFault(ValueError):
    """fault is not one of those described in the README"""


@dataclass(slots=True)
class CallFault:
    """The next calls of a method fail; `drop` closes the connection `before` or `after` the work is done."""

    method: str | None
    count: int
    status: int = 200
    retry_after: int = 1
    drop: str | None = None


@dataclass(slots=True)
class Rate:
    """At most `most` calls of a method in a channel within a time, as Slack has it; more are refused with 429."""

    method: str
    most: int
    per_ms: int
    made: dict[str, list[float]] = field(default_factory=dict)

    def refuses(self, channel: str, now: float) -> float:
        """Say how many seconds to wait; 0 where the call is let through, and counted."""
        recent = [at for at in self.made.get(channel, []) if at > now - self.per_ms / 1000]
        if len(recent) >= self.most:
            return recent[0] + self.per_ms / 1000 - now
        self.made[channel] = [*recent, now]
        return 0.0


@dataclass(slots=True)
class Faults:
    """What is still to go wrong."""

    calls: list[CallFault] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    duplicate: int = 0
    lose_ack: int = 0
    delay_ms: int = 0
    delayed: int = 0
    signature: str = ""
    signed_badly: int = 0

    def add(self, wish: dict[str, Any]) -> None:
        """Arms a fault."""
        count = _whole(wish, "count", 1)
        if "status" in wish or "drop" in wish:
            status = _whole(wish, "status", 200)
            drop = wish.get("drop")
            if drop not in (None, "before", "after") or (drop is None and status not in (429, 500, 503)):
                raise UnknownFault("`status` is 429, 500 or 503; `drop` is before or after")
            self.calls.append(CallFault(wish.get("method"), count, status, _whole(wish, "retry_after", 1), drop))
        elif "rate" in wish:
            per_ms = max(_whole(wish, "per_ms", 1000), 1)
            self.rates.append(Rate(str(wish.get("method", "")), _whole(wish, "rate", 1), per_ms))
        elif "duplicate" in wish:
            self.duplicate = _whole(wish, "duplicate", 1)
        elif "signature" in wish:
            if wish["signature"] not in ("wrong", "stale", "missing"):
                raise UnknownFault("`signature` is wrong, stale or missing")
            self.signature, self.signed_badly = wish["signature"], count
        elif "lose_ack" in wish:
            self.lose_ack = _whole(wish, "lose_ack", 1)
        elif "delay_ms" in wish:
            self.delay_ms, self.delayed = _whole(wish, "delay_ms", 0), count
        else:
            raise UnknownFault(f"expected one of {KNOWN}")

    def for_call(self, method: str) -> CallFault | None:
        """Takes the fault that the next call of this method meets."""
        for fault in self.calls:
            if fault.method in (None, method):
                fault.count -= 1
                if fault.count <= 0:
                    self.calls.remove(fault)
                return fault
        return None

    def too_fast(self, method: str, channel: str) -> CallFault | None:
        """Refuse a call that comes too soon after others in its channel; Slack speaks of whole seconds."""
        for rate in self.rates:
            if rate.method == method and (wait := rate.refuses(channel, time.monotonic())) > 0:
                return CallFault(method, 1, 429, math.ceil(wait))
        return None

    def take(self, name: str) -> bool:
        """Takes one of the counted delivery faults."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0

    def clear(self) -> None:
        """Disarms everything."""
        self.calls.clear()
        self.rates.clear()
        self.duplicate = self.lose_ack = self.delay_ms = self.delayed = self.signed_badly = 0

    def armed(self) -> dict[str, Any]:
        """Says what is still to come."""
        return asdict(self)


def _whole(wish: dict[str, Any], key: str, default: int) -> int:
    value = wish.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UnknownFault(f"`{key}` is a whole number")
    return value
