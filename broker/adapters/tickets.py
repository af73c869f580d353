"""Tickets: minted once, kept only as a SCRAM verifier (RFC 5802), found by the user name they go with.

They are looked up in memory: nobody who has proved nothing can have the database asked, and a name that is known takes
no longer to answer than one that is not. The database says what is true where it can change: a first use is a guarded
UPDATE there. A ticket that was used is never voided, and whether its grant is open is known to `Live`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import replace

from broker.adapters.clock import SystemClock
from broker.adapters.live import Live
from broker.adapters.store import GrantRow, Store, TicketRow, TicketsSpent, UserTaken
from broker.errors import RecordingFailed
from broker.sessions.model import REPLACED, Entry, GrantFacts, ScramVerifier, TicketFacts
from broker.sessions.ports import Offer, Policies, Recorder
from broker.sessions.services import Refusal
from workflows.grants import GrantState
from workflows.storage.boxes import RowMoved
from workflows.wire import TicketView

ITERATIONS = 4096
MOST_PER_GRANT = 100
MOST_PER_MINUTE = 10
MOST_REMEMBERED = 10_000
"""So many of grants that are over are still told so; older ones are like those that nobody knows."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_OVER = {
    GrantState.OPENING: "this access is not open yet",
    GrantState.ENDED: "this access was ended",
    GrantState.EXPIRED: "this access has expired",
    GrantState.REVOKED: "this access was revoked",
    GrantState.REFUSED: "this access was refused",
}


def make_verifier(secret: str, salt: bytes, iterations: int = ITERATIONS) -> ScramVerifier:
    """Return what is kept of a secret (SCRAM-SHA-256); the secret is ASCII, which SASLprep leaves as it is."""
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode("ascii"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramVerifier(salt, iterations, hashlib.sha256(client_key).digest(), server_key)


def make_secret() -> str:
    """Return 256 random bits as 52 characters that a shell, a URL and a double click leave whole."""
    number = secrets.randbits(256)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 260, 5))


def make_short_id(length: int) -> str:
    """Return a few random characters for a user name."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class Remembered:
    """Tickets by user name, oldest first: all of active grants, and the latest of others."""

    def __init__(self, live: Live, most: int = MOST_REMEMBERED) -> None:
        self._live = live
        self._most = most
        self._tickets: dict[str, TicketFacts] = {}
        self._used: set[str] = set()
        self._of_grant: dict[str, list[str]] = {}

    def find(self, user: str) -> TicketFacts | None:
        return self._tickets.get(user)

    def keep(self, ticket: TicketFacts, *, used: bool = False) -> None:
        """Remember a ticket, in place of the oldest one that opens nothing any more where they are too many."""
        self._tickets[ticket.user] = ticket
        self._of_grant.setdefault(ticket.grant.id, []).append(ticket.user)
        if used:
            self._used.add(ticket.id)
        if len(self._tickets) > self._most:
            over = (old for old in self._tickets.values() if self._live.active(old.grant.id) is None)
            if (oldest := next(over, None)) is not None:
                self._forget(oldest)

    def used(self, ticket: TicketFacts) -> bool:
        return ticket.id in self._used

    def use(self, ticket: TicketFacts) -> None:
        """Remember that the database took a ticket's use: it was not voided, and will not be."""
        self._used.add(ticket.id)
        if ticket.user in self._tickets:
            self._tickets[ticket.user] = replace(ticket, refusal=None)

    def void(self, grant: str) -> None:
        """Remember that a grant's unused tickets are void."""
        for user in self._of_grant.get(grant, ()):
            if (held := self._tickets[user]).id not in self._used:
                self.void_one(held)

    def void_one(self, ticket: TicketFacts) -> None:
        if ticket.user in self._tickets:
            self._tickets[ticket.user] = replace(ticket, refusal=REPLACED)

    def _forget(self, ticket: TicketFacts) -> None:
        del self._tickets[ticket.user]
        self._used.discard(ticket.id)
        users = self._of_grant[ticket.grant.id]
        users.remove(ticket.user)
        if not users:
            del self._of_grant[ticket.grant.id]


