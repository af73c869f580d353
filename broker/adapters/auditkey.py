"""The key that signs checkpoints: made on the first start, kept beside the log, its public half in `audit.pub`."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.adapters.disk import sync_folder
from broker.errors import Misconfigured

PRIVATE = "audit.key"
PUBLIC = "audit.pub"


def signing_key(home: Path) -> Ed25519PrivateKey:
    """Return the key of a broker's folder, made where there is none; two processes starting at once agree on one."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / PRIVATE
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        draft = home / f"{PRIVATE}.{os.getpid()}"
        _write(draft, pem, 0o600)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        sync_folder(home)
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise _unreadable(path, error) from None
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise Misconfigured(f"`{path}` is not a private key in PEM, without a passphrase") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise Misconfigured(f"`{path}` is not an Ed25519 key")
    if not (home / PUBLIC).exists():
        _write(home / PUBLIC, public_pem(found.public_key()), 0o644)
        sync_folder(home)
    return found


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Write a public key as its file holds it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _unreadable(path: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"`{path}` cannot be read: {(error.strerror or 'unknown error').lower()}")


def read_public(path: Path) -> Ed25519PublicKey:
    """Read a public key (PEM); raises Misconfigured."""
    try:
        found = serialization.load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        raise Misconfigured(f"the public key is not there: `{path}`") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Misconfigured(f"`{path}` is not a public key in PEM") from None
    if not isinstance(found, Ed25519PublicKey):
        raise Misconfigured(f"`{path}` is not an Ed25519 key")
    return found


def signed(key: Ed25519PublicKey, message: bytes, signature: str) -> bool:
    """Say whether a signature (hexadecimal) is the key's own."""
    try:
        key.verify(bytes.fromhex(signature), message)
        return bytes.fromhex(signature).hex() == signature  # one way to write it, or bytes could change unseen
    except (InvalidSignature, ValueError):
        return False


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
