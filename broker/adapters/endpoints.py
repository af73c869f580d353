"""Where and as whom each role's upstream is reached, from the policy's references."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from broker.config import resolve
from broker.errors import Misconfigured
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint, Policies
from policies.engine.model import Resource

SETTLED_SECONDS = 2.0
"""How long ago a file must have changed for its next change to show in its times, whatever the file system."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was resolved, and what it was resolved from, as that was."""

    held: Resource
    stamps: tuple[object, ...]
    endpoint: Endpoint


class PolicyEndpoints:
    """Implements Endpoints: what references name is looked at each time, so that a change counts at once."""

    def __init__(self, policies: Policies, secrets: Path) -> None:
        self._policies = policies
        self._secrets = secrets
        self._kept: dict[tuple[str, str], _Kept] = {}

    def of(self, resource: str, role: str) -> Endpoint:
        """Resolve a role's upstream and credential references; raises Misconfigured."""
        held = self._policies.current.resources.get(resource)
        if held is None or role not in held.roles:
            raise Misconfigured(f"the policy has no role `{role}` on `{resource}`")
        stamps = tuple(_stamps(held, role, self._secrets))
        kept = self._kept.get((resource, role))
        if kept is not None and kept.held is held and kept.stamps == stamps and None not in stamps:
            return kept.endpoint
        endpoint = self._resolved(resource, role, held)
        self._kept[resource, role] = _Kept(held, stamps, endpoint)
        return endpoint

    def _resolved(self, resource: str, role: str, held: Resource) -> Endpoint:
        upstream, credential = held.upstream, held.roles[role].credential
        source = Source(upstream.host, upstream.port, upstream.database, upstream.tls, credential, upstream.ca)
        level = resolved(source, self._secrets)
        if held.roles[role].identity == "shared":
            return level
        if held.provisioner is None:
            raise Misconfigured(f"the policy has no `provisioner` for `{resource}`, whose `{role}` is ephemeral")
        return replace(level, provisioner=resolved(replace(source, credential=held.provisioner), self._secrets))


def _stamps(held: Resource, role: str, secrets: Path) -> Iterator[object]:
    """Yield what would differ if a reference named something else by now; None where that cannot be told."""
    upstream = held.upstream
    for reference in (upstream.host, str(upstream.port), held.roles[role].credential, held.provisioner, upstream.ca):
        kind, _, name = (reference or "").partition(":")
        if kind == "env":
            yield None if reference is upstream.ca else os.environ.get(name)
        elif kind == "file":
            yield _stamp(secrets / name)


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    young = time.time() - max(found.st_mtime, found.st_ctime) < SETTLED_SECONDS
    return None if young else (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def resolved(source: Source, secrets: Path) -> Endpoint:
    """Resolve references; raises Misconfigured.

    A credential is `user:password`. A `ca` reference to a file names it; one to a variable has the file's path in it.
    """
    user, colon, password = resolve(source.credential, secrets).partition(":")
    if not colon or not user or not password:
        raise Misconfigured(f"`{source.credential}` is not `user:password`")
    return Endpoint(
        host=resolve(source.host, secrets),
        port=_port(source.port, secrets),
        database=source.database,
        user=user,
        password=password,
        tls=source.tls,
        ca=_ca(source.ca, secrets),
        source=source,
    )


def _port(port: int | str, secrets: Path) -> int:
    text = str(port) if isinstance(port, int) else resolve(port, secrets)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Misconfigured(f"`{port}` is not a port")
    return int(text)


def _ca(reference: str | None, secrets: Path) -> Path | None:
    if reference is None:
        return None
    kind, _, name = reference.partition(":")
    path = secrets / name if kind == "file" else Path(resolve(reference, secrets))
    if not path.is_file():
        raise Misconfigured(f"`{reference}`: there is no such file")
    return path
