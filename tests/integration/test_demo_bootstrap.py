"""The bootstrap finds a Python that works, does its work once, and says what is missing."""

import sys
from pathlib import Path

import pytest

import bootstrap


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, and no other interpreter to fall back to."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AIRLOCK_PYTHON", raising=False)
    monkeypatch.setattr(sys, "executable", "")
    return tmp_path


def fake_python(path: Path, version: str, venv: bool = True) -> str:
    """An interpreter that answers the two questions it is asked; an empty version is a shim that only complains."""
    answer = f'case "$2" in *version_info*) echo {version};; *ensurepip*) {"echo yes" if venv else "exit 1"};; esac'
    path.write_text("#!/bin/sh\n" + (answer if version else "echo 'not active' >&2; exit 127") + "\n")
    path.chmod(0o755)
    return str(path)


def test_the_newest_python_that_runs_is_chosen(on_path: Path) -> None:
    fake_python(on_path / "python3", "3.11")
    fake_python(on_path / "python3.13", "")
    expected = fake_python(on_path / "python3.12", "3.12")
    assert bootstrap.find_python(needs_venv=True) == expected


def test_a_named_python_comes_first(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(on_path / "python3.13", "3.13")
    named = fake_python(on_path / "mine", "3.11")
    monkeypatch.setenv("AIRLOCK_PYTHON", named)
    assert bootstrap.find_python(needs_venv=True) == named


def test_a_python_that_is_too_old_is_named_with_what_to_do(on_path: Path) -> None:
    fake_python(on_path / "python3", "3.9")
    assert bootstrap.find_python(needs_venv=False) is None
    with pytest.raises(bootstrap.Stop, match=r"Python 3\.11 or newer is needed.*apt install python3\.11"):
        bootstrap.make_environment(uv=None)


def test_a_missing_venv_module_is_named_with_its_package(on_path: Path) -> None:
    fake_python(on_path / "python3", "3.12", venv=False)
    with pytest.raises(bootstrap.Stop, match=r"apt install python3-venv.*python3\.12-venv"):
        bootstrap.make_environment(uv=None)


def test_nothing_is_done_while_the_lock_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, stamp = tmp_path / "requirements.lock", tmp_path / ".installed"
    monkeypatch.setattr(bootstrap, "LOCK", lock)
    monkeypatch.setattr(bootstrap, "STAMP", stamp)
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    lock.write_text("one==1\n")
    assert not bootstrap.up_to_date()
    stamp.write_text(bootstrap.wanted_stamp())
    assert bootstrap.up_to_date()
    lock.write_text("one==2\n")
    assert not bootstrap.up_to_date()


def test_a_failed_installation_says_why_and_leaves_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, stamp = tmp_path / "requirements.lock", tmp_path / ".installed"
    lock.write_text("one==1\n")
    stamp.write_text("an older lock's")
    for name, value in {"LOCK": lock, "STAMP": stamp, "LOG": tmp_path / "log", "PYTHON": Path(sys.executable)}.items():
        monkeypatch.setattr(bootstrap, name, value)
    monkeypatch.setattr(bootstrap, "install_command", lambda _uv: ["/bin/sh", "-c", "echo no route to host; exit 1"])
    assert bootstrap.main() == 1
    assert not stamp.exists()
    said = capsys.readouterr()
    assert "installing 1 packages" in said.out
    assert "no route to host" in said.err


def test_progress_is_told_from_what_pip_prints() -> None:
    assert bootstrap.progress("", 3) == ""
    assert bootstrap.progress("Collecting a\nProcessing b\n  Downloading b\n", 3) == "2 of 3 packages fetched, "
    assert bootstrap.progress("Collecting a\nInstalling collected packages: a", 3) == "unpacking, "
