"""How a client's connection begins: negotiation of encryption, and the startup packet, read strictly and rebuilt.

A client may ask for GSSAPI once (refused), then for TLS once, then starts up; or it starts TLS directly. Nothing but a
cancel request and a refusal is ever said in plain text, except to clients of this machine where an operator allows it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from broker.protocols.postgres import codec
from broker.protocols.postgres.codec import CANCEL_REQUEST, GSSENC_REQUEST, MAX_STARTUP, SSL_REQUEST
from broker.protocols.postgres.replies import Problem
from broker.sql.paths import listed
from broker.sql.settings import TIMEOUTS, is_own, milliseconds, refusal_of_value

MINOR = 2
"""The latest minor version of protocol 3 that is spoken."""


class Stage(Enum):
    PLAIN = auto()
    GSS_REFUSED = auto()
    SECURE = auto()


class Packet(Enum):
    SSL = auto()
    GSS = auto()
    CANCEL = auto()
    STARTUP = auto()


class Step(Enum):
    START_TLS = auto()
    REFUSE_GSS = auto()
    CANCEL = auto()
    STARTUP = auto()
    DEMAND_TLS = auto()
    CLOSE = auto()


NEXT: dict[tuple[Stage, Packet], Step] = {
    (Stage.PLAIN, Packet.SSL): Step.START_TLS,
    (Stage.PLAIN, Packet.GSS): Step.REFUSE_GSS,
    (Stage.PLAIN, Packet.CANCEL): Step.CANCEL,
    (Stage.PLAIN, Packet.STARTUP): Step.DEMAND_TLS,
    (Stage.GSS_REFUSED, Packet.SSL): Step.START_TLS,
    (Stage.GSS_REFUSED, Packet.GSS): Step.CLOSE,
    (Stage.GSS_REFUSED, Packet.CANCEL): Step.CANCEL,
    (Stage.GSS_REFUSED, Packet.STARTUP): Step.DEMAND_TLS,
    (Stage.SECURE, Packet.SSL): Step.CLOSE,
    (Stage.SECURE, Packet.GSS): Step.CLOSE,
    (Stage.SECURE, Packet.CANCEL): Step.CANCEL,
    (Stage.SECURE, Packet.STARTUP): Step.STARTUP,
}
"""What each packet leads to, in each stage: the whole of the negotiation, of which `local` knows one way more."""

TLS_REQUIRED = Problem(
    "28000",
    "this connection is not encrypted, and a ticket is never accepted in plain text",
    "rules: startup.tls",
    "connect with sslmode=require",
    fatal=True,
)


def local(here: str, there: str) -> bool:
    """Say whether a connection between two addresses has left no machine; unreadable ones have."""
    try:
        ends = [ipaddress.ip_address(each.partition("%")[0]) for each in (here, there)]
    except ValueError:
        return False
    return all((getattr(end, "ipv4_mapped", None) or end).is_loopback for end in ends)


class StartupRefused(Exception):
    """the startup packet asks for something that is not given"""

    def __init__(self, rule: str, message: str, hint: str | None = None, sqlstate: str = "42501") -> None:
        super().__init__(message)
        self.problem = Problem(sqlstate, message, f"rules: {rule}", hint, fatal=True)


def packet_length(header: bytes) -> int:
    """Return how many bytes follow the four of a startup packet's length; raises ProtocolViolation."""
    length = int.from_bytes(header, "big")
    if not 8 <= length <= MAX_STARTUP:
        raise codec.ProtocolViolation(f"a startup packet claims {length} bytes")
    return length - 4


def packet_kind(body: bytes) -> Packet:
    """Say what stands in a startup packet's place; raises ProtocolViolation where its length does not fit."""
    code = int.from_bytes(body[:4], "big")
    if code in (SSL_REQUEST, GSSENC_REQUEST):
        if len(body) != 4:
            raise codec.ProtocolViolation("an encryption request has a wrong length")
        return Packet.SSL if code == SSL_REQUEST else Packet.GSS
    return Packet.CANCEL if code == CANCEL_REQUEST else Packet.STARTUP


@dataclass(frozen=True, slots=True)
class CancelKey:
    pid: int
    secret: bytes


def read_cancel(body: bytes) -> CancelKey:
    reader = codec.Reader(body[4:])
    pid = reader.uint32()
    return CancelKey(pid, reader.take(min(reader.left, 256)))


@dataclass(frozen=True, slots=True)
class Startup:
    """A startup packet that may be served: `settings` go to the upstream, `unknown` extensions are not spoken."""

    user: str
    database: str
    application: str
    settings: tuple[tuple[str, str], ...] = ()
    minor: int = 0
    unknown: tuple[str, ...] = ()
    path: tuple[str, ...] | None = None
    """The names of the search path that it asks for: whether by right is said once it is known who asks."""

    @property
    def own(self) -> tuple[tuple[str, str], ...]:
        """Those settings that are an application's own: they too wait for that."""
        return tuple((name, value) for name, value in self.settings if is_own(name))

    @property
    def spoken(self) -> int:
        """The minor version that is spoken: 3.2 is 3.0 with keys of any length, which a client takes as they come."""
        return min(self.minor, MINOR)

    @property
    def negotiated(self) -> bool:
        """Whether the client must be told that it gets an earlier version, or none of its extensions."""
        return self.minor > MINOR or bool(self.unknown)


