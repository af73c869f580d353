"""The broker's own login to an upstream, sans-io: messages in, commands out; SCRAM only, and what it pins is read back.

AUTH --SASL--> CHALLENGED --key--> PROVED --proof--> VERIFIED --Ok--> SETTLING --Z--> CHECKING --Z--> READY

What reads the pins back is sent right behind the broker's own proof, so that it is there when the upstream is ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from broker.protocols.postgres import codec, pins
from broker.protocols.postgres.codec import Frame, ProtocolViolation
from broker.protocols.postgres.scram import PLAIN, PLUS, ScramClient, ScramFailed


class LoginFailed(Exception):
    """the upstream did not let the broker in, or is not what it must be"""


class LoginState(Enum):
    AUTH = auto()
    CHALLENGED = auto()
    PROVED = auto()
    VERIFIED = auto()
    SETTLING = auto()
    CHECKING = auto()
    READY = auto()


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Derive:
    """Derive the salted password and call `derived` with it; it takes milliseconds, so not on the event loop."""

    salt: bytes
    iterations: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """The upstream takes queries, and what reads back its pins is on its way."""


@dataclass(frozen=True, slots=True)
class Served:
    """Which process serves the session, before its pins are read back."""

    pid: int
    backend_start: int


@dataclass(frozen=True, slots=True)
class LoggedIn:
    pid: int
    backend_start: int
    statuses: dict[str, str]


Command = Send | Derive | Admitted | Served | LoggedIn

_OF_ROWS = b"TC"
"""What stands around the rows of an answer."""
_AUTH_OK, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 10, 11, 12
_REFUSED_METHODS = {2: "Kerberos", 3: "a password in clear", 5: "MD5", 7: "GSSAPI", 9: "SSPI"}


@dataclass(slots=True)
class Login:
    """One login: `parameters` is the startup packet, of which `pinned` must read back as it was sent.

    `waits` is set once it has, for as long as nobody uses the connection.
    """

    user: str
    database: str
    parameters: dict[str, str]
    pinned: dict[str, str]
    nonce: str
    binding: bytes | None
    waits: dict[str, str] = field(default_factory=dict)
    state: LoginState = LoginState.AUTH
    statuses: dict[str, str] = field(default_factory=dict)
    key: codec.Frame | None = None
    _scram: ScramClient | None = None
    _served: Served | None = None
    _shown: list[list[str]] = field(default_factory=list)

    def start(self) -> bytes:
        return codec.startup([("user", self.user), ("database", self.database), *self.parameters.items()])

    def handle(self, frame: Frame) -> Command | None:
        """Take one message of the upstream; raises LoginFailed."""
        if self.state is LoginState.CHECKING and frame.type in _OF_ROWS:
            return None
        try:
            return self._handle(frame)
        except (ScramFailed, ProtocolViolation, codec.Malformed) as error:
            raise LoginFailed(str(error)) from None

    def derived(self, salted: bytes) -> bytes:
        """Take the derived key and return what to send."""
        if self._scram is None or self.state is not LoginState.CHALLENGED:
            raise LoginFailed("out of order")
        self.state = LoginState.PROVED
        return codec.message(b"p", self._scram.final(salted)) + codec.query(
            pins.verification(list(self.pinned), self.waits)
        )

    def _handle(self, frame: Frame) -> Command | None:
        match chr(frame.type), self.state:
            case "D", LoginState.CHECKING:
                return self._row(codec.Reader(frame.body))
            case "S", LoginState.SETTLING | LoginState.CHECKING:
                name, value = codec.read_parameter_status(frame.body)
                self.statuses[name] = value
            case "R", LoginState.AUTH | LoginState.PROVED | LoginState.VERIFIED:
                return self._authenticate(codec.Reader(frame.body))
            case "K", LoginState.SETTLING:
                self.key = frame
            case "Z", LoginState.SETTLING:
                self.state = LoginState.CHECKING
                return Admitted()
            case "Z", LoginState.CHECKING:
                self.state = LoginState.READY
                return self._checked()
            case "E", _:
                problem = codec.read_fields(frame.body)
                raise LoginFailed(f"{problem.get('C', '')} {problem.get('M', '')}".strip())
            case "N", _:
                pass
            case kind, state:
                raise LoginFailed(f"upstream sent `{kind}` while {state.name.lower()}")
        return None

    def _authenticate(self, reader: codec.Reader) -> Command | None:
        method = reader.int32()
        if method == _SASL and self.state is LoginState.AUTH and self._scram is None:
            offered = []
            while reader.left > 1:
                offered.append(reader.text())
            if PLAIN not in offered:
                raise LoginFailed("the upstream does not offer SCRAM-SHA-256")
            self._scram = ScramClient(self.nonce, self.binding if PLUS in offered else None)
            first = self._scram.first()
            body = codec.string(self._scram.mechanism) + len(first).to_bytes(4, "big") + first
            return Send(codec.message(b"p", body))
        if method == _SASL_CONTINUE and self.state is LoginState.AUTH and self._scram is not None:
            salt, iterations = self._scram.challenged(reader.take(reader.left))
            self.state = LoginState.CHALLENGED
            return Derive(salt, iterations)
        if method == _SASL_FINAL and self.state is LoginState.PROVED and self._scram is not None:
            self._scram.verify(reader.take(reader.left))
            self.state = LoginState.VERIFIED
        elif method == _AUTH_OK and self.state is LoginState.VERIFIED:
            self.state = LoginState.SETTLING
        else:
            asked = _REFUSED_METHODS.get(method, "nothing" if method == _AUTH_OK else f"method {method}")
            raise LoginFailed(f"the upstream asks for {asked} where only SCRAM-SHA-256 is accepted")
        return None

    def _row(self, reader: codec.Reader) -> Served | None:
        values = []
        for _ in range(reader.int16()):
            length = reader.int32()
            values.append("" if length < 0 else codec.as_text(reader.take(length)))
        if self._served is not None:
            self._shown.append(values)
            return None
        try:
            pid, start = values
            self._served = Served(int(pid), pins.started(start))
        except ValueError:
            unsaid = "the upstream does not say which of its processes serves this session"
            raise LoginFailed(unsaid) from None
        return self._served

    def _checked(self) -> LoggedIn:
        asked = [*self.pinned.items(), *self.waits.items()]
        if self._served is None or len(self._shown) != len(asked) or any(len(row) != 1 for row in self._shown):
            raise LoginFailed("the upstream does not say what it keeps of the session's settings")
        for (name, wanted), (found,) in zip(asked, self._shown, strict=True):
            if not pins.kept(wanted, found):
                raise LoginFailed(f"the upstream did not keep {name}: `{found}`")
        return LoggedIn(self._served.pid, self._served.backend_start, self.statuses)
