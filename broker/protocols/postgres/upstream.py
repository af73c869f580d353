"""Dials an upstream for one session: TCP and TLS, the lease, the login, the pins; and passes on a CancelRequest."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres import codec, pins
from broker.protocols.postgres.identity import session_of
from broker.protocols.postgres.login import Admitted, Derive, LoggedIn, Login, LoginFailed, Send, Served
from broker.protocols.postgres.outage import unavailable
from broker.protocols.postgres.scram import salted_password
from broker.protocols.postgres.startup import CancelKey
from broker.sessions.ports import Endpoint
from broker.transport.listener import tune
from broker.transport.rawread import read_exactly
from broker.transport.secured import secured
from broker.transport.stream import PeerGone, Stream
from broker.transport.tls import client_context, peer_end_point

DIAL_SECONDS = 10.0
ARM_SECONDS = 1.0
_MAX_SETUP_MESSAGE = 256 * 1024


class Upstream:
    """A session's upstream connection: `stream` once it can log in, `key` to cancel what it runs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.stream: Stream | None = None
        self.key: CancelKey | None = None
        self.local_port = 0
        self._as_left = False
        """What was taken over is as it was left, so that it has been asked."""

    async def open(
        self,
        parameters: dict[str, str],
        pinned: dict[str, str],
        leased: Callable[[], Awaitable[None]] | None = None,
        admitted: Callable[[], object] = lambda: None,
        served: Callable[[Served], object] = lambda _: None,
        *,
        waits: dict[str, str] | None = None,
    ) -> LoggedIn:
        """Dial and log in, once what `leased` returns is done; raises UpstreamUnavailable.

        `leased` is called first of all. `admitted` is called once the upstream takes queries, `served` when it has said
        who it is, while its pins are read back; `waits` is set after that.
        """
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                # A connection that has said nothing is no session yet.
                leasing = asyncio.ensure_future(leased()) if leased is not None else None
                try:
                    self.stream = await self._connected()
                    if leasing is not None:
                        await leasing
                except BaseException:
                    self.abort()
                    if leasing is not None:
                        leasing.cancel()
                        await asyncio.gather(leasing, return_exceptions=True)
                    raise
                return await self._login(self.stream, parameters, pinned, waits or {}, admitted, served)
        except TimeoutError:
            raise unavailable(TimeoutError("no answer in time")) from None
        except (OSError, PeerGone, LoginFailed, codec.ProtocolViolation) as error:
            raise unavailable(error) from None

    def adopt(self, spare: Upstream, pinned: dict[str, str]) -> None:
        """Take over a connection that was opened ahead, and have its timeouts set; `armed` says what came of it."""
        self.stream, self.key, self.local_port = spare.stream, spare.key, spare.local_port
        self._as_left = self.stream is not None and not self.stream.gone and not self.stream.waiting
        if self._as_left and self.stream is not None:
            self.stream.write([codec.query(pins.arming(pinned))])

    async def armed(self) -> bool:
        """Wait for what `adopt` asked for; False where the connection does not answer as it must."""
        if not self._as_left or self.stream is None:
            return False
        answers: list[tuple[int, bytes]] = []
        try:
            async with asyncio.timeout(ARM_SECONDS):
                while not answers or answers[-1][0] != ord("Z"):
                    frame = await read_frame(self.stream, _MAX_SETUP_MESSAGE)
                    answers.append((frame.type, frame.body))
        except (TimeoutError, PeerGone, codec.ProtocolViolation):
            return False
        return bytes(kind for kind, _ in answers) == b"TDCZ" and answers[-1][1] == b"I" and not self.stream.waiting

    async def cancel(self) -> None:
        """Ask the upstream to cancel what this session runs; it gives no answer."""
        if self.key is None:
            return
        with suppress(OSError, PeerGone, TimeoutError):
            async with asyncio.timeout(DIAL_SECONDS):
                stream = await _secured(self.endpoint, await dial(self.endpoint))
                tail = self.key.pid.to_bytes(4, "big") + self.key.secret
                stream.write([codec.request(codec.CANCEL_REQUEST, tail)])
                with suppress(PeerGone):
                    await stream.read(1)
                stream.abort()

    def abort(self) -> None:
        if self.stream is not None:
            self.stream.abort()

    async def _connected(self) -> Stream:
        connection = await dial(self.endpoint)
        try:
            self.local_port = int(connection.getsockname()[1])
            return await _secured(self.endpoint, connection)
        except BaseException:
            connection.close()
            raise

    async def _login(
        self,
        stream: Stream,
        parameters: dict[str, str],
        pinned: dict[str, str],
        waits: dict[str, str],
        admitted: Callable[[], object],
        served: Callable[[Served], object],
    ) -> LoggedIn:
        end = self.endpoint
        binding = peer_end_point(stream.ssl_object)
        sent = parameters | pins.LOST_HOST | pinned
        login = Login(end.user, end.database, sent, pinned, secrets.token_urlsafe(18), binding, waits)
        stream.write([login.start()])
        while True:
            match login.handle(await read_frame(stream, _MAX_SETUP_MESSAGE)):
                case Send(data=data):
                    stream.write([data])
                case Derive(salt=salt, iterations=iterations):
                    stream.write([login.derived(await _KEYS.derived(end, salt, iterations))])
                case Admitted():
                    admitted()
                case Served() as process:
                    served(process)
                case LoggedIn() as done:
                    if login.key is not None:
                        body = login.key.body
                        self.key = CancelKey(int.from_bytes(body[:4], "big"), body[4:])
                    return done
                case None:
                    pass