def read_startup(body: bytes) -> Startup:
    """Read the body of a startup packet, without its length; raises StartupRefused or ProtocolViolation."""
    version = int.from_bytes(body[:4], "big")
    major, minor = version >> 16, version & 0xFFFF
    if major != 3:
        raise StartupRefused(
            "startup.protocol", f"protocol {major}.{minor} is not spoken here: only 3.x", sqlstate="0A000"
        )
    given = _pairs(body)
    unknown = tuple(name for name in given if name.startswith("_pq_."))
    user = given.pop("user", "")
    if not user:
        raise StartupRefused("startup.user", "no user name in the startup packet", sqlstate="28000")
    database = given.pop("database", "") or user
    # What stands by itself counts more than the same in `options`, and of two in there the later one.
    wanted = dict(switches(given.pop("options", "")))
    wanted |= {name.lower(): value for name, value in given.items() if name not in unknown}
    application = sanitised(wanted.pop("application_name", ""))
    path = _path(wanted.pop("search_path")) if "search_path" in wanted else None
    settings = tuple(pair for name, value in wanted.items() if (pair := _setting(name, value)) is not None)
    return Startup(user, database, application, settings, minor, unknown, path)


_SPACE = " \t\n\v\f\r"


def switches(options: str) -> Iterator[tuple[str, str]]:
    """Read `options` as the server does: words between spaces, a backslash before what is meant as it stands.

    Of the server's switches only `-c name=value` and `--name=value` are read; raises StartupRefused.
    """
    words = iter(_words(options))
    for word in words:
        if word.startswith("--"):
            said = word[2:]
        elif word.startswith("-c"):
            said = word[2:] or next(words, "")
        else:
            raise _unread(word)
        name, equals, value = said.partition("=")
        if not name or not equals:
            raise _unread(word)
        # The server takes one for the other here, and capitals for small letters.
        yield name.replace("-", "_").lower(), value


def _words(options: str) -> list[str]:
    found: list[str] = []
    word: str | None = None
    rest = iter(options)
    for char in rest:
        if char in _SPACE:
            if word is not None:
                found.append(word)
            word = None
        else:
            word = (word or "") + (next(rest, "") if char == "\\" else char)
    return found if word is None else [*found, word]


def _unread(word: str) -> StartupRefused:
    return StartupRefused(
        "startup.options",
        f"`{sanitised(word)}` in the connection's options is not read here",
        "write settings as -c name=value (PGOPTIONS, options=)",
        "42601",
    )


def _pairs(body: bytes) -> dict[str, str]:
    reader = codec.Reader(body[4:])
    given: dict[str, str] = {}
    try:
        while reader.left > 1:
            name = reader.text()
            if not name:
                break
            value = reader.text()
            if name in given:
                raise StartupRefused("startup.duplicate", f"parameter `{sanitised(name)}` is given twice")
            given[name] = value
            if len(given) > 32:
                raise StartupRefused("startup.parameters", "more than 32 startup parameters")
        if reader.left and (reader.left != 1 or reader.byte() != 0):
            raise codec.ProtocolViolation("a startup packet has bytes after its end")
    except codec.Malformed as error:
        raise codec.ProtocolViolation(f"a startup packet does not read: {error.message}") from None
    return given


def _path(value: str) -> tuple[str, ...]:
    """Read a search path; raises StartupRefused for what is no list of names."""
    names = listed(value)
    if names is None:
        message = f'invalid value for parameter "search_path": "{sanitised(value)}"'
        raise StartupRefused("settings", message, "name schemas, with commas between them: app,public", "22023")
    return tuple(names)


def _setting(name: str, value: str) -> tuple[str, str] | None:
    """Return what to ask of the upstream for a parameter, or None for nothing; raises StartupRefused."""
    if name == "client_encoding":
        _check_encoding(value)
        return None
    if name == "replication":
        raise StartupRefused("startup.replication", "replication does not pass through this broker", LEFT_OUT)
    if (refusal := refusal_of_value(name, value)) is not None:
        hint = f"{LEFT_OUT}; {refusal.hint}" if refusal.hint else LEFT_OUT
        raise StartupRefused(refusal.rule, sanitised(refusal.message, 200), hint, refusal.sqlstate)
    return name, str(milliseconds(value)) if name in TIMEOUTS else value


LEFT_OUT = "connect without it (PGOPTIONS, options=, settings of the driver)"


def _check_encoding(value: str) -> None:
    """Accept UTF8 by any of its names; SQL_ASCII asks for no conversion, so it is served UTF8 and told so."""
    plain = re.sub(r"[^a-z0-9]", "", value.lower())
    if plain not in ("utf8", "unicode", "auto", "sqlascii", ""):
        raise StartupRefused(
            "startup.encoding",
            f"client_encoding `{sanitised(value)}` is not accepted: only UTF8",
            "set PGCLIENTENCODING=UTF8, or leave the encoding out of the connection's settings",
            "22023",
        )


def sanitised(text: str, limit: int = 64) -> str:
    """Keep what is safe to show anywhere: printable ASCII, bounded."""
    return "".join(character if " " <= character <= "~" else "?" for character in text[:limit])
