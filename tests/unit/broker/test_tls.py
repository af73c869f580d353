"""An upstream's context is kept while what it is made of is the same."""

import os
from pathlib import Path

import pytest

from broker.errors import Misconfigured
from broker.transport.tls import certificate, client_context


def test_context_is_made_anew_when_the_authority_changes(tmp_path: Path) -> None:
    ca, _ = certificate(tmp_path, "127.0.0.1")
    first = client_context("verify-full", ca, ["postgresql"])
    assert first is not None
    assert client_context("verify-full", ca, ["postgresql"]) is first
    assert client_context("verify-full", ca, []) is not first
    other, _ = certificate(tmp_path / "other", "127.0.0.1")
    os.replace(other, ca)
    second = client_context("verify-full", ca, ["postgresql"])
    assert second is not None
    assert second.get_ca_certs() != first.get_ca_certs()
    ca.unlink()
    with pytest.raises(Misconfigured):
        client_context("verify-full", ca, ["postgresql"])
