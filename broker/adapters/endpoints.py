"""Where and as whom each role's upstream is reached, from the policy's references."""

from __future__ import annotations

from pathlib import Path

from broker.config import resolve
from broker.errors import Misconfigured
from broker.sessions.ports import Endpoint, Policies


class PolicyEndpoints:
    """Implements Endpoints: references are resolved each time, so that a changed credential counts at once.

    A credential is `user:password`. A `ca` reference to a file names it; one to a variable has the file's path in it.
    """

    def __init__(self, policies: Policies, secrets: Path) -> None:
        self._policies = policies
        self._secrets = secrets

    def of(self, resource: str, role: str) -> Endpoint:
        """Resolve a role's upstream and credential references; raises Misconfigured."""
        held = self._policies.current.resources.get(resource)
        if held is None or role not in held.roles:
            raise Misconfigured(f"the policy has no role `{role}` on `{resource}`")
        upstream, credential = held.upstream, held.roles[role].credential
        user, colon, password = resolve(credential, self._secrets).partition(":")
        if not colon or not user or not password:
            raise Misconfigured(f"`{credential}` is not `user:password`")
        return Endpoint(
            host=resolve(upstream.host, self._secrets),
            port=self._port(upstream.port),
            database=upstream.database,
            user=user,
            password=password,
            tls=upstream.tls,
            ca=self._ca(upstream.ca),
        )

    def _port(self, port: int | str) -> int:
        text = str(port) if isinstance(port, int) else resolve(port, self._secrets)
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise Misconfigured(f"`{port}` is not a port")
        return int(text)

    def _ca(self, reference: str | None) -> Path | None:
        if reference is None:
            return None
        kind, _, name = reference.partition(":")
        path = self._secrets / name if kind == "file" else Path(resolve(reference, self._secrets))
        if not path.is_file():
            raise Misconfigured(f"`{reference}`: there is no such file")
        return path
