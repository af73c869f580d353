"""`python -m broker.worker`: a process that serves sessions for a broker of several; the broker starts and ends it.

It has the protocols and the credentials of their upstreams; what there is once in a broker it asks for (`remote.py`).
It ends when it is told to, or when the broker is no more: its sessions end with it, and the reaper sees to what they
leave.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import structlog
import uvloop

from broker.adapters.clock import SystemClock
from broker.adapters.endpoints import PolicyEndpoints
from broker.adapters.journal import worker_journal
from broker.adapters.logs import configure_logs
from broker.adapters.remote import (
    Far,
    Promises,
    RemoteHolds,
    RemoteLeases,
    RemoteLive,
    RemotePolicies,
    RemoteRecorder,
    RemoteTickets,
)
from broker.config import Settings
from broker.errors import AirlockError
from broker.protocols import offers
from broker.sessions.ports import Broker, Listener
from broker.transport.channel import Channel
from broker.transport.handing import Door
from policies.engine.model import Policy

_log = structlog.get_logger("worker")


def main() -> None:
    """Serve until the broker says otherwise."""
    settings = Settings()
    configure_logs(settings.log_level)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    # Who stops a whole service at once tells each of its processes; the broker ends this one when its sessions have.
    for ignored in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    number, channel, over = map(int, sys.argv[1:])
    for descriptor in (channel, over):
        # Nobody that this process starts keeps them open when it is gone.
        os.set_inheritable(descriptor, False)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Serving(settings, number, socket.socket(fileno=channel), socket.socket(fileno=over)).run())
    except (AirlockError, OSError) as error:
        sys.stderr.write(f"worker {number}: {error}\n")
        sys.exit(2)


class _Serving:
    """The services of a worker, and what the broker has it do."""

    def __init__(self, settings: Settings, number: int, channel: socket.socket, over: socket.socket) -> None:
        self._settings = settings
        self._number = number
        self._sockets = channel, over
        self._stop = asyncio.Event()
        self._promises = Promises()
        self._clock = SystemClock()
        self._told: dict[str, Callable[..., object]] = {}

    async def run(self) -> None:
        connection, over = self._sockets
        self._begun: asyncio.Future[Policy] = asyncio.get_running_loop().create_future()
        channel = Channel(connection, self._asked, self._alone)
        self._live = RemoteLive(channel)
        self._policies = RemotePolicies(await self._begun)
        door = Door(over, lambda visit: channel.cast("known", visit), lambda visit: channel.cast("left", visit))
        listeners = await self._serve(channel, door)
        gc.collect()
        gc.freeze()
        door.open()
        channel.cast("ready")
        await self._stop.wait()
        await door.close()
        await asyncio.gather(*(listener.close() for listener in listeners), return_exceptions=True)

    async def _serve(self, channel: Channel, door: Door) -> list[Listener]:
        settings = self._settings
        recorder = RemoteRecorder(channel, self._promises, worker_journal(settings.home, self._number))
        broker = Broker(
            clock=self._clock,
            policies=self._policies,
            tickets=RemoteTickets(channel),
            recorder=recorder,
            live=self._live,
            leases=RemoteLeases(channel, settings.home),
            endpoints=PolicyEndpoints(self._policies, settings.secrets_path),
            holds=RemoteHolds(channel, self._promises, recorder),
            home=settings.home,
            common={name: Far(channel, name) for name in offers()},
            door=door,
            told=self._told,
        )
        return [await offer.listen(broker, settings.listen_host, 0) for offer in offers().values()]

    def _asked(self, method: str, arguments: tuple[Any, ...]) -> Any:
        match method:
            case "begin":
                policy, wall, boot = arguments
                self._clock.reckon(wall, boot)
                self._begun.set_result(policy)
            case "policy":
                self._policies.obey(*arguments)
            case "clock":
                self._clock.reckon(*arguments)
            case "told":
                name, *said = arguments
                self._told[name](*said)
            case "kept":
                self._promises.keep(*arguments)
            case "end":
                return self._live.end_one(*arguments)
            case "extend":
                return self._live.extend_one(*arguments)
            case "cancel":
                return self._live.cancel_one(*arguments)
            case "stop":
                self._stop.set()
            case "alive":
                return True
            case _:
                raise AssertionError(method)
        return None

    def _alone(self) -> None:
        """Without the broker nothing can be recorded, so nothing more happens here (fail closed)."""
        _log.error("the broker is gone, and this worker with it", worker=self._number)
        os._exit(1)


if __name__ == "__main__":
    main()
