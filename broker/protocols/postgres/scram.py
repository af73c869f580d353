"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), both sides; it keeps no clock and makes no nonce.

PostgreSQL's clients send an empty user name: who they are stands in the startup packet. The server's side works on a
stored verifier, so that the ticket itself is kept nowhere; an unknown user gets a verifier that nothing matches.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import unicodedata
from dataclasses import dataclass
from enum import Enum, auto

from broker.sessions.model import ScramVerifier

PLAIN = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"
MAX_ITERATIONS = 600_000
"""An upstream that asks for more is refused: the count is its choice, the work ours."""
MIN_ITERATIONS = 4096


class ScramFailed(Exception):
    """the exchange is not valid, or the proof is wrong"""


def fake_verifier(user: str, secret: bytes, iterations: int) -> ScramVerifier:
    """Make a verifier for a user who does not exist: always the same for a name, and nothing proves it."""

    def derived(what: bytes, size: int) -> bytes:
        return hmac.digest(secret, what + b"\0" + user.encode("utf-8", "replace"), "sha256")[:size]

    return ScramVerifier(derived(b"salt", 16), iterations, derived(b"stored", 32), derived(b"server", 32))


def make_verifier(password: str, salt: bytes, iterations: int) -> ScramVerifier:
    """Make what is kept of a password."""
    salted = salted_password(password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramVerifier(salt, iterations, hashlib.sha256(client_key).digest(), server_key)


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Derive the key that both sides work with; slow on purpose."""
    return hashlib.pbkdf2_hmac("sha256", _prepared(password).encode(), salt, iterations)


def _prepared(password: str) -> str:
    """Prepare as SASLprep does where it matters (spaces, NFKC); what it forbids is left as it is, as servers do."""
    if password.isascii():
        return password
    return unicodedata.normalize("NFKC", "".join(" " if unicodedata.category(c) == "Zs" else c for c in password))


def _attributes(text: str) -> dict[str, str]:
    return {part[:1]: part[2:] for part in text.split(",") if part[1:2] == "="}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ScramFailed("not base64") from None


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


class _Step(Enum):
    FIRST = auto()
    FINAL = auto()
    DONE = auto()


@dataclass(slots=True)
class ScramServer:
    """The broker before its client. `binding` is the certificate's tls-server-end-point; None where there is no TLS."""

    verifier: ScramVerifier
    nonce: str
    binding: bytes | None
    step: _Step = _Step.FIRST
    _gs2: str = ""
    _plus: bool = False
    _bare: str = ""
    _challenge: str = ""
    _full_nonce: str = ""

    def first(self, mechanism: str, message: bytes) -> bytes:
        """Take client-first-message and return server-first-message; raises ScramFailed."""
        if self.step is not _Step.FIRST or mechanism not in (PLAIN, PLUS):
            raise ScramFailed("unknown mechanism")
        try:
            text = message.decode("utf-8")
            flag, authzid, self._bare = text.split(",", 2)
        except (UnicodeDecodeError, ValueError):
            raise ScramFailed("client-first-message does not read") from None
        self._plus = mechanism == PLUS
        wanted = ("p=tls-server-end-point",) if self._plus else ("n",) if self.binding is not None else ("n", "y")
        # A client that says `y` believes that we offer no binding: with TLS, somebody took our offer away.
        if flag not in wanted or authzid or (self._plus and self.binding is None):
            raise ScramFailed("channel binding does not fit the mechanism")
        given = _attributes(self._bare)
        if "m" in given or not given.get("r") or not self._bare.startswith("n=") or len(given["r"]) > 256:
            raise ScramFailed("client-first-message does not read")
        self._gs2 = f"{flag},,"
        self._full_nonce = given["r"] + self.nonce
        salt = base64.b64encode(self.verifier.salt).decode()
        self._challenge = f"r={self._full_nonce},s={salt},i={self.verifier.iterations}"
        self.step = _Step.FINAL
        return self._challenge.encode()

    def final(self, message: bytes) -> bytes:
        """Take client-final-message and return server-final-message; raises ScramFailed where the proof is wrong."""
        if self.step is not _Step.FINAL:
            raise ScramFailed("out of order")
        self.step = _Step.DONE
        try:
            without_proof, proof_text = message.decode("utf-8").rsplit(",p=", 1)
        except (UnicodeDecodeError, ValueError):
            raise ScramFailed("client-final-message does not read") from None
        given = _attributes(without_proof)
        bound = self._gs2.encode() + (self.binding or b"" if self._plus else b"")
        proof = _decoded(proof_text)
        signed = f"{self._bare},{self._challenge},{without_proof}".encode()
        signature = hmac.digest(self.verifier.stored_key, signed, "sha256")
        if len(proof) != len(signature):
            raise ScramFailed("the proof has a wrong length")
        key = hashlib.sha256(_xor(proof, signature)).digest()
        right = hmac.compare_digest(key, self.verifier.stored_key)
        right &= hmac.compare_digest(given.get("r", "").encode(), self._full_nonce.encode())
        right &= hmac.compare_digest(_decoded(given.get("c", "")), bound)
        if not right:
            raise ScramFailed("the proof is wrong")
        return b"v=" + base64.b64encode(hmac.digest(self.verifier.server_key, signed, "sha256"))


@dataclass(slots=True)
class ScramClient:
    """The broker before an upstream; the key is derived by the caller, for it takes time."""

    nonce: str
    binding: bytes | None = None
    _server_first: str = ""
    _signature: bytes = b""

    @property
    def mechanism(self) -> str:
        return PLUS if self.binding is not None else PLAIN

    @property
    def _gs2(self) -> str:
        return "p=tls-server-end-point,," if self.binding is not None else "n,,"

    def first(self) -> bytes:
        return f"{self._gs2}n=,r={self.nonce}".encode()

    def challenged(self, message: bytes) -> tuple[bytes, int]:
        """Take server-first-message and return salt and iterations; raises ScramFailed."""
        try:
            self._server_first = message.decode("ascii")
        except UnicodeDecodeError:
            raise ScramFailed("server-first-message does not read") from None
        given = _attributes(self._server_first)
        nonce, count = given.get("r", ""), given.get("i", "")
        if not nonce.startswith(self.nonce) or len(nonce) <= len(self.nonce) or "m" in given:
            raise ScramFailed("the nonce is not ours")
        if not count.isdecimal() or len(count) > 9 or not MIN_ITERATIONS <= int(count) <= MAX_ITERATIONS:
            raise ScramFailed(f"{MIN_ITERATIONS} to {MAX_ITERATIONS} iterations are accepted, not `{count[:12]}`")
        return _decoded(given.get("s", "")), int(count)

    def final(self, salted: bytes) -> bytes:
        nonce = _attributes(self._server_first)["r"]
        channel = base64.b64encode(self._gs2.encode() + (self.binding or b"")).decode()
        without_proof = f"c={channel},r={nonce}"
        signed = f"n=,r={self.nonce},{self._server_first},{without_proof}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        proof = _xor(client_key, hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256"))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, message: bytes) -> None:
        """Take server-final-message; raises ScramFailed where the upstream does not know the password either."""
        given = _attributes(message.decode("ascii", "replace"))
        if not self._signature or not hmac.compare_digest(_decoded(given.get("v", "")), self._signature):
            raise ScramFailed("the upstream did not prove that it knows the credential")
