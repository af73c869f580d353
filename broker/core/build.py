"""Builds the compiled core in place: Cython writes its C, a C compiler makes the module."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "lane.pyx"
STAMP = HERE / "lane.built"
GIVEN_UP = HERE / "lane.unbuilt"
_FLAGS = ("-O2", "-fPIC", "-shared", "-fwrapv", "-fno-strict-aliasing", "-DNDEBUG", "-fvisibility=hidden")


class NotBuilt(Exception):
    """the core cannot be built here; the broker runs without it"""


class Missing(NotBuilt):
    """something that building it takes is not there"""


def stamp() -> str:
    """Return what tells the source and the interpreter that a module was built of; raises OSError."""
    text = b"".join(path.read_bytes() for path in (SOURCE, *sorted(HERE.glob("*.pxi"))))
    return hashlib.sha256(text + str(sysconfig.get_config_var("EXT_SUFFIX")).encode()).hexdigest()


def up_to_date() -> bool:
    """Say whether what is there was built of this source for this interpreter."""
    return _says(STAMP, stamp) and _target().exists()


def given_up() -> bool:
    """Say whether building it failed before, with what is here now."""
    return _says(GIVEN_UP, _means)


def build() -> Path:
    """Build the module and return where it is; raises NotBuilt: where something is missing, `given_up` remembers it."""
    try:
        return _build()
    except Missing:
        with suppress(OSError):
            GIVEN_UP.write_text(_means(), encoding="ascii")
        raise
    except OSError as error:
        raise NotBuilt(f"{error.filename or HERE}: {error.strerror}") from None


def _says(file: Path, what: Callable[[], str]) -> bool:
    try:
        return file.read_text(encoding="ascii") == what()
    except OSError:
        return False


def _compiler() -> list[str] | None:
    """Return the words of a compiler's call; CC may have several."""
    words = shlex.split(os.environ.get("CC", "")) or ["cc"]
    found = shutil.which(words[0]) or ((shutil.which("gcc") or shutil.which("clang")) if words == ["cc"] else None)
    return [found, *words[1:]] if found else None


def _target() -> Path:
    return HERE / f"lane{sysconfig.get_config_var('EXT_SUFFIX')}"


def _headers() -> Path:
    return Path(sysconfig.get_paths()["include"])


def _means() -> str:
    """Return what tells whether it is worth another try."""
    found = _compiler(), (_headers() / "Python.h").exists(), find_spec("Cython") is not None
    return f"{stamp()} {found}"


def _build() -> Path:
    compiler, headers = _compiler(), _headers()
    if compiler is None:
        raise Missing("there is no C compiler: `apt install gcc`, then `make` again")
    if not (headers / "Python.h").exists():
        raise Missing("Python's headers are not there: `apt install python3-dev`, then `make` again")
    if find_spec("Cython") is None:
        raise Missing("Cython is not there: `pip install cython`, then `python -m broker.core`")
    # The source may change while it is compiled: what is made is of what it was before.
    made_of = stamp()
    # Others may build it too, and a broker that runs keeps the one it has: never write into a mapped file.
    handle, fresh = tempfile.mkstemp(".new", "lane.", HERE)
    os.close(handle)
    try:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, "lane.c")
            _run([sys.executable, "-m", "cython", "-3", str(SOURCE), "-o", str(written)])
            loader = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
            _run([*compiler, *_FLAGS, *loader, f"-I{headers}", "-o", fresh, str(written)])
        if stamp() != made_of:
            raise NotBuilt("its source has changed meanwhile: `make` again")
        Path(fresh).chmod(0o755)
        Path(fresh).replace(_target())
    finally:
        Path(fresh).unlink(missing_ok=True)
    STAMP.write_text(made_of, encoding="ascii")
    return _target()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise NotBuilt(f"`{Path(command[0]).name}` failed:\n{tail}")