async def read_frame(stream: Stream, limit: int) -> codec.Frame:
    """Read one message while a connection is set up; raises PeerGone or ProtocolViolation."""
    while len(header := stream.peek(5)) < 5:
        await stream.more()
    length = int.from_bytes(header[1:], "big")
    if not 4 <= length <= limit:
        raise codec.ProtocolViolation(f"message {header[0]:#04x} claims a length of {length}")
    while (message := stream.take(length + 1)) is None:
        await stream.more()
    return codec.Frame(header[0], message[5:])


async def dial(endpoint: Endpoint) -> socket.socket:
    """Connect to the first of an endpoint's addresses that answers; raises OSError."""
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM
    ):
        connection = socket.socket(family, kind, protocol)
        tune(connection)
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


async def _secured(endpoint: Endpoint, connection: socket.socket) -> Stream:
    """Ask for TLS where the endpoint wants it: exactly one byte of answer is read, so nothing is read ahead of TLS."""
    loop = asyncio.get_running_loop()
    context: ssl.SSLContext | None = client_context(endpoint.tls, endpoint.ca, ["postgresql"])
    if context is not None:
        await loop.sock_sendall(connection, codec.request(codec.SSL_REQUEST))
        if await read_exactly(connection, 1) != b"S":
            raise UpstreamUnavailable("the upstream does not offer TLS", "it offers no secure connection")
        stream = Stream()
        await secured(connection, context, stream, server_side=False, host=endpoint.host)
        return stream
    _, stream = await loop.create_connection(Stream, sock=connection)
    return stream


class SaltedKeys:
    """What was derived of credentials, in memory only; a credential's next key takes its place, and few are kept."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._held: OrderedDict[tuple[str, int, str], tuple[str, bytes, int, bytes]] = OrderedDict()

    async def derived(self, endpoint: Endpoint, salt: bytes, iterations: int) -> bytes:
        """Return the salted password; in a thread where it is not at hand, for it takes milliseconds."""
        who = (endpoint.host, endpoint.port, endpoint.user)
        held = self._held.get(who)
        if held is not None and held[:3] == (endpoint.password, salt, iterations):
            return held[3]
        key = await asyncio.to_thread(salted_password, endpoint.password, salt, iterations)
        # A session's own role logs in once.
        if session_of(endpoint.user) is None:
            self._held[who] = (endpoint.password, salt, iterations, key)
            self._held.move_to_end(who)
            if len(self._held) > self._most:
                self._held.popitem(last=False)
        return key


_KEYS = SaltedKeys()
