"""Makes `.venv` from requirements.lock, with the standard library alone; does nothing while the lock stays the same.

It must start on a Python that is too old for the project (from 3.7), since saying so is part of its work.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / ".installed"
LOG = VENV / "install.log"
OLDEST = (3, 11)
# The newest that every dependency has wheels for comes first.
CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3", "python3.14")
HEARTBEAT = 5.0


class Stop(Exception):
    """something is missing that only the person can provide"""


def main() -> int:
    """Makes or mends the environment; returns the exit status."""
    try:
        # Two `make` at once on a fresh clone must not install over each other.
        with LOCK.open("rb") as file:
            wait_turn(file)
            if not up_to_date():
                install()
            build_core()
            return 0
    except Stop as stop:
        sys.stderr.write(f"bootstrap: {stop}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"bootstrap: {error}: free space or permissions may be missing in {ROOT}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("bootstrap: interrupted; the next `make` goes on\n")
        return 130


def wait_turn(file: BinaryIO) -> None:
    """Takes the lock, saying so where that means waiting."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another `make` is installing: waiting for it")
        fcntl.flock(file, fcntl.LOCK_EX)


def wanted_stamp() -> str:
    """What the stamp says when the environment is what the lock asks for."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def up_to_date() -> bool:
    """Whether the last installation finished, from this very lock, and its Python is still there."""
    try:
        return STAMP.read_text().strip() == wanted_stamp() and PYTHON.exists()
    except OSError:
        return False


def build_core() -> None:
    """Compiles what makes the broker fast, where there is a compiler; it works without."""
    if (ROOT / "broker" / "core").is_dir():
        subprocess.run([str(PYTHON), "-m", "broker.core", "--once"], cwd=str(ROOT), check=False)


def install() -> None:
    """Makes the environment and installs into it."""
    began = time.monotonic()
    uv = shutil.which("uv")
    usable = version_of(str(PYTHON)) >= OLDEST
    if not usable:
        make_environment(uv)
    if STAMP.exists():
        STAMP.unlink()
    count = len(re.findall(r"(?m)^[A-Za-z0-9._-]+==", LOCK.read_text()))
    say("installing {} packages into .venv with {} (hashes checked)".format(count, "uv" if uv else "pip"))
    run(install_command(uv), count)
    STAMP.write_text(wanted_stamp() + "\n")
    say(f"done in {time.monotonic() - began:.0f} s")


def install_command(uv: str | None) -> list[str]:
    """The command that installs exactly what the lock lists."""
    if uv:
        return [uv, "pip", "install", "--python", str(PYTHON), "--require-hashes", "--no-deps", "-r", str(LOCK)]
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off"]
    return [*pip, "--require-hashes", "--no-deps", "-r", str(LOCK)]


def make_environment(uv: str | None) -> None:
    """Makes an empty `.venv`, in place of a broken one."""
    python = find_python(needs_venv=uv is None)
    if python is None and uv is None:
        raise Stop(explain_no_python())
    say("making .venv with {}".format(describe(python) if python else "a Python that uv brings"))
    if VENV.exists():
        shutil.rmtree(str(VENV))
    if uv:
        command = [uv, "venv", "--quiet", "--python", python or ">=3.11,<3.14", str(VENV)]
    else:
        command = [str(python), "-m", "venv", str(VENV)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise Stop("`{}` failed:\n{}".format(" ".join(command), done.stdout.decode(errors="replace").strip()))


def find_python(needs_venv: bool) -> str | None:
    """The first Python that is new enough and, without uv, can make environments with pip in them."""
    for name in (os.environ.get("AIRLOCK_PYTHON", ""), *CANDIDATES, sys.executable):
        path = shutil.which(name) if name else None
        # A version manager's shim may exist for a version that is not active: only a run tells.
        if path and version_of(path) >= OLDEST and (not needs_venv or can_make_environments(path)):
            return path
    return None


def version_of(python: str) -> tuple[int, ...]:
    """The version of an interpreter; (0,) where it does not run."""
    found = ask(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    return tuple(int(part) for part in found.split(".")) if re.match(r"^\d+\.\d+$", found) else (0,)


def can_make_environments(python: str) -> bool:
    """Whether it has the modules that Debian packs apart."""
    return ask(python, "import venv, ensurepip; print('yes')") == "yes"


def ask(python: str, program: str) -> str:
    """What a program prints, or nothing."""
    try:
        done = subprocess.run(
            [python, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip()


def explain_no_python() -> str:
    """What to do next, which depends on what was found."""
    found = find_python(needs_venv=False)
    if found:
        package = "python{}.{}-venv".format(*version_of(found))
        return (
            f"{describe(found)} cannot make virtual environments: run `apt install python3-venv` "
            f"(or `apt install {package}`), then again; or install uv (`pip install uv`)"
        )
    return (
        f"Python 3.11 or newer is needed, and `python3` is {sys.version.split()[0]}: install one "
        "(`apt install python3.11 python3.11-venv`, `brew install python@3.13`), name one with "
        "AIRLOCK_PYTHON=/path/to/python, or install uv, which brings its own (`pip install uv`)"
    )


def describe(python: str) -> str:
    """An interpreter in words."""
    return "Python {} ({})".format(".".join(map(str, version_of(python))), python)


def run(command: list[str], count: int) -> None:
    """Runs the installer, saying every few seconds how far it is; its own words go to a log."""
    began = spoken = time.monotonic()
    with LOG.open("wb") as log:
        process = subprocess.Popen(command, cwd=str(ROOT), stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - spoken > HEARTBEAT:
                    spoken = time.monotonic()
                    say(f"  {progress(LOG.read_text(errors='replace'), count)}{spoken - began:.0f} s")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-12:])
        raise Stop(
            f"the installation failed; the last lines of {LOG}:\n{tail}\n"
            "Is the package registry reachable? The next `make` tries again."
        )


def progress(log: str, count: int) -> str:
    """How far pip is, from what it has printed; uv prints nothing until it is done, which is soon."""
    if "\nInstalling collected packages" in log:
        return "unpacking, "
    seen = len(re.findall(r"(?m)^(?:Collecting|Processing) ", log))
    return f"{seen} of {count} packages fetched, " if seen else ""


def say(text: str) -> None:
    """Prints a line of progress."""
    sys.stdout.write(f"bootstrap: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
