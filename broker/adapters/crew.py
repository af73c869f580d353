"""Several worker processes behind one port: this process listens, records and keeps what is shared; they serve.

A session lives in one worker from its first byte to its last. What there is once in a broker stays here, and workers
ask for it (`remote.py`): grants and tickets, holds, leases, recordings and the feed. A worker that dies takes only its
own sessions along, which are ended here as the reaper would, and another takes its place; when this process dies, they
all end with it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import structlog

from broker.adapters.burial import bury
from broker.adapters.process import Process
from broker.adapters.seats import Worker, WorkerFailed
from broker.transport.handing import give
from broker.transport.listener import Known, TcpListener

STOP_SECONDS = 5.0
LOOK_SECONDS = 0.5
MOST_MISSED = 40
"""How often a worker is looked at without an answer; then it is ended. By count: this process may stand still too."""
FEW_MISSED = 3
"""How often; beyond, connections go to others where there are any."""
WORKER_PATIENCE = 8.0
"""How long a client waits where no worker runs: the front door gives it ten seconds in all."""
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_log = structlog.get_logger("workers")


class Crew:
    """All workers, and the ports that they serve."""

    def __init__(self, process: Process, size: int) -> None:
        self._process = process
        self._size = size
        self._common = {name: offer.common() for name, offer in process.outside.offers.items()}
        self._workers: dict[int, Worker] = {}
        self._serving = asyncio.Event()
        self._listeners: list[TcpListener] = []
        self._visits = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        for name, common in self._common.items():
            common.heard(partial(self._tell, "told", name))
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None
        process.policies.heard.append(lambda policy: self._tell("policy", policy))

    @property
    def pids(self) -> list[int]:
        """Return the processes."""
        return [worker.child.pid for worker in self._workers.values() if worker.child is not None]

    def unready(self) -> list[str]:
        """Say what keeps sessions from opening."""
        return [] if self._workers else ["no worker process runs"]

    async def open(self, host: str, ports: Mapping[str, int]) -> dict[str, int]:
        """Start the workers, then listen on each protocol's port; returns the ports, raises WorkerFailed, OSError."""
        self._process.recorder.put_aside()
        # The first makes what they all read, such as a certificate.
        await self._start(1)
        await asyncio.gather(*(self._start(number) for number in range(2, self._size + 1)))
        for name, port in ports.items():
            listener = TcpListener(partial(self._hand, name))
            self._listeners.append(listener)
            await listener.open(host, port)
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="look after workers")
        return {name: listener.port for name, listener in zip(ports, self._listeners, strict=True)}

    async def close(self) -> None:
        """Stop accepting."""
        await asyncio.gather(*(listener.close() for listener in self._listeners))

    async def stop(self) -> None:
        """End every worker, after its sessions."""
        self._stopping = True
        if self._looking is not None:
            self._looking.cancel()
        self._tell("stop")
        workers = list(self._workers.values())
        waits = [asyncio.ensure_future(one.child.wait()) for one in workers if one.child is not None]
        if waits:
            await asyncio.wait(waits, timeout=STOP_SECONDS)
        for worker in workers:
            worker.end()
            worker.close()
            _leave(worker)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *waits, return_exceptions=True)

    def _tell(self, method: str, *arguments: Any) -> None:
        # One that turns out to be gone is taken out meanwhile.
        for worker in list(self._workers.values()):
            worker.channel.cast(method, *arguments)

    async def _start(self, number: int) -> None:
        worker = Worker(self._process, self._common, number, self._lost)
        try:
            await worker.start()
            # Of what has changed since it was told what it begins with, it has not heard.
            worker.channel.cast("policy", self._process.policies.current)
            anchor = self._process.clock.anchored
            worker.channel.cast("clock", anchor.wall, anchor.boot)
            if worker.channel.closed:
                # Nobody has heard of its end: it was none of the crew.
                raise WorkerFailed(f"{WorkerFailed.__doc__}: it was gone at once")
        except BaseException:
            worker.end()
            worker.close()
            raise
        self._workers[number] = worker
        self._serving.set()
        _log.info("a worker serves", worker=number, pid=worker.child.pid if worker.child is not None else None)

    async def _hand(self, name: str, accepted: socket.socket, address: str, visit: Known) -> None:
        """Give a connection to the worker that has least to do, and wait until it is served or refused."""
        number, served = next(self._visits), asyncio.get_running_loop().create_future()
        try:
            worker = await self._free()
            while worker is not None:
                worker.visits[number] = visit, served
                try:
                    await give(worker.over, accepted, (name, number, address))
                    await served
                    return
                except OSError:
                    # It is gone, and nothing was said to the client yet.
                    gone, worker = worker, await self._free(besides=worker)
                    gone.visits.pop(number, None)
        finally:
            accepted.close()

    async def _free(self, besides: Worker | None = None) -> Worker | None:
        """Return the worker that has least to do, once there is one; None where there is none in time."""
        if not self._workers:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._serving.wait(), WORKER_PATIENCE)
        others = [worker for worker in self._workers.values() if worker is not besides]
        return min(others, key=lambda one: (one.missed > FEW_MISSED, one.load), default=None)

    async def _look(self) -> None:
        """See that each worker answers, and that they reckon time from where this process does, for ever."""
        told: tuple[float, float] | None = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            anchor = self._process.clock.anchored
            now = anchor.wall, anchor.boot
            for worker in list(self._workers.values()):
                if now != told:
                    worker.channel.cast("clock", *now)
                if worker.missed > MOST_MISSED:
                    _log.error("a worker does not answer, so it is ended", worker=worker.number)
                    worker.end()
                worker.look()
            told = now

    def _lost(self, worker: Worker) -> None:
        """A worker is gone: end what it served, and start another in its place."""
        if self._workers.get(worker.number) is not worker:
            return
        del self._workers[worker.number]
        if not self._workers:
            self._serving.clear()
        if self._stopping:
            _leave(worker)
            return
        _log.error("a worker is gone, and its sessions with it", worker=worker.number, sessions=len(worker.sessions))
        self._begin(self._replace(worker), f"replace worker {worker.number}")

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, worker: Worker) -> None:
        worker.end()
        if worker.child is not None:
            await worker.child.wait()
        worker.close()
        for common in self._common.values():
            common.leave(frozenset(worker.sessions))
        sealed = asyncio.Event()
        for session in worker.sessions.values():
            # However long their upstreams take, nobody else waits.
            self._begin(bury(self._process, session, sealed), f"bury {session.facts.id}")
        pause = _PAUSE
        while True:
            try:
                # Another one begins with an empty journal, so what is in this one must be out of it.
                if not sealed.is_set():
                    self._process.recorder.take_up(worker.journal, worker.sealed)
                    sealed.set()
                await self._start(worker.number)
                break
            except Exception as error:  # noqa: BLE001  whatever it was, the next try may do better
                named = f"{type(error).__name__}: {error}"
                _log.error("a worker could not be replaced", worker=worker.number, error=named)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)


def _leave(worker: Worker) -> None:
    """Leave a worker's sessions to the reaper, because the broker stops."""
    for session in worker.sessions.values():
        session.settle(verified=False)
