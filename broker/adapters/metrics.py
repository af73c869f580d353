"""The few counters a monitor needs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One registry per broker; labels take only values from the program's own text."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.events = Counter("airlock_events", "Recorded events by type", ["type"], registry=self._registry)
        self.calls = Counter(
            "airlock_api_calls", "API calls by route and status", ["route", "status"], registry=self._registry
        )
        self.orders = Counter("airlock_orders", "Orders by outcome", ["outcome"], registry=self._registry)
        self.failures = Counter(
            "airlock_recording_failures", "Records that could not be written", registry=self._registry
        )
        self.sessions = Gauge("airlock_sessions", "Live sessions", registry=self._registry)
        self.grants = Gauge("airlock_active_grants", "Active grants", registry=self._registry)
        self.kills = Histogram(
            "airlock_session_end_seconds",
            "From the decision to end a session to its upstream work verified gone",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10),
            registry=self._registry,
        )
        self.tally: dict[str, int] = {}
        """Events since the last look, from one thread."""

    def recorded(self, kind: str) -> None:
        """Count an event; from one thread."""
        self.tally[kind] = self.tally.get(kind, 0) + 1

    def render(self) -> bytes:
        """Return the text exposition."""
        counted, self.tally = self.tally, {}
        for kind, number in counted.items():
            self.events.labels(kind).inc(number)
        return generate_latest(self._registry)
