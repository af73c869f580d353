"""How a client comes in: encryption, the startup packet, the ticket by SCRAM; then a session, or a clear refusal."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from broker.errors import AirlockError, Misconfigured, RecordingFailed
from broker.protocols.postgres import codec, records, scram
from broker.protocols.postgres.house import House, SessionRefused
from broker.protocols.postgres.identity import session_id
from broker.protocols.postgres.proxy import Session
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.ruling import access_line
from broker.protocols.postgres.startup import (
    NEXT,
    TLS_REQUIRED,
    Stage,
    Startup,
    StartupRefused,
    Step,
    local,
    packet_kind,
    packet_length,
    read_cancel,
    read_startup,
    sanitised,
)
from broker.protocols.postgres.upstream import read_frame
from broker.sessions.model import REPLACED, GrantFacts, SessionFacts, TicketFacts
from broker.transport.listener import Known
from broker.transport.rawread import peek, read_exactly, send, waiting
from broker.transport.secured import secured
from broker.transport.stream import PeerGone, Stream
from policies.engine.decide import may_ask

DEADLINE = 10.0
ITERATIONS = 4096
"""What tickets are made with; an unknown user is asked for the same."""
_TLS_HANDSHAKE = 0x16
_NOT_NOW = Problem(
    "57P03", "tickets cannot be checked at the moment", hint="try again; if it stays so, tell an operator", fatal=True
)
_log = structlog.get_logger("postgres")


class Refused(Exception):
    """the client does not get in"""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Left(Exception):
    """there is nothing more to say to this client"""


def wrong_ticket(user: str) -> Problem:
    """Word it the same for a user nobody knows and for a wrong proof, so that neither can be told from the other."""
    return Problem(
        "28P01",
        f'no ticket opens with user "{sanitised(user)}" and this password',
        hint="paste the whole line of your ticket, or press New line in your direct message",
        fatal=True,
    )


@dataclass(slots=True)
class FrontDoor:
    """`secret` makes up verifiers for unknown users; `binding` is our certificate's tls-server-end-point.

    `plain` lets clients of this machine do without TLS.
    """

    house: House
    context: ssl.SSLContext
    binding: bytes
    secret: bytes
    plain: bool = False
    deadline: float = DEADLINE

    async def serve(self, connection: socket.socket, address: str, visit: Known) -> None:
        """Take a connection to a running session, or refuse it."""
        stream: Stream | None = None
        try:
            async with asyncio.timeout(self.deadline):
                stream, packet = await self._agreed(connection, address)
                startup = await self._startup(stream, packet, address)
                ticket, proved = await self._proved(stream, startup)
            visit.known()
            await self._enter(stream, startup, ticket, proved, address)
            stream = None
        except Refused as refusal:
            if stream is not None:
                stream.write([refusal.problem.encoded()])
        except AirlockError as error:
            _log.error("a client could not be let in", address=address, error=f"{type(error).__name__}: {error}")
            if stream is not None:
                stream.write([_NOT_NOW.encoded()])
        except (PeerGone, Left, OSError, TimeoutError, codec.ProtocolViolation, codec.Malformed) as error:
            _log.debug("a client did not get in", address=address, reason=type(error).__name__)
        finally:
            if stream is not None:
                stream.close()
            connection.close()

    async def _agreed(self, connection: socket.socket, address: str) -> tuple[Stream, bytes | None]:
        """Agree on TLS on the raw socket, never reading a byte that belongs to it.

        Returns also the startup packet's body where it has come already: in plain text.
        """
        stage = Stage.PLAIN
        direct = (await peek(connection))[0] == _TLS_HANDSHAKE
        while not direct:
            body = await read_exactly(connection, packet_length(await read_exactly(connection, 4)))
            step = NEXT[stage, packet_kind(body)]
            if step is Step.REFUSE_GSS:
                stage = Stage.GSS_REFUSED
                await send(connection, b"N")
                continue
            if step is Step.CANCEL:
                await self._cancel(body, address)
                raise Left
            if step is Step.DEMAND_TLS:
                if self.plain and local(str(connection.getsockname()[0]), address):
                    return await self._taken(connection, None), body
                await self._demand_tls(connection)
                raise Left
            if step is not Step.START_TLS or waiting(connection):
                # What was sent before TLS was agreed on would look as if it had come through it.
                raise Left
            await send(connection, b"S")
            break
        stream = await self._taken(connection, self.context)
        secured = stream.ssl_object
        agreed = secured.selected_alpn_protocol() if secured is not None else "no TLS"
        if agreed != "postgresql" and (direct or agreed is not None):
            stream.abort()
            raise Left
        return stream, None

    async def _taken(self, connection: socket.socket, context: ssl.SSLContext | None) -> Stream:
        """Hand a socket over to the loop, and speak TLS on it where it is said how."""
        taken = connection.dup()
        connection.close()
        stream = Stream()
        if context is None:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: stream, taken)
        else:
            await secured(taken, context, stream, server_side=True)
        return stream

    async def _demand_tls(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, TLS_REQUIRED.encoded())
        connection.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while await loop.sock_recv(connection, 4096):
                    pass

    async def _cancel(self, body: bytes, address: str) -> None:
        """Route a CancelRequest to its own session; the answer is the same whatever it finds: none."""
        try:
            found = self.house.common.keys.find(read_cancel(body), address, time.monotonic())
        except codec.ProtocolViolation:
            return
        if found is not None:
            await self.house.broker.live.cancel(found)

    async def _startup(self, stream: Stream, packet: bytes | None, address: str) -> Startup:
        body = packet if packet is not None else await stream.read(packet_length(await stream.read(4)))
        step = NEXT[Stage.SECURE, packet_kind(body)]
        if step is Step.CANCEL:
            await self._cancel(body, address)
        if step is not Step.STARTUP:
            stream.close()
            raise Left
        try:
            startup = read_startup(body)
        except StartupRefused as refusal:
            raise Refused(refusal.problem) from None
        except codec.ProtocolViolation as violation:
            raise Refused(Problem("08P01", f"protocol violation: {violation}", fatal=True)) from None
        if startup.negotiated:
            stream.write([codec.negotiate_version(startup.spoken, startup.unknown)])
        return startup

    async def _proved(self, stream: Stream, startup: Startup) -> tuple[TicketFacts, bytes]:
        """Have the client prove its ticket; what is wrong with the ticket itself is said only after that.

        Returns also the answer to the proof, which goes out together with what comes of it.
        """
        ticket = await self.house.broker.tickets.find(startup.user)
        # Made up in either case, so that both take the same time.
        fake = scram.fake_verifier(startup.user, self.secret, ITERATIONS)
        verifier = ticket.verifier if ticket is not None else fake
        binding = self.binding if stream.ssl_object is not None else None
        server = scram.ScramServer(verifier, secrets.token_urlsafe(18), binding)
        offered = (scram.PLUS, scram.PLAIN) if binding is not None else (scram.PLAIN,)
        stream.write([codec.authentication(10, b"".join(map(codec.string, offered)) + b"\0")])
        try:
            reader = codec.Reader((await self._password(stream)).body)
            mechanism, length = reader.text(), reader.int32()
            if length < 0:
                raise scram.ScramFailed("no initial response")
            first = reader.take(length)
            reader.finish()
            stream.write([codec.authentication(11, server.first(mechanism, first))])
            final = server.final((await self._password(stream)).body)
        except scram.ScramFailed:
            raise Refused(wrong_ticket(startup.user)) from None
        except (codec.ProtocolViolation, codec.Malformed) as error:
            raise Refused(Problem("08P01", f"protocol violation: {error}", fatal=True)) from None
        if ticket is None:
            raise Refused(wrong_ticket(startup.user))
        return ticket, codec.authentication(12, final) + codec.authentication(0)

    async def _password(self, stream: Stream) -> codec.Frame:
        frame = await read_frame(stream, codec.MAX_SASL)
        if frame.type != ord("p"):
            raise codec.ProtocolViolation("a SASL response was due")
        return frame

    async def _enter(self, stream: Stream, startup: Startup, ticket: TicketFacts, proved: bytes, address: str) -> None:
        """Open a session for a proved ticket."""
        broker = self.house.broker
        facts = SessionFacts(session_id(), ticket.id, ticket.grant, startup.application, address)
        try:
            if ticket.refusal is not None:
                raise SessionRefused(self._void(ticket, ticket.refusal), ticket.refusal)
            if not self._meant(ticket.grant, startup.database):
                raise SessionRefused(self._elsewhere(ticket, startup.database), "another database")
            grant = await broker.tickets.used(ticket)
            if grant is None or grant.expires_at <= broker.clock.now():
                reason = await broker.tickets.over(ticket)
                raise SessionRefused(self._void(ticket, reason), reason)
            facts = replace(facts, grant=grant)
            try:
                endpoint = broker.endpoints.of(grant.resource, grant.role)
                kind = self.house.kind(grant, endpoint, startup)
                spare = self.house.spares.take(kind)
                # Its connection bears the name that the session will have.
                facts = replace(facts, id=spare.session) if spare is not None else facts
                session = Session(self.house, facts, stream, kind, spare)
            except (Misconfigured, KeyError) as error:
                _log.error("a resource cannot be reached as configured", resource=grant.resource, error=str(error))
                said = f"{grant.resource} is not set up correctly"
                hint = f"tell an operator of the broker, to whom `airlock doctor {grant.resource}` says more"
                raise SessionRefused(Problem("08006", said, hint=hint, fatal=True), said) from None
            greeting = await session.open(startup)
        except SessionRefused as refusal:
            with suppress(RecordingFailed):
                await broker.recorder.write(records.refused(facts, refusal.reason))
            stream.write([proved])
            raise Refused(refusal.problem) from None
        stream.write([proved, greeting])
        session.start()

    def _void(self, ticket: TicketFacts, reason: str) -> Problem:
        hint = f"ask again: {self._line(ticket, ticket.grant.resource)}"
        if reason == REPLACED:
            hint = "use the newest line in your direct message, or press New line there"
        return Problem("28000", reason, hint=hint, fatal=True)

    def _meant(self, grant: GrantFacts, database: str) -> bool:
        """Say whether a client asks for what its ticket is for: the resource, or the database by its own name.

        Tools that list databases, as pgAdmin does, connect to them so. What is a resource's name means that resource.
        """
        if database == grant.resource or database in self.house.broker.policies.current.resources:
            return database == grant.resource
        with suppress(Misconfigured, KeyError):
            return database == self.house.broker.endpoints.of(grant.resource, grant.role).database
        return False

    def _elsewhere(self, ticket: TicketFacts, database: str) -> Problem:
        message = f"this ticket is for {ticket.grant.resource}, not for `{sanitised(database)}`"
        return Problem("28000", message, hint=f"ask for it: {self._line(ticket, database)}", fatal=True)

    def _line(self, ticket: TicketFacts, resource: str) -> str:
        """Return what to type for a resource, where there is something; else what there is."""
        policy, person = self.house.broker.policies.current, ticket.grant.person
        open_to = may_ask(policy, person)
        fitting = [term for term in open_to if term.resource == resource]
        same_role = [term for term in fitting if term.role == ticket.grant.role]
        for term in (*same_role, *fitting):
            return access_line(policy, person, term.resource, term.role)
        names = ", ".join(dict.fromkeys(term.resource for term in open_to))
        return f"you may ask for {names}" if names else "/access list"
