"""The broker's own side: TLS and channel binding to the upstream, and upstreams that do not behave."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from broker.adapters.leases import LeaseFailed
from broker.demo.owner import server_home, server_owner
from broker.errors import UpstreamUnavailable
from broker.protocols.postgres import codec, login, pins
from broker.protocols.postgres.admin import Admin
from broker.protocols.postgres.upstream import Upstream
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint
from broker.transport.stream import Stream
from broker.transport.tls import certificate
from tests.integration.postgres_world import SLOW, backends, endpoint, make_world, psql
from tests.support.broker import serving
from tests.support.places import in_memory
from tests.support.postgres import Server, running_server


@pytest.fixture(scope="module")
def tls_postgres() -> Iterator[tuple[Server, Path]]:
    """A server that speaks TLS, and the certificate that it shows."""
    owner = server_owner()
    home = server_home(Path(tempfile.mkdtemp(prefix="airlock-test-tls-", dir=in_memory())), owner)
    crt, key = certificate(home, "127.0.0.1")
    if owner is not None:
        for path in (crt, key):
            os.chown(path, owner.uid, owner.gid)
    settings = {"ssl": "on", "ssl_cert_file": str(crt), "ssl_key_file": str(key)}
    # The wheel is built without TLS.
    with running_server("debian", settings) as server:
        make_world(server)
        yield server, crt
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_sessions_reach_an_upstream_by_tls_bound_to_its_channel(
    tls_postgres: tuple[Server, Path], tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, crt = tls_postgres
    mechanisms = []

    class Watched(login.ScramClient):
        def first(self) -> bytes:
            mechanisms.append(self.mechanism)
            return super().first()

    monkeypatch.setattr(login, "ScramClient", Watched)
    async with serving(tmp_path, endpoint(server, "app", tls=mode, ca=crt if mode != "require" else None)) as broker:
        async with await psycopg.AsyncConnection.connect(broker.ticket().dsn()) as connection:
            found = await connection.execute("select ssn from people limit 1")
            assert await found.fetchone() == ("***",)
        (app,) = server.execute(
            "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'app' and not ssl"
        )
        assert app == (0,)
    assert mechanisms == ["SCRAM-SHA-256-PLUS"]


async def test_an_upstream_that_cannot_be_verified_gets_no_credential(
    tls_postgres: tuple[Server, Path], wheel_postgres: Server, tmp_path: Path
) -> None:
    server, _ = tls_postgres
    other, _ = certificate(tmp_path / "other", "127.0.0.1")
    for bad in (
        endpoint(server, "app", tls="verify-full", ca=other),
        endpoint(server, "app", tls="verify-full", ca=None),
        endpoint(wheel_postgres, "app", tls="require"),
    ):
        async with serving(tmp_path / "broker", bad) as broker:
            assert "prod-db cannot be used now" in (await psql(broker.ticket(), "select 1"))[2]
        with pytest.raises(UpstreamUnavailable):
            await Upstream(bad).open({}, {})


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def pretending(script: Script) -> AsyncIterator[Endpoint]:
    """An upstream that says what a test wants."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Endpoint(
            "127.0.0.1",
            port,
            "shop",
            "app",
            "the-credential",
            "disable",
            None,
            Source("127.0.0.1", port, "shop", "disable", "file:x"),
        )


async def _startup(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)


async def test_who_asks_between_the_farewell_and_the_end_of_a_connection_asks_another(wheel_postgres: Server) -> None:
    make_world(wheel_postgres)
    clients: list[asyncio.StreamWriter] = []

    async def forwarding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        clients.append(writer)
        theirs = await asyncio.open_connection("127.0.0.1", wheel_postgres.port)
        await asyncio.gather(copy(reader, theirs[1]), copy(theirs[0], writer))

    async with pretending(forwarding) as end:
        admin = Admin(replace(end, password="app-password"))
        try:
            assert await admin.fetch("select 1 as one") == [{"one": 1}]
            farewell = {"S": "FATAL", "V": "FATAL", "C": "57P01", "M": "terminating connection"}
            clients[0].write(codec.fields(b"E", farewell))
            await asyncio.sleep(0.1)
            assert await admin.fetch("select 2 as two") == [{"two": 2}]
            assert len(clients) > 1
        finally:
            await admin.close()


