"""Searches of masked fields are rationed: each grant may run so many an hour on each field, over all its sessions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

HOUR = 3600.0
MOST_GRANTS = 10_000


@dataclass(slots=True)
class Rations:
    """When each grant searched each field, within the last hour; times are monotonic seconds."""

    _times: dict[tuple[str, str], deque[float]] = field(default_factory=dict)

    def take(self, grant: str, name: str, most: int, now: float) -> float:
        """Take one search of a field; returns 0, or how many seconds it is until there is one again."""
        times = self._times.setdefault((grant, name), deque())
        while times and times[0] <= now - HOUR:
            times.popleft()
        if len(times) >= most:
            return times[0] + HOUR - now
        times.append(now)
        if len(self._times) > MOST_GRANTS:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Forget what is older than an hour, of grants that are over."""
        self._times = {key: times for key, times in self._times.items() if times and times[-1] > now - HOUR}
