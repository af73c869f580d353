"""The small world that the PostgreSQL integration tests run in: a masked table, a plain one, two roles."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from broker.protocols.postgres import codec
from broker.protocols.postgres.scram import ScramClient, salted_password
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint
from tests.support.broker import Shown, TestBroker
from tests.support.postgres import Server

SET_UP = (
    "create table people (id int primary key, name text, ssn text unique)",
    "insert into people values (1, 'Ann', '123-45-6789'), (2, 'Bo', '987-65-4321')",
    "create table notes (id int primary key, body text)",
    "insert into notes select g, 'note ' || g from generate_series(1, 1000) g",
    "create table log (id int generated always as identity, what text)",
    "create function spent(integer) returns bigint stable language sql as 'select count(*) from notes where id < $1'",
    "create function spent(text) returns text immutable language sql as 'select upper($1)'",
    "create function noted(what text) returns void language sql as 'insert into log (what) values ($1)'",
    "create function everybody() returns setof people stable language sql as 'select * from people'",
    "create function told() returns text stable language plpgsql as "
    "$$begin raise exception 'it is %', (select ssn from people where id = 1); end$$",
    "grant select on people to app",
    "grant select, insert, update, delete on notes, log to app, app_write",
    "grant select, insert on people to app_write",
    "grant usage, create on schema public to app_write",
)

SLOW = "select count(*) from notes a, notes b, notes c, notes d where a.body || b.body <> c.body || d.body"


def make_world(server: Server, *more: str, dbname: str = "shop") -> Endpoint:
    """Make the database afresh, with what more is said, and return the read role's endpoint."""
    for role in ("app", "app_write"):
        if role not in server.passwords:
            server.create_role(role, f"{role}-password")
    server.create_database(dbname)
    with server.connect(dbname) as connection:
        for statement in (*SET_UP, *more):
            connection.execute(statement.encode())
    return endpoint(server, "app", dbname)


def make_maker(server: Server) -> Endpoint:
    """Make the role that makes a role for each session of the read role's, and is no superuser."""
    server.create_role("maker", "maker-password")
    server.execute("alter role maker createrole inherit")
    if server.major >= 16:
        server.execute("grant app to maker with admin true, inherit false, set false")
    return endpoint(server, "maker")


def session_roles(server: Server) -> list[str]:
    return [str(name) for (name,) in server.execute("select rolname from pg_roles where rolname like 'airlock_s_%'")]


def endpoint(server: Server, role: str, dbname: str = "shop", **more: Any) -> Endpoint:
    values = {"host": "127.0.0.1", "port": server.port, "database": dbname, "user": role}
    values |= {"password": f"{role}-password", "tls": "disable", "ca": None, **more}
    return Endpoint(**values, source=Source("127.0.0.1", server.port, dbname, "disable", f"file:{role}"))


def backends(server: Server, role: str = "app") -> list[tuple[Any, ...]]:
    """The upstream's sessions of a role, without the broker's own."""
    return server.execute(
        "select pid, state, query from pg_stat_activity "
        f"where usename = '{role}' and application_name <> 'airlock:broker' and backend_type = 'client backend'"
    )


def gone(server: Server) -> bool:
    """Whether no session of either role is left."""
    return not backends(server) and not backends(server, "app_write")


async def gone_within(server: Server, seconds: float) -> float:
    begun = time.monotonic()
    while not await asyncio.to_thread(gone, server):
        assert time.monotonic() - begun < seconds, backends(server) + backends(server, "app_write")
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def psql(ticket: Shown, *commands: str, stdin: str = "", **more: str) -> tuple[int, str, str]:
    """Run psql with a ticket; returns status, output and errors."""
    words = [word for command in commands for word in ("-c", command)]
    process = await asyncio.create_subprocess_exec(
        *("psql", "--no-psqlrc", "-At", ticket.dsn(**more), *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PGPASSWORD": ticket.password},
    )
    output, errors = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
    return process.returncode or 0, output.decode(), errors.decode()


class Raw:
    """A client that speaks the protocol by hand, to say what no library would."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=15)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, count: int = 65536) -> bytes:
        """What comes next, or nothing where the connection is over."""
        try:
            return self.socket.recv(count)
        except (ConnectionError, ssl.SSLError):
            return b""

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        found = self.buffer
        while piece := self.receive():
            found += piece
        return found

    def secure(self, alpn: list[str] | None = None, *, direct: bool = False) -> None:
        if not direct:
            self.send(codec.request(codec.SSL_REQUEST))
            assert self.receive(1) == b"S"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn is not None:
            context.set_alpn_protocols(alpn)
        self.socket = context.wrap_socket(self.socket)

    def message(self) -> codec.Frame:
        while True:
            if len(self.buffer) >= 5:
                length = int.from_bytes(self.buffer[1:5], "big")
                if len(self.buffer) > length:
                    frame = codec.Frame(self.buffer[0], self.buffer[5 : length + 1])
                    self.buffer = self.buffer[length + 1 :]
                    return frame
            piece = self.receive()
            if not piece:
                raise EOFError
            self.buffer += piece

    def until(self, kinds: str) -> list[codec.Frame]:
        """Messages up to the first of these types."""
        found = [self.message()]
        while chr(found[-1].type) not in kinds:
            found.append(self.message())
        return found

    def start(self, parameters: list[tuple[str, str]], version: int = codec.PROTOCOL_3_0) -> None:
        body = version.to_bytes(4, "big") + b"".join(codec.string(k) + codec.string(v) for k, v in parameters) + b"\0"
        self.send((len(body) + 4).to_bytes(4, "big") + body)

    def prove(self, password: str) -> codec.Frame:
        """Go through SCRAM; returns AuthenticationOk or the error."""
        frame = self.until("RE")[-1]
        if frame.type == ord("E"):
            return frame
        client = ScramClient("clientnonceclientnonce")
        first = client.first()
        self.send(codec.message(b"p", codec.string(client.mechanism) + len(first).to_bytes(4, "big") + first))
        frame = self.message()
        if frame.type == ord("E"):
            return frame
        salt, iterations = client.challenged(frame.body[4:])
        self.send(codec.message(b"p", client.final(salted_password(password, salt, iterations))))
        frame = self.message()
        if frame.type == ord("E"):
            return frame
        client.verify(frame.body[4:])
        return self.message()

    def close(self) -> None:
        self.socket.close()


@contextmanager
def raw(port: int) -> Iterator[Raw]:
    client = Raw(port)
    try:
        yield client
    finally:
        client.close()


def enter(client: Raw, ticket: Shown, *more: tuple[str, str]) -> list[codec.Frame]:
    """Come in with a ticket; returns the greeting up to ReadyForQuery or the error."""
    client.secure()
    client.start([("user", ticket.user), ("database", ticket.database), *more])
    answer = client.prove(ticket.password)
    return [answer] if answer.type == ord("E") else client.until("ZE")


def problem(frame: codec.Frame) -> dict[str, str]:
    assert chr(frame.type) == "E"
    return codec.read_fields(frame.body)


def kinds(frames: list[codec.Frame]) -> str:
    return "".join(chr(frame.type) for frame in frames)


async def still_serves(broker: TestBroker) -> None:
    """Assert that another client is let in and answered."""
    assert (await psql(broker.ticket(), "select 1"))[:2] == (0, "1\n")


def written(postgres: Server) -> list[str]:
    """What was inserted into the log, in its order."""
    return [row[0] for row in postgres.execute("select what from log order by id", "shop")]


async def connected(ticket: Shown, **options: Any) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(ticket.dsn(), **{"autocommit": True, **options})
