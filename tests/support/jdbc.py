"""pgJDBC, PostgreSQL's driver for Java: its jar where a machine has it, and a small program compiled against it."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.broker import Shown
from tests.support.require import missing, require_program

INSTALL = "apt-get install libpostgresql-jdbc-java default-jdk-headless"
SOURCE = Path(__file__).parent / "java" / "Holds.java"


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


@dataclass(frozen=True)
class Program:
    """The compiled program and what it needs to run."""

    java: str
    classpath: str

    @asynccontextmanager
    async def running(self, what: str, ticket: Shown, **properties: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run one of the program's parts with a ticket."""
        listed = "&".join(f"{name}={value}" for name, value in {"sslmode": "require", **properties}.items())
        url = f"jdbc:postgresql://127.0.0.1:{ticket.port}/{ticket.database}?{listed}"
        process = await asyncio.create_subprocess_exec(
            *(self.java, "-XX:TieredStopAtLevel=1", "-cp", self.classpath, "Holds", what, url, ticket.user),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PGPASSWORD": ticket.password},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def compiled(folder: Path) -> Program:
    """Compile the program; without Java or pgJDBC the test is skipped."""
    java, javac = require_program("java", INSTALL), require_program("javac", INSTALL)
    jars = driver()
    done = subprocess.run([javac, "-d", folder, SOURCE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return Program(java, f"{folder}:{jars}")


async def said(process: asyncio.subprocess.Process) -> list[str]:
    """The lines that a program says until it is over; it is to end well."""
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines()
