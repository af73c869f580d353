"""The command line finds the state that is meant, and the doctor credentials that anybody could read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import airlock
from broker.doctor import _open_to_all


def test_the_demo_is_found_from_any_folder_without_a_state_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, elsewhere, other = tmp_path / "clone", tmp_path / "elsewhere", tmp_path / "other"
    demo = clone / ".airlock" / "demo"
    for folder in (demo, elsewhere, other / ".airlock"):
        folder.mkdir(parents=True)
    (demo / "settings.json").write_text('{"AIRLOCK_DEMO_SETTING": "1"}')
    monkeypatch.setattr(airlock, "HERE", clone)
    for name in ("AIRLOCK_STATE", "AIRLOCK_DEMO_SETTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def state(folder: Path) -> Path:
        monkeypatch.chdir(folder)
        found = airlock._use_state(None).absolute()
        monkeypatch.delenv("AIRLOCK_STATE")
        return found

    assert state(clone) == demo
    assert state(elsewhere) == demo
    assert os.environ["AIRLOCK_DEMO_SETTING"] == "1"
    assert state(other) == other / ".airlock"
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path))
    monkeypatch.chdir(elsewhere)
    assert airlock._use_state(None) == tmp_path


def test_a_credential_that_every_account_may_read_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        secrets, file = Path(name), Path(name) / "read"
        file.write_text("reader:x")

        def told(folder: int, mode: int) -> list[str]:
            secrets.chmod(folder)
            file.chmod(mode)
            found = _open_to_all(secrets, "file:read", "env:MAKER", "file:none", None)
            return [line for one in found for line in one.mend]

        open_above = all(above.stat().st_mode & 0o001 for above in secrets.resolve().parents)
        assert told(0o755, 0o604) == ([f"chmod o= {file}"] if open_above else [])
        assert told(0o755, 0o640) == []
        assert told(0o700, 0o644) == []


def test_what_is_checked_is_what_bot_and_broker_obey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, own, bare = tmp_path / "clone", tmp_path / "own", tmp_path / "bare"
    for folder in (clone / "policies", own / "policies", bare):
        folder.mkdir(parents=True)
    monkeypatch.setattr(airlock, "HERE", clone)
    obeyed: list[Path] = []
    for main in ("bot.__main__.main", "broker.__main__.main"):
        monkeypatch.setattr(main, lambda *_: obeyed.append(Path(os.environ["AIRLOCK_POLICIES"]).absolute()))

    def told(folder: Path, given: str = "") -> Path:
        monkeypatch.chdir(folder)
        obeyed.clear()
        for process in ("bot", "broker"):
            monkeypatch.setenv("AIRLOCK_POLICIES", given)
            assert CliRunner().invoke(airlock.app, [process]).exit_code == 0
        monkeypatch.setenv("AIRLOCK_POLICIES", given)
        assert obeyed == [airlock._policies(None).absolute()] * 2
        return obeyed[0]

    assert told(own) == own / "policies"
    assert told(bare) == clone / "policies"
    assert told(own, str(tmp_path / "named")) == tmp_path / "named"


def test_a_resource_or_role_that_is_not_there_is_an_error_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_POLICIES", str(airlock.HERE / "policies"))
    monkeypatch.setattr(airlock.console, "width", 200)
    for command in (["doctor"], ["provision", "--print"]):
        done = CliRunner().invoke(airlock.app, [*command, "nix", "--state", "/nowhere"])
        assert (done.exit_code, done.output.partition(":")[0]) == (1, "error    the policy has no resource `nix`")
        done = CliRunner().invoke(airlock.app, [*command, "prod-db", "--role", "nix", "--state", "/nowhere"])
        assert (done.exit_code, done.output.partition(":")[0]) == (1, "error    prod-db has no role `nix`")


LAB = """
groups: {engineers: E}
people: {alice: {name: Alice, groups: [engineers]}}
resources:
  crm:
    protocol: PROTOCOL
    upstream: {host: "env:AIRLOCK_TEST_NOWHERE", port: 1, database: x, tls: verify-full, ca: "file:ca.pem"}
    roles: {read: {credential: "file:read", relations: [public.a]}}
"""


def test_a_protocol_that_nobody_speaks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_POLICIES", "")
    monkeypatch.setenv("AIRLOCK_STATE", "")
    monkeypatch.setattr(airlock.console, "width", 200)
    (tmp_path / "all.yaml").write_text(LAB.replace("PROTOCOL", "mysql"))
    for command in (
        ["policy", "check"],
        ["doctor", "crm"],
        ["provision", "crm", "--print"],
        ["policy", "explain", "alice", "crm", "read", "select 1"],
    ):
        state = [] if command[-1] == "check" else ["--state", str(tmp_path)]
        done = CliRunner().invoke(airlock.app, [*command, "--policies", str(tmp_path), *state])
        assert (done.exit_code, done.output[:5]) == (1, "error"), command
        assert "the broker does not speak" in done.output
        assert "`mysql`: there is postgres" in done.output


def test_the_doctor_says_of_each_reference_what_belongs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_POLICIES", "")
    monkeypatch.setenv("AIRLOCK_STATE", "")
    monkeypatch.delenv("AIRLOCK_SECRETS", raising=False)
    monkeypatch.setattr(airlock.console, "width", 200)
    (tmp_path / "all.yaml").write_text(LAB.replace("PROTOCOL", "postgres"))
    (tmp_path / "secrets").mkdir()

    def told() -> str:
        words = ["doctor", "crm", "--policies", str(tmp_path), "--state", str(tmp_path)]
        return CliRunner().invoke(airlock.app, words).output

    assert "put `user:password` there" in told()
    (tmp_path / "secrets" / "read").write_text("reader:x")
    assert "mend it in the policy's upstream of crm" in told()
    monkeypatch.setenv("AIRLOCK_TEST_NOWHERE", "127.0.0.1")
    assert "put the certificate of the server's authority (PEM) there" in told()


def test_a_manifest_names_no_address_that_slack_would_refuse() -> None:
    done = CliRunner().invoke(airlock.app, ["slack", "manifest", "--url", "http://bot.example.com/slack/events"])
    assert done.exit_code == 2
    assert "https:// only" in done.output
    done = CliRunner().invoke(airlock.app, ["slack", "manifest", "--url", "https://bot.example.com/slack/events"])
    assert done.exit_code == 0
    assert "https://bot.example.com/slack/events" in done.output
