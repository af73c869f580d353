"""The broker's process: settings in, services, protocols and the API up, everything down again on SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from broker.adapters.crew import Crew
from broker.adapters.endpoints import PolicyEndpoints
from broker.adapters.leases import LeaseFile
from broker.adapters.logs import configure_logs
from broker.adapters.policies import PolicyFiles
from broker.adapters.process import Outside, Process, database_url
from broker.adapters.tables import MIGRATIONS
from broker.api.routes import Services, make_app
from broker.config import Settings, read_settings
from broker.errors import AirlockError
from broker.protocols import offers
from broker.sessions.ports import Broker, Listener
from policies.engine.load import PolicyUnreadable
from workflows.storage.engine import DatabaseUnusable
from workflows.storage.migrate import migrate as migrate_database

_log = structlog.get_logger("broker")
_PLACES = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EROFS})
"""How the machine refuses a place to listen or to write."""


def main(workers: int | None = None) -> None:
    """Run a broker until it is told to stop; exits 2 where it cannot start."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    try:
        settings = read_settings() if workers is None else read_settings(workers=workers)
        configure_logs(settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except PolicyUnreadable as error:
        sys.exit(_stop("\n".join([f"{PolicyUnreadable.__doc__} (`airlock policy check`):", *error.findings])))
    except AirlockError as error:
        sys.exit(_stop(f"{type(error).__doc__}: {error}"))
    except DatabaseUnusable as error:
        sys.exit(_stop(str(error)))
    except OSError as error:
        place = error.errno in _PLACES or isinstance(error, socket.gaierror)
        sys.exit(_stop(f"{error}; {_settings()}" if place else str(error)))


def _settings() -> str:
    """Name the settings that say where a broker listens and writes."""
    ports = ", ".join(f"AIRLOCK_PORT_{name.upper()}" for name in offers())
    clients, bot = f"AIRLOCK_LISTEN_HOST and {ports}", "AIRLOCK_API_HOST and AIRLOCK_API_PORT"
    return f"{clients} say where clients connect, {bot} where the bot does, AIRLOCK_STATE where everything is kept"


def _stop(message: str) -> int:
    sys.stderr.write(f"broker: {message}\n")
    return 2


def migrate() -> None:
    """Bring the broker's database up to date; the release step."""
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        migrate_database(database_url(settings), MIGRATIONS)
    except AirlockError as error:
        sys.exit(_stop(f"{type(error).__doc__}: {error}"))
    except (DatabaseUnusable, OSError) as error:
        sys.exit(_stop(str(error)))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ports: dict[str, int] = {}
    process = Process(settings, lambda policies, _: _outside(settings, policies, ports))
    crew = Crew(process, settings.workers) if settings.workers > 1 else None
    listeners: list[Listener] = []
    runner = web.AppRunner(make_app(_services(process)), access_log=None, shutdown_timeout=2.0)
    try:
        await process.start()
        if crew is None:
            listeners = await _listen(settings, process, ports)
        else:
            process.monitor.watch(crew.unready)
            ports |= await crew.open(settings.listen_host, _wanted(settings, process))
        await runner.setup()
        await web.TCPSite(runner, settings.api_host, settings.api_port).start()
        host, port = runner.addresses[0][:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        # What is loaded by now stays: looking through it for garbage, as Python would, stops every session for a while.
        gc.collect()
        gc.freeze()
        if settings.ready_file is not None:
            workers = {} if crew is None else {"workers": crew.pids}
            _tell_ready(settings.ready_file, {"pid": os.getpid(), "api": url, "ports": ports, **workers})
        _log.info("the broker is ready", api=url, ports=ports, policy=process.policies.hash)
        await stop.wait()
        _log.info("the broker stops")
    finally:
        process.feed.close()
        closing = [listener.close() for listener in listeners] if crew is None else [crew.close()]
        await asyncio.gather(*closing, return_exceptions=True)
        await runner.cleanup()
        await process.end_sessions()
        if crew is not None:
            await crew.stop()
        await process.stop()


def _outside(settings: Settings, policies: PolicyFiles, ports: dict[str, int]) -> Outside:
    return Outside(
        offers=offers(),
        ports=ports,
        leases=LeaseFile(settings.home),
        endpoints=PolicyEndpoints(policies, settings.secrets_path),
    )


def _services(process: Process) -> Services:
    return Services(
        callers=process.key,
        orders=process.desk,
        grants=process.book,
        tickets=process.tickets,
        feed=process.feed,
        recordings=process.recordings,
        monitor=process.monitor,
        holds=process.holds,
        shapes=process.shapes,
    )


async def _listen(settings: Settings, process: Process, ports: dict[str, int]) -> list[Listener]:
    """Open every protocol's listener; `ports` is what tickets say."""
    broker = Broker(
        clock=process.clock,
        policies=process.policies,
        tickets=process.tickets,
        recorder=process.recorder,
        live=process.live,
        leases=process.outside.leases,
        endpoints=process.outside.endpoints,
        holds=process.holds,
        home=settings.home,
    )
    listeners: list[Listener] = []
    for name, port in _wanted(settings, process).items():
        listener = await process.outside.offers[name].listen(broker, settings.listen_host, port)
        ports[name] = listener.port
        listeners.append(listener)
    return listeners


def _wanted(settings: Settings, process: Process) -> dict[str, int]:
    return {name: settings.protocol_port(name, offer.default_port) for name, offer in process.outside.offers.items()}


def _tell_ready(path: Path, facts: dict[str, object]) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    main()