class Tickets:
    """Implements the Tickets port for protocols and the ticket desk for the API."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        clock: SystemClock,
        live: Live,
        policies: Policies,
        offers: Mapping[str, Offer],
        ports: Mapping[str, int],
        host: str,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._live = live
        self._policies = policies
        self._offers = offers
        self._ports = ports
        self._host = host
        self._remembered = Remembered(live)
        self._minting = asyncio.Lock()

    async def load(self) -> None:
        """Remember the tickets that an earlier broker made."""
        for ticket, used in await self._store.tickets(MOST_REMEMBERED):
            self._remembered.keep(ticket, used=used)

    async def mint(self, grant: str, by: str) -> TicketView:
        """Make a ticket and void the ones nobody used; raises Refusal."""
        row = await self._store.grant(grant)
        if row is None:
            raise Refusal("not_found", "there is no such grant")
        if row.state is not GrantState.ACTIVE or self._live.active(grant) is None:
            raise _over(row)
        protocol = self._protocol(row)
        secret = make_secret()
        ticket = await self._stored(row, by, make_verifier(secret, secrets.token_bytes(16)))
        await self._recorded(Entry("ticket.minted", grant, None, {"ticket": ticket.id, "by": by, "user": ticket.user}))
        line = self._offers[protocol].ticket_line(row.resource, ticket.user, secret, self._host, self._ports[protocol])
        return TicketView(
            id=ticket.id,
            grant=grant,
            protocol=protocol,
            host=self._host,
            port=self._ports[protocol],
            user=ticket.user,
            password=secret,
            database=row.resource,
            line=line.line,
            expires_at=row.expires_at,
        )

    async def find(self, user: str) -> TicketFacts | None:
        """Return the ticket a user name belongs to, also where it opens nothing any more; None is unknown."""
        found = self._remembered.find(user)
        active = None if found is None else self._live.active(found.grant.id)
        if found is None or active is None:
            # Why it is over is asked of the database only for who proves the ticket.
            return None if found is None else replace(found, refusal=None)
        return replace(found, grant=active.facts)

    async def used(self, ticket: TicketFacts) -> GrantFacts | None:
        """Mark a ticket as delivered, after its holder proved it; the grant as it is now, or None if it is over."""
        if self._live.active(ticket.grant.id) is None:
            return None
        if not self._remembered.used(ticket):
            if not await self._store.use(ticket.id, self._clock.now()):
                self._remembered.void_one(ticket)
                return None
            self._remembered.use(ticket)
        active = self._live.active(ticket.grant.id)
        return None if active is None else active.facts

    async def over(self, ticket: TicketFacts) -> str:
        """Say why a ticket that was proved opens nothing any more."""
        row = await self._store.grant(ticket.grant.id)
        if row is None or row.state is not GrantState.ACTIVE:
            return _OVER[row.state if row is not None else GrantState.ENDED]
        held = self._remembered.find(ticket.user)
        return (held.refusal if held is not None else None) or _OVER[GrantState.EXPIRED]

    def _protocol(self, row: GrantRow) -> str:
        resource = self._policies.current.resources.get(row.resource)
        if resource is None or resource.protocol not in self._ports:
            raise Refusal("over", f"{row.resource} is not served by this broker any more")
        return resource.protocol

    async def _stored(self, row: GrantRow, by: str, verifier: ScramVerifier) -> TicketRow:
        for length in (4, 4, 5, 6, 8, 12):
            user = f"{row.person}.{make_short_id(length)}"
            ticket = TicketRow("t" + secrets.token_hex(8), row.id, user, verifier, self._clock.now(), by)
            try:
                # One at a time, so that memory sees tickets replace each other in the order of the database.
                async with self._minting:
                    await self._store.mint(ticket, MOST_PER_GRANT, MOST_PER_MINUTE)
                    self._remembered.void(row.id)
                    self._remembered.keep(TicketFacts(ticket.id, user, row.facts, verifier))
            except UserTaken:
                continue
            except RowMoved:
                raise _over(await self._store.grant(row.id) or row) from None
            except TicketsSpent:
                raise Refusal(
                    "too_many", "this access has had too many tickets", "use the last one, or wait a minute"
                ) from None
            return ticket
        raise Refusal("unavailable", "no free user name was found", "try again")

    async def _recorded(self, entry: Entry) -> None:
        try:
            await self._recorder.write(entry)
        except RecordingFailed as error:
            raise Refusal("recording", f"nothing can be recorded: {error}", "look at the broker's disk") from None


def _over(row: GrantRow) -> Refusal:
    state = GrantState.EXPIRED if row.state is GrantState.ACTIVE else row.state
    return Refusal("over", _OVER[state], f"ask again: /access {row.resource} {row.role}")
