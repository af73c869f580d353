"""How the core is built: nothing half made is loaded, and what failed by chance is tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.core import build


class Works:
    """A compiler and Cython that write what they are given, or fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.calls: list[list[str]] = []
        self.fails = ""
        (folder / "lane.pyx").write_text("first")
        for name, file in (("SOURCE", "lane.pyx"), ("STAMP", "lane.built"), ("GIVEN_UP", "lane.unbuilt")):
            monkeypatch.setattr(build, name, folder / file)
        monkeypatch.setattr(build, "HERE", folder)
        monkeypatch.setattr(build, "find_spec", lambda _: True)
        monkeypatch.setattr(build, "_headers", lambda: folder)
        monkeypatch.setattr(build, "_run", self.run)
        (folder / "Python.h").touch()
        (folder / "cc").write_text("#!/bin/sh\n")
        (folder / "cc").chmod(0o755)
        monkeypatch.setenv("CC", f"{folder / 'cc'} -m64")

    def run(self, command: list[str]) -> None:
        self.calls.append(command)
        if self.fails:
            raise build.NotBuilt(self.fails)
        if "-o" in command:
            Path(command[command.index("-o") + 1]).write_text("made")


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Works:
    return Works(monkeypatch, tmp_path)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".new", ".so", ".built", ".unbuilt"))


def test_what_is_built_is_up_to_date_until_the_source_changes_or_it_is_gone(works: Works) -> None:
    made = build.build()
    assert build.up_to_date()
    assert works.calls[1][1] == "-m64"
    (works.folder / "writing.pxi").write_text("another")
    assert not build.up_to_date()
    build.build()
    assert build.up_to_date()
    made.unlink()
    assert not build.up_to_date()


def test_two_builds_at_once_never_write_into_one_file(works: Works) -> None:
    build.build()
    build.build()
    written = [call[call.index("-o") + 1] for call in works.calls if call[1] == "-m64"]
    assert len(set(written)) == 2
    assert len(left_behind(works.folder)) == 2


def test_a_source_that_changes_while_it_is_compiled_is_not_taken_for_what_was_made(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str]) -> None:
        works.run(command)
        (works.folder / "lane.pyx").write_text("second")

    monkeypatch.setattr(build, "_run", run)
    with pytest.raises(build.NotBuilt, match="changed meanwhile"):
        build.build()
    assert left_behind(works.folder) == []


def test_a_compiler_that_fails_is_tried_again_and_one_that_is_missing_only_when_it_is_there(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    works.fails = "no space left on device"
    with pytest.raises(build.NotBuilt, match="no space"):
        build.build()
    assert not build.given_up()
    works.fails = ""
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(build.NotBuilt, match="no C compiler"):
        build.build()
    assert build.given_up()
    monkeypatch.setenv("CC", str(works.folder / "cc"))
    assert not build.given_up()
    build.build()
    assert build.up_to_date()


def test_a_tree_that_cannot_be_written_is_said_before_anything_is_compiled(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> tuple[int, str]:
        raise OSError(30, "Read-only file system", str(works.folder))

    monkeypatch.setattr(build.tempfile, "mkstemp", refuses)
    with pytest.raises(build.NotBuilt, match="Read-only file system"):
        build.build()
    assert works.calls == []
