"""The policy in force: read at start, read again when files change, the last good one kept."""

from __future__ import annotations

from pathlib import Path

import structlog

from policies.engine.load import PolicyUnreadable, load, stamp
from policies.engine.model import Policy

log = structlog.get_logger()


class FolderPolicies:
    """Policies of a folder; raises PolicyUnreadable at start, never after."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = stamp(folder)
        self._set(load(folder))

    @property
    def current(self) -> Policy:
        return self._held[0]

    @property
    def hash(self) -> str:
        return self._held[1]

    def refresh(self) -> bool:
        """Read the files again if they changed; keep the last good policy where they do not load."""
        found = stamp(self._folder)
        if found == self._seen:
            return False
        self._seen = found
        try:
            policy = load(self._folder)
        except PolicyUnreadable as error:
            log.error("policy.rejected", findings=error.findings[:20], kept=self.hash)
            return False
        if policy.hash == self.hash:
            return False
        self._set(policy)
        log.info("policy.loaded", hash=self.hash)
        return True

    def _set(self, policy: Policy) -> None:
        # At once: files are read beside the loop, which looks at both.
        self._held = policy, policy.hash
