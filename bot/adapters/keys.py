"""The key that signs orders: made on first start, private to this process; the broker gets the public half."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


class OrderKeyUnusable(Exception):
    """the order key is not an Ed25519 private key in PEM"""


def order_key(home: Path) -> Ed25519PrivateKey:
    """Return the order key, making it and its public half on first start; raises OrderKeyUnusable."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OrderKeyUnusable(f"the state folder cannot be used: {error}") from None
    private, public = home / "order.pem", home / "order.pub.pem"
    if not private.exists():
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(private, pem, 0o600)
    try:
        key = load_pem_private_key(private.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise OrderKeyUnusable(f"`{private}`: {type(error).__name__}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise OrderKeyUnusable(f"`{private}` holds another kind of key")
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public.exists() or public.read_bytes() != pem:
        _write(public, pem, 0o644)
    return key


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
