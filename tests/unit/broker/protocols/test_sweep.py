"""What a broker says of a role whose credential it was not given."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from structlog.testing import capture_logs

from broker.adapters.endpoints import PolicyEndpoints
from broker.protocols.postgres.identities import Sweep
from policies.engine.load import read_texts

POLICY = """
groups: {g: G}
people: {alice: {name: Alice, groups: [g]}}
resources:
  shop:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 5432, database: shop, tls: disable}
    roles:
      read: {credential: "file:read", relations: ["public.*"]}
access: []
"""


async def test_a_credential_that_is_missing_is_said_to_be_and_how_to_give_it(tmp_path: Path) -> None:
    policies: Any = SimpleNamespace(current=read_texts({"policy.yaml": POLICY}))
    broker = SimpleNamespace(policies=policies, endpoints=PolicyEndpoints(policies, tmp_path))
    with capture_logs() as said:
        await Sweep(cast("Any", SimpleNamespace(broker=broker))).look()
    (line,) = said
    assert line["event"] == "a role's upstream or credential cannot be read, so its sessions do not open"
    assert (line["resource"], line["role"], line["log_level"]) == ("shop", "read", "error")
    assert line["error"] == f"`file:read`: there is no such file in {tmp_path}"
    assert "a credential is `user:password`" in line["hint"]
    assert "`airlock doctor shop`" in line["hint"]
    (tmp_path / "read").write_text("reader:x")
    with capture_logs() as said:
        await Sweep(cast("Any", SimpleNamespace(broker=broker))).look()
    assert said == []
