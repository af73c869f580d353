"""The suites: where they come from, how each is run through a door, and what its report says."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as Xml
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from tests.compat.comparing import Outcomes
from tests.compat.corpus import Corpus
from tests.compat.stage import Door

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airlock-compat"


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests that a package publishes with its sources; `parts` is what of them is unpacked."""

    package: str
    parts: tuple[str, ...]
    arguments: tuple[str, ...]
    told: Callable[[Door], tuple[list[str], dict[str, str]]]
    """Arguments and environment that name the server."""
    fresh: bool = True
    """Whether the second run finds the database as the first did."""

    def unpacked(self) -> Path:
        """Return the folder of its sources, of the version that is installed; downloads them once."""
        release = f"{self.package}-{version(self.package)}"
        folder = CACHE / release
        if not (folder / ".done").exists():
            folder.mkdir(parents=True, exist_ok=True)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", self.package]
            subprocess.run([*pip, release.replace("-", "=="), "--dest", str(CACHE)], check=True)
            with tarfile.open(CACHE / f"{release}.tar.gz") as archive:
                wanted = [
                    member
                    for member in archive.getmembers()
                    if member.name.partition("/")[2].startswith(self.parts) and (member.isfile() or member.isdir())
                ]
                for member in wanted:
                    member.name = member.name.partition("/")[2]
                archive.extractall(folder, wanted, filter="data")
            (folder / ".done").touch()
        return folder

    async def run(self, door: Door, report: Path, seconds: float, chosen: str) -> Outcomes:
        """Run through a door; a test that takes longer than a minute fails."""
        folder = self.unpacked()
        more, told = self.told(door)
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | told
        command = [sys.executable, "-m", "pytest", "-q", "--tb=native", "--timeout", "60"]
        command += ["-o", "addopts=", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", *self.arguments, *more, *(["-k", chosen] if chosen else [])]
        with report.with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                await asyncio.wait_for(process.wait(), seconds)
            except TimeoutError:
                process.kill()
                await process.wait()
                raise SystemExit(f"{self.package} through the {door.name} took more than {seconds:.0f} s") from None
        return await asyncio.to_thread(outcomes, report)


def outcomes(report: Path) -> Outcomes:
    """Read a JUnit report; ends the program where there is none."""
    if not report.exists():
        raise SystemExit(f"{report.stem} did not run:\n{report.with_suffix('.log').read_text()[-3000:]}")
    found: Outcomes = {}
    for case in Xml.parse(report).getroot().iter("testcase"):
        name = _plain(f"{case.get('classname')}.{case.get('name')}")
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        outcome = "failed" if bad is not None else "skipped" if case.find("skipped") is not None else "passed"
        why = _plain(((bad.get("message") or "").strip() if bad is not None else "").replace("\n", " "))
        # A test whose clean-up fails too is in the report twice.
        if name not in found or outcome == "failed":
            found[name] = outcome, why
    return found


def _plain(text: str) -> str:
    """Leave out what differs from run to run: addresses, and the server's version in the names of classes."""
    text = re.sub(r"(?<=postgresql\+psycopg)_\d+_\d+", "", re.sub(r"0x[0-9a-f]+", "0x", text))
    return text if len(text) <= 300 else f"{text[:240]}… {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _asyncpg(door: Door) -> tuple[list[str], dict[str, str]]:
    return [], {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(door.port),
        "PGUSER": door.user,
        "PGPASSWORD": door.password,
        "PGDATABASE": door.database,
        "PGSSLMODE": door.sslmode,
    }


def _sqlalchemy(door: Door) -> tuple[list[str], dict[str, str]]:
    where = f"{quote(door.user)}:{quote(door.password)}@127.0.0.1:{door.port}/{door.database}"
    return ["--dburi", f"postgresql+psycopg://{where}?sslmode={door.sslmode}"], {}


_CLUSTERS = ("test__environment", "test__sourcecode", "test_connect", "test_test", "test_subinterpreters")
"""Tests of the sources, and of servers that they start themselves."""
SUITES: tuple[Suite | Corpus, ...] = (
    Corpus(),
    Suite(
        "asyncpg",
        ("tests/",),
        ("tests", *(f"--ignore=tests/{name}.py" for name in _CLUSTERS)),
        _asyncpg,
    ),
    Suite(
        "sqlalchemy",
        ("test/", "setup.cfg", "lib/sqlalchemy/testing/plugin/"),
        ("test/dialect/test_suite.py",),
        _sqlalchemy,
    ),
)
