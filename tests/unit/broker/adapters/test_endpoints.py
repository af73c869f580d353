"""A role's endpoint is resolved once for as long as everything it is resolved from is the same."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.adapters import endpoints as module
from broker.adapters.endpoints import PolicyEndpoints
from broker.errors import Misconfigured
from policies.engine.load import read_texts

POLICY = """
groups: {g: G}
people: {alice: {name: Alice, groups: [g]}}
resources:
  shop:
    protocol: postgres
    upstream: {host: "env:AIRLOCK_TEST_HOST", port: 5432, database: shop, tls: verify-full, ca: "file:ca.pem"}
    provisioner: file:maker
    roles:
      read: {credential: "file:read", relations: ["public.*"]}
      own: {credential: "file:read", relations: ["public.*"], identity: ephemeral}
access: []
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PolicyEndpoints, Any, list[str]]:
    for name, content in (("read", "app:one"), ("maker", "maker:one"), ("ca.pem", "x")):
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("AIRLOCK_TEST_HOST", "db.example.com")
    monkeypatch.setattr(module, "SETTLED_SECONDS", -3600.0)
    asked: list[str] = []
    resolve = module.resolve

    def counted(reference: str, secrets: Path) -> str:
        asked.append(reference)
        return resolve(reference, secrets)

    monkeypatch.setattr(module, "resolve", counted)
    policies: Any = SimpleNamespace(current=read_texts({"p.yaml": POLICY}), hash="x")
    return PolicyEndpoints(policies, tmp_path), policies, asked


def test_what_has_not_changed_is_not_read_again(made: tuple[PolicyEndpoints, Any, list[str]]) -> None:
    endpoints, policies, asked = made
    first = endpoints.of("shop", "own")
    assert (first.user, first.host) == ("app", "db.example.com")
    assert first.provisioner is not None
    assert first.provisioner.user == "maker"
    asked.clear()
    assert endpoints.of("shop", "own") is first
    assert asked == []
    policies.current = read_texts({"p.yaml": POLICY.replace("database: shop", "database: other")})
    assert endpoints.of("shop", "own").database == "other"


def test_whatever_changes_counts_at_once(
    made: tuple[PolicyEndpoints, Any, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints, _, _ = made
    endpoints.of("shop", "own")
    (tmp_path / "read").write_text("app:longer")
    assert endpoints.of("shop", "own").password == "longer"
    (tmp_path / "part").write_text("maker:two")
    (tmp_path / "part").rename(tmp_path / "maker")
    changed = endpoints.of("shop", "own").provisioner
    assert changed is not None
    assert changed.password == "two"
    monkeypatch.setenv("AIRLOCK_TEST_HOST", "other.example.com")
    assert endpoints.of("shop", "own").host == "other.example.com"
    for name in ("ca.pem", "read", "maker"):
        content = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        with pytest.raises(Misconfigured):
            endpoints.of("shop", "own")
        (tmp_path / name).write_text(content)
        assert endpoints.of("shop", "own").user == "app"


def test_a_file_that_has_just_changed_is_read_each_time(
    made: tuple[PolicyEndpoints, Any, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints, _, _ = made
    monkeypatch.setattr(module, "SETTLED_SECONDS", 3600.0)
    (tmp_path / "read").write_text("app:one")
    found = (tmp_path / "read").stat()
    endpoints.of("shop", "read")
    # Two changes within one tick of the file system's clock leave the same times.
    (tmp_path / "read").write_text("app:two")
    os.utime(tmp_path / "read", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert endpoints.of("shop", "read").password == "two"
