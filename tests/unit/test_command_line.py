"""The command line finds the state that is meant, and the doctor credentials that anybody could read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

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
