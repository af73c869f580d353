"""The wire models: the list of events names what the broker says, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from workflows.wire import EVENT_TYPES

BROKER = Path(__file__).parents[3] / "broker"


def test_every_event_that_the_broker_says_is_named_with_what_it_tells() -> None:
    sources = [path for path in BROKER.rglob("*.p*") if path.suffix in (".py", ".pyx", ".pxi")]
    nouns = "|".join(sorted({name.partition(".")[0] for name in EVENT_TYPES}))
    # What a logger is told is no event.
    event = re.compile(rf'(?<!_log\.info\()(?<!_log\.error\()(?<!_log\.warning\()"((?:{nouns})\.[a-z_]+)"')
    said = {name for path in sources for name in event.findall(path.read_text(encoding="utf-8"))}
    assert said == set(EVENT_TYPES)
