"""TLS on both sides: the broker's certificate, made on first start, and contexts for upstreams."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import os
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import Misconfigured

_YEARS = 10
_SYSTEM_SECONDS = 300


def certificate(home: Path, host: str) -> tuple[Path, Path]:
    """Return the broker's certificate and key, made where there is none: EC P-256, named after the public host.

    An operator may put others in their place: `tls.crt` (a chain) and `tls.key`, PEM.
    """
    crt, key = home / "tls.crt", home / "tls.key"
    if not crt.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(crt, key, host)
    return crt, key


def server_context(crt: Path, key: Path, protocols: list[str]) -> tuple[ssl.SSLContext, bytes]:
    """Return a server's context, and its certificate's tls-server-end-point (RFC 5929); raises Misconfigured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(protocols)
    # Clients of databases do not resume, and a ticket costs what a record does (PostgreSQL sends none either).
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    try:
        context.load_cert_chain(crt, key)
        leaf = x509.load_pem_x509_certificates(crt.read_bytes())[0]
    except (OSError, ValueError, IndexError) as error:
        raise Misconfigured(f"the TLS certificate in `{crt.parent}` does not load: {error}") from None
    return context, end_point(leaf)


def client_context(mode: str, ca: Path | None, protocols: list[str]) -> ssl.SSLContext | None:
    """Return an upstream's context: None for `disable`, unverified for `require`; raises Misconfigured.

    Kept while the authority's file is the same, and five minutes where it is the system's: reading those takes longer
    than a login.
    """
    if mode == "disable":
        return None
    stamp: tuple[int, ...] = (int(time.monotonic() // _SYSTEM_SECONDS),)
    if ca is not None:
        try:
            found = ca.stat()
        except OSError as error:
            raise Misconfigured(f"the certificate authority in `{ca}` does not load: {error}") from None
        stamp = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
    return _client_context(mode, ca, tuple(protocols), stamp)


@functools.lru_cache(maxsize=64)
def _client_context(mode: str, ca: Path | None, protocols: tuple[str, ...], _stamp: object) -> ssl.SSLContext:
    context = ssl.create_default_context() if mode == "verify-full" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    if mode == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(protocols))
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(f"the certificate authority in `{ca}` does not load: {error}") from None
    return context


def peer_end_point(connection: ssl.SSLObject | None) -> bytes | None:
    """Return the tls-server-end-point of the server that a connection leads to."""
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    return end_point(x509.load_der_x509_certificate(der)) if der else None


def end_point(leaf: x509.Certificate) -> bytes:
    """Hash a certificate as channel binding wants it: with its signature's hash, SHA-256 in place of weak ones."""
    used = leaf.signature_hash_algorithm
    name = used.name if used is not None and used.name not in ("md5", "sha1") else "sha256"
    return hashlib.new(name, leaf.public_bytes(serialization.Encoding.DER)).digest()


def _make(crt: Path, key: Path, host: str) -> None:
    private = _private_key(key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "airlock broker")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([_alternative(n) for n in _names(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    _write(crt, built.public_bytes(serialization.Encoding.PEM))


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key of a first start that did not come to its end, or a new one, written before its certificate."""
    if path.exists():
        found = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise Misconfigured(f"`{path}` stands without its certificate `{path.with_suffix('.crt').name}`")
        return found
    private = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    _write(path, private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return private


def _names(host: str) -> list[str]:
    return list(dict.fromkeys(name for name in (host, "localhost", "127.0.0.1") if name))


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
