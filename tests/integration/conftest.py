"""Which event loops the tests of this folder run on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """What a module names in LOOPS; the broker runs on uvloop, whoever has none on the standard library's."""
    every: Loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    module = item.getparent(pytest.Module)
    names = getattr(module.obj, "LOOPS", ("asyncio",)) if module is not None else ("asyncio",)
    return {name: every[name] for name in names}
