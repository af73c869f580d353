"""Fixtures that several kinds of tests share."""

import os
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.places import in_memory
from tests.support.postgres import Server, running_server

# A timed test proves nothing on a shared machine.
settings.register_profile("airlock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("airlock")

# With rich installed, a traceback shows every local of every frame, which takes seconds.
_plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plain])

# Else each process that a test starts would compile everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if (place := in_memory()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))


@pytest.fixture(scope="session")
def wheel_postgres() -> Iterator[Server]:
    """The PostgreSQL of the wheel, or what stands in its place, one for the whole run."""
    with running_server("wheel") as server:
        yield server


@pytest.fixture(scope="session")
def debian_postgres() -> Iterator[Server]:
    """Debian's PostgreSQL, one for the whole run."""
    with running_server("debian") as server:
        yield server


@pytest.fixture(scope="session", params=["wheel", "debian"])
def postgres(request: pytest.FixtureRequest) -> Server:
    """Each PostgreSQL that the product is tested on, in turn."""
    server: Server = request.getfixturevalue(f"{request.param}_postgres")
    return server
