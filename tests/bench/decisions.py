"""What a decision costs by itself, in this process: of texts that are new, and of texts that are known."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from broker.adapters.clock import SystemClock
from broker.protocols.postgres.catalogues import Catalogues, Key
from broker.protocols.postgres.inspector import Inspector, Matter
from broker.protocols.postgres.ruling import Permitted, Subject, rule
from broker.protocols.postgres.workers import Workers
from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from policies.engine.decide import field_view
from policies.engine.load import read_texts
from tests.bench.airlock import CLEAR, MASKED, PERSON, ROLE
from tests.support.ports import FixedPolicies

TIMES = 200
POINT = "SELECT abalance FROM pgbench_accounts WHERE aid = {};"
LONGER = (
    "SELECT a.aid, a.abalance, b.bbalance, count(h.delta) AS changes FROM pgbench_accounts a "
    "JOIN pgbench_branches b ON b.bid = a.bid LEFT JOIN pgbench_history h ON h.aid = a.aid "
    "WHERE a.aid = {} AND b.bbalance >= 0 GROUP BY 1, 2, 3 ORDER BY 2 LIMIT 10"
)


@dataclass(frozen=True, slots=True)
class _Shelf:
    """A catalogue that is there."""

    catalogue: Catalogue

    def held(self, _: object) -> Catalogue:
        return self.catalogue


class Decisions:
    """The decisions of one catalogue and policy; each call of `measure` gives microseconds by name."""

    def __init__(self, catalogue: Catalogue, policy_text: str) -> None:
        self._catalogue = catalogue
        self._policy = read_texts({"bench.yaml": policy_text})
        self._views = {resource: field_view(self._policy, PERSON, resource) for resource in (CLEAR, MASKED)}
        self._numbers = itertools.count(100_000)
        policies, shelf = FixedPolicies(self._policy), _Shelf(catalogue)
        self._inspector = Inspector(policies, cast(Catalogues, shelf), cast(Workers, None), SystemClock())
        self._matter = Matter(Subject(PERSON, CLEAR, ROLE), cast(Key, None))
        self._look_up(POINT.format(1))

    def rewritten(self, sql: str) -> str:
        """Return a statement as the broker sends it where two fields are masked."""
        return inspect(sql, self._catalogue, self._views[MASKED]).rewritten

    def measure(self) -> dict[str, float]:
        """Return the median of each kind of decision."""
        size = len(LONGER.format(100_000).encode())
        return {
            f"inspect {size} bytes, clear": self._time(LONGER, lambda sql: self._inspect(sql, CLEAR)),
            f"inspect {size} bytes, masked": self._time(LONGER, lambda sql: self._inspect(sql, MASKED)),
            "inspect a point select": self._time(POINT, lambda sql: self._inspect(sql, CLEAR)),
            "inspect and rule on it": self._time(POINT, self._decide),
            "a text that is known": self._time(POINT.replace("{}", "1"), self._look_up),
            "a text whose shape is known": self._time(POINT, self._look_up),
        }

    def _inspect(self, sql: str, resource: str) -> None:
        inspect(sql, self._catalogue, self._views[resource])

    def _decide(self, sql: str) -> None:
        inspection = inspect(sql, self._catalogue, self._views[CLEAR])
        assert isinstance(rule(self._policy, Subject(PERSON, CLEAR, ROLE), sql, inspection), Permitted)

    def _look_up(self, sql: str) -> None:
        assert isinstance(self._inspector.rule(self._matter, sql), Permitted)

    def _time(self, text: str, decide: Callable[[str], None]) -> float:
        texts = [text.format(next(self._numbers)) for _ in range(TIMES)]
        found: list[int] = []
        gc.collect()
        for sql in texts:
            started = time.perf_counter_ns()
            decide(sql)
            found.append(time.perf_counter_ns() - started)
        return statistics.median(found) / 1000
