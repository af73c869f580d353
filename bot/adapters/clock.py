"""The real clock and the real randomness."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without those that look alike."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class RandomIds:
    def short(self, prefix: str) -> str:
        return f"{prefix}-{''.join(secrets.choice(_LETTERS) for _ in range(8))}"

    def token(self) -> str:
        return secrets.token_hex(16)
