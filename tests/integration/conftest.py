"""Which event loops the tests of this folder run on, and the psql programs that they are run with."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.integration.psqls import psqls
from tests.support.require import missing

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """What a module names in LOOPS; the broker runs on uvloop, whoever has none on the standard library's."""
    every: Loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    module = item.getparent(pytest.Module)
    names = getattr(module.obj, "LOOPS", ("asyncio",)) if module is not None else ("asyncio",)
    return {name: every[name] for name in names}


@pytest.fixture(params=range(2))
def psql(request: pytest.FixtureRequest) -> Path:
    """Each psql program here, in turn."""
    found = psqls()
    if not found:
        missing("no psql", "apt install postgresql-client")
    if request.param >= len(found):
        pytest.skip("there is one psql here")
    return found[request.param]
