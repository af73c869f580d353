"""pgJDBC, PostgreSQL's driver for Java: its jar where a machine has it, and small programs compiled against it."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.broker import Line
from tests.support.require import missing, require_program

INSTALL = "apt-get install libpostgresql-jdbc-java default-jdk-headless"
SOURCES = Path(__file__).parent / "java"


def driver() -> str:
    """The class path with pgJDBC: of AIRLOCK_PGJDBC, Debian's package, or Maven's local repository."""
    if given := os.environ.get("AIRLOCK_PGJDBC"):
        return given
    debian = Path("/usr/share/java")
    if (debian / "postgresql.jar").is_file():
        # Debian's jar has its SCRAM implementation beside it.
        return ":".join(map(str, [debian / "postgresql.jar", *debian.glob("scram-*.jar"), *debian.glob("*prep*.jar")]))
    maven = Path.home() / ".m2" / "repository" / "org" / "postgresql" / "postgresql"
    jars = sorted(maven.glob("*/postgresql-*.jar"))
    if not jars:
        missing("no pgJDBC on this machine", INSTALL)
    return str(jars[-1])


class Run:
    """One part of the program that is played, and what it says of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.over = False

    def tell(self, line: str = "") -> None:
        """Give it a line of input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    async def said(self) -> list[str]:
        """The lines that it says until it is over; it is to end well."""
        lines = await asyncio.wait_for(asyncio.to_thread(self._rest), 60)
        assert self.over, lines
        return lines

    def _rest(self) -> list[str]:
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            if line == "over\n":
                self.over = True
                break
            lines.append(line.removesuffix("\n"))
        return lines


class Program:
    """A compiled program in a machine of its own, which plays one part after the other."""

    def __init__(self, java: str, classpath: str, name: str) -> None:
        self._command = [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classpath, name]
        self._process: subprocess.Popen[str] | None = None

    @asynccontextmanager
    async def running(self, what: str, line: Line, **properties: str) -> AsyncIterator[Run]:
        """Play one of the program's parts on a line; a machine that was not done with it is not used again."""
        listed = "&".join(f"{name}={value}" for name, value in {"sslmode": "require", **properties}.items())
        url = f"jdbc:postgresql://127.0.0.1:{line.port}/{line.database}?{listed}"
        run = Run(self._machine())
        run.tell("\t".join((what, url, line.user, line.password)))
        try:
            yield run
        finally:
            if not run.over:
                self.close()

    def _machine(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=_PLAIN
            )
        return self._process

    def close(self) -> None:
        """End the machine."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_PLAIN = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def compiled(folder: Path, name: str = "Holds") -> Program:
    """Compile one of the programs; without Java or pgJDBC the test is skipped."""
    java, javac = require_program("java", INSTALL), require_program("javac", INSTALL)
    jars = driver()
    done = subprocess.run(
        [javac, "-d", folder, SOURCES / f"{name}.java"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return Program(java, f"{folder}:{jars}", name)
