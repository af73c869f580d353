"""Says whether a request was signed by Slack: https://docs.slack.dev/authentication/verifying-requests-from-slack."""

from __future__ import annotations

import hashlib
import hmac

OLDEST = 300
"""Seconds; what is older may be a replay. Slack's own number."""
_VERSION = "v0"


def untimely(timestamp: str, now: float) -> str | None:
    """Say what is wrong with a timestamp, which can be told before the body is read."""
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        return "the timestamp is missing or no number"
    return "the timestamp is too far from now" if abs(now - int(timestamp)) > OLDEST else None


def signature_of(secret: str, timestamp: str, body: bytes) -> str:
    """Return what Slack writes into `X-Slack-Signature`."""
    base = b":".join((_VERSION.encode(), timestamp.encode(), body))
    return f"{_VERSION}={hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()}"


def is_signed(secret: str, timestamp: str, signature: str, body: bytes) -> bool:
    """Compare in constant time; without a secret nothing is signed (fail closed)."""
    expected = signature_of(secret, timestamp, body)
    return bool(secret) and hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape"))
