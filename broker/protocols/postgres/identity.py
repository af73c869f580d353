"""A session's own role at the upstream: its name, and the statements that make it and end it; nothing is run here."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime

from broker.protocols.postgres.provision import APART, quoted
from broker.protocols.postgres.scram import MIN_ITERATIONS, make_verifier
from broker.sessions.ports import Endpoint

PREFIX = "airlock_s_"
_NAME = re.compile(r"airlock_s_(?P<house>[0-9a-f]{8})_(?P<session>s[0-9a-f]{16})")


def session_id() -> str:
    """Make up what a session is called."""
    return f"s{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Identity:
    """The role of one session, which logs in as it; its password is in no statement, no file and no log."""

    name: str
    password: str = field(repr=False)

    def endpoint(self, level: Endpoint) -> Endpoint:
        """Return where the session logs in, as itself."""
        return replace(level, user=self.name, password=self.password, provisioner=None)

    def verifier(self) -> str:
        """Return what the server keeps of the password, computed here so that the password itself is never sent."""
        made = make_verifier(self.password, secrets.token_bytes(16), MIN_ITERATIONS)
        salt, stored, server = (
            base64.b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key)
        )
        return f"SCRAM-SHA-256${made.iterations}:{salt}${stored}:{server}"


def house_of(secret: bytes) -> str:
    """Return what tells this broker's roles from those of others on the same upstream."""
    return hashlib.sha256(b"airlock roles\0" + secret).hexdigest()[:8]


def identity_of(house: str, session: str) -> Identity:
    """Make up a session's role."""
    return Identity(f"{PREFIX}{house}_{session}", secrets.token_urlsafe(32))


def session_of(name: str | None, house: str | None = None) -> str | None:
    """Return the session that a role was made for, by its name; None for every other role, and for other houses'."""
    found = _NAME.fullmatch(name or "")
    return found["session"] if found and house in (None, found["house"]) else None


def creation(identity: Identity, level: str, provisioner: str, until: datetime, version: int) -> list[str]:
    """Return the statements that make a role, with the level's rights and with the provisioner's right to end it."""
    name, made_by = quoted(identity.name), quoted(provisioner)
    # Before, whether rights are inherited is said by the member's role; since, by each membership.
    apart = version >= APART * 10000
    return [
        f"create role {name} login inherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls "
        f"connection limit 1 valid until '{until.isoformat()}' password '{identity.verifier()}'",
        f"grant {quoted(level)} to {name}" + (" with inherit true, set false" if apart else ""),
        # Who may end its processes and see when they began is a member of it.
        f"grant {name} to {made_by}" + (" with inherit true, set false" if apart else ""),
    ]


def removal(name: str) -> list[str]:
    return [f"drop role {quoted(name)}"]


def disabling(name: str) -> list[str]:
    """Return what makes a role that owns something useless: nobody logs in as it."""
    return [f"alter role {quoted(name)} nologin connection limit 0 password null"]
