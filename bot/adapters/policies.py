"""The policy in force: read at start, read again when files change, the last good one kept."""

from __future__ import annotations

from pathlib import Path

import structlog

from policies.engine.load import PolicyUnreadable, load
from policies.engine.model import Policy

log = structlog.get_logger()


class FolderPolicies:
    """Policies of a folder; raises PolicyUnreadable at start, never after."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._stamp()
        self._set(load(folder))

    @property
    def current(self) -> Policy:
        return self._policy

    @property
    def hash(self) -> str:
        return self._hash

    def refresh(self) -> bool:
        """Read the files again if they changed; keep the last good policy where they do not load."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            policy = load(self._folder)
        except PolicyUnreadable as error:
            log.error("policy.rejected", findings=error.findings[:20], kept=self._hash)
            return False
        if policy.hash == self._hash:
            return False
        self._set(policy)
        log.info("policy.loaded", hash=self._hash)
        return True

    def _set(self, policy: Policy) -> None:
        self._policy = policy
        self._hash = policy.hash

    def _stamp(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for file in sorted(self._folder.glob("*.yaml")):
            try:
                status = file.stat()
            except OSError:
                continue
            found.append((file.name, status.st_mtime_ns, status.st_size))
        return tuple(found)
