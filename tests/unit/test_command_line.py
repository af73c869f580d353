"""The command line finds the state that is meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import airlock


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
