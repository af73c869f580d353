"""Where and as whom each role's upstream is reached, from the policy's references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from broker.config import resolve
from broker.errors import Misconfigured
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint, Policies


class PolicyEndpoints:
    """Implements Endpoints: references are resolved each time, so that a changed credential counts at once."""

    def __init__(self, policies: Policies, secrets: Path) -> None:
        self._policies = policies
        self._secrets = secrets

    def of(self, resource: str, role: str) -> Endpoint:
        """Resolve a role's upstream and credential references; raises Misconfigured."""
        held = self._policies.current.resources.get(resource)
        if held is None or role not in held.roles:
            raise Misconfigured(f"the policy has no role `{role}` on `{resource}`")
        upstream, credential = held.upstream, held.roles[role].credential
        source = Source(upstream.host, upstream.port, upstream.database, upstream.tls, credential, upstream.ca)
        level = resolved(source, self._secrets)
        if held.roles[role].identity == "shared":
            return level
        if held.provisioner is None:
            raise Misconfigured(f"the policy has no `provisioner` for `{resource}`, whose `{role}` is ephemeral")
        return replace(level, provisioner=resolved(replace(source, credential=held.provisioner), self._secrets))


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