METHODS = {
    "trust": codec.authentication(0),
    "clear text": codec.authentication(3),
    "md5": codec.authentication(5, b"salt"),
    "another mechanism": codec.authentication(10, codec.string("SCRAM-SHA-1") + b"\0"),
    "an endless message": b"R\x7f\xff\xff\xff",
    "nonsense": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an error": codec.fields(b"E", {"S": "FATAL", "C": "28P01", "M": "password authentication failed"}),
    "nothing": b"",
}


@pytest.mark.parametrize("name", METHODS)
async def test_upstreams_that_ask_for_anything_but_scram_get_nothing(name: str) -> None:
    seen = bytearray()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _startup(reader)
        writer.write(METHODS[name])
        if METHODS[name]:
            seen.extend(await reader.read())

    async with pretending(script) as end:
        upstream = Upstream(end)
        with pytest.raises(UpstreamUnavailable):
            await upstream.open({}, {})
        upstream.abort()
        await asyncio.sleep(0.05)
    assert b"the-credential" not in seen


async def test_an_upstream_that_asks_for_a_billion_iterations_is_refused_at_once() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _startup(reader)
        writer.write(codec.authentication(10, codec.string("SCRAM-SHA-256") + b"\0"))
        first = await reader.read(1000)
        nonce = first.split(b"r=")[1].decode()
        writer.write(codec.authentication(11, f"r={nonce}x,s=c2FsdA==,i=1000000000".encode()))
        await reader.read()

    async with pretending(script) as end, asyncio.timeout(20):
        upstream = Upstream(end)
        with pytest.raises(UpstreamUnavailable, match="iterations"):
            await upstream.open({}, {})
        upstream.abort()


async def test_bytes_behind_the_answer_to_the_tls_request_end_the_connection() -> None:
    from dataclasses import replace

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _startup(reader)
        writer.write(b"S" + codec.fields(b"E", {"S": "FATAL", "M": "injected"}))
        await reader.read()

    async with pretending(script) as end:
        with pytest.raises(UpstreamUnavailable) as caught:
            await Upstream(replace(end, tls="require")).open({}, {})
        assert "injected" not in str(caught.value)


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_is_sent_before_the_lease_is_written(fails: bool) -> None:
    order: list[str] = []
    left = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order.append("dialled")
        try:
            await _startup(reader)
            order.append("startup")
        finally:
            left.set()

    async def lease() -> None:
        await asyncio.sleep(0.05)
        if fails:
            raise LeaseFailed
        order.append("lease")

    async with pretending(script) as end, asyncio.timeout(20):
        with pytest.raises(LeaseFailed if fails else UpstreamUnavailable):
            await Upstream(end).open({}, {}, lease)
        await left.wait()
    assert order == (["dialled"] if fails else ["dialled", "lease", "startup"])


async def test_writing_a_lease_goes_on_for_no_connection_that_was_not_made() -> None:
    written: list[str] = []

    async def lease() -> None:
        written.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            written.append("left")

    async with pretending(lambda _reader, _writer: asyncio.sleep(0)) as end:
        pass
    with pytest.raises(UpstreamUnavailable):
        await Upstream(end).open({}, {}, lease)
    assert written in ([], ["begun", "left"])


SINCE = {"a statement": 14, "idle": 14, "short statements": 17}
"""Versions that end these by themselves; with others it is for the broker and the reaper alone."""
SLOW_PATH = {"a statement": SLOW, "idle": "", "idle in a transaction": "begin", "short statements": "begin"}


@pytest.mark.parametrize("version", ["wheel", "debian"])
async def test_the_upstream_ends_by_itself_what_nobody_else_has_ended(
    tls_postgres: tuple[Server, Path], wheel_postgres: Server, version: str
) -> None:
    server = wheel_postgres if version == "wheel" else tls_postgres[0]
    end = make_world(server)
    number = server.major * 10000
    pinned = pins.pinned(["public"], version=number, remaining_ms=0, read_only=True, session="s1")
    opened: dict[str, Upstream] = {}
    for state, text in SLOW_PATH.items():
        if server.major < SINCE.get(state, 0):
            continue
        opened[state] = Upstream(end)
        await opened[state].open({}, pinned)
        if text:
            _streamed(opened[state]).write([codec.query(text)])
    deadline = time.monotonic() + 40
    while not all(_streamed(one).gone for one in opened.values()):
        assert time.monotonic() < deadline, [state for state, one in opened.items() if not _streamed(one).gone]
        if "short statements" in opened:
            _streamed(opened["short statements"]).write([codec.query("select 1")])
        await asyncio.sleep(0.1)
    assert not backends(server)


def _streamed(upstream: Upstream) -> Stream:
    assert upstream.stream is not None
    return upstream.stream
