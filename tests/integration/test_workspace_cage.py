"""The cage around psql: a real psql and a real server, and everything one would try to get more out of it."""

import asyncio
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.workspace.terminal.client import CAGE, Client
from bot.workspace.terminal.lines import Refused, read_typed
from tests.integration.psqls import connection, psqls
from tests.support.postgres import Server
from tests.unit.bot.workspace.world import until

# Straight into psql, past the list: the cage has to hold alone.
ATTACKS = [
    "\\! touch {}",
    "\\o {}\nselect 1;\n\\o",
    "\\o |touch {}\nselect 1;\n\\o",
    "select 1 \\g {}",
    "select 1 \\g |touch {}",
    "\\copy (select 1) to '{}'",
    "\\copy (select 1) to program 'touch {}'",
    "\\set x `touch {}`",
    "\\echo `touch {}`",
    "select 1;\n\\w {}",
    "select 1;\n\\w |touch {}",
    "\\setenv PSQL_EDITOR 'touch {} #'\nselect 1;\n\\e",
    "\\setenv PAGER 'touch {}'\n\\pset pager always\n\\dS\n\\?",
    "\\s {}",
    "\\lo_import /etc/passwd\n\\i /etc/passwd\n\\! cat /etc/passwd",
    "\\set PROMPT1 '%`touch {}`'\nselect 1;",
    "select 'touch {}' as t \\gset\n\\! :t",
]


@pytest.fixture
def target() -> Iterator[Path]:
    # Open to everyone, so that the cage and not the folder's mode is what keeps it empty.
    with tempfile.TemporaryDirectory(prefix="airlock-pane-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder) / "broken-out"


def made(target: Path) -> int:
    """How many bytes somebody has written there, -1 where nothing is."""
    return target.stat().st_size if target.exists() else -1


@pytest.mark.parametrize("attack", ATTACKS)
async def test_the_cage_holds_without_the_list(psql: Path, wheel_postgres: Server, target: Path, attack: str) -> None:
    said: list[str] = []
    client = Client(1, connection(wheel_postgres), lambda what, text: said.append(text) if what == "said" else None)
    client.start(psql, 100, 30)
    try:
        await until(lambda: "\x1f" in "".join(said), 20)
        client.send([*attack.format(target).split("\n"), "\\echo all-was-tried"])
        await until(lambda: "all-was-tried" in "".join(said), 20)
    finally:
        await client.close()
    text = "".join(said)
    assert made(target) <= (-1 if "touch" in attack else 0), text
    assert "root:x:0" not in text


async def test_psql_has_no_power_no_path_and_no_secret_of_ours(
    psql: Path, wheel_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-not-for-psql")
    said: list[str] = []
    client = Client(1, connection(wheel_postgres), lambda what, text: said.append(text) if what == "said" else None)
    client.start(psql, 100, 30)
    try:
        await until(lambda: "\x1f" in "".join(said), 20)
        proc = Path(f"/proc/{client.pid}")
        status = (proc / "status").read_text()
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), status
        assert re.search(r"^CapPrm:\s+0+$", status, re.MULTILINE), status
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), status
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE), status
        assert re.search(r"^Max processes +0 +0", (proc / "limits").read_text(), re.MULTILINE)
        assert (proc / "exe").resolve().name == "psql"
        assert b"xoxb" not in (proc / "environ").read_bytes()
        assert b"pane-password" not in (proc / "cmdline").read_bytes()
        assert {os.readlink(each).split(":")[0] for each in (proc / "fd").iterdir()} <= {
            "socket",
            *(os.readlink(proc / "fd" / "0"),),
        }
    finally:
        await client.close()


async def test_psql_reaches_no_other_port(psql: Path, wheel_postgres: Server) -> None:
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    other = listener.sockets[0].getsockname()[1]
    said: list[str] = []
    client = Client(1, connection(wheel_postgres), lambda what, text: said.append(text) if what == "said" else None)
    client.start(psql, 100, 30)
    try:
        await until(lambda: "\x1f" in "".join(said), 20)
        client.send([f"\\c 'host=127.0.0.1 port={other} sslmode=disable'", "\\echo tried"])
        await until(lambda: "tried\n" in "".join(said), 20)
    finally:
        await client.close()
        listener.close()
    if _landlock_version() >= 4:
        assert "Permission denied" in "".join(said)


def _landlock_version() -> int:
    if not sys.platform.startswith("linux"):
        return 0
    import ctypes

    return int(ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1))


def test_psql_is_not_started_where_the_cage_does_not_hold(tmp_path: Path) -> None:
    """The cage's last act is to try: with its layers taken out, it must refuse."""
    script = (
        "import runpy, sys\n"
        f"cage = runpy.run_path({str(CAGE)!r}, run_name='cage')\n"
        "main = cage['main']\n"
        "main.__globals__['enclose'] = lambda psql, port: None\n"
        "main('/bin/echo', 1)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 97
    assert "other programs could be started" in done.stdout


FRAGMENTS = [
    *("select 1", ";", " ", "'", '"', "$$", "$a$", "--", "/*", "*/", "E'", "U&'", "\\x", "\\d", "\\g", "\\gx", "\\p"),
    *("\\r", "\\! touch %", "\\o |touch %", "\\g |touch %", "`touch %`", "\\echo `touch %`", "|touch %", "\\copy"),
    *("\\t", "\\a", "\\echo ", ":'x'", ":LAST_ERROR_MESSAGE", "::text", ":a", "\\;", "\\:", "(", ")", "{", "}", "\\\\"),
    *("\\pset null ", "set standard_conforming_strings=off", "set standard_conforming_strings=on", "begin", "rollback"),
    *("\n", "\n", "\t"),
    *("copy (select 1) to stdout", "copy nowhere from stdin", "\\.", "\\c ", "\\h ", "\\q", "\\set x ", "\\if 1", "é"),
    *("select (chr(92)||'! touch %')::int", "select (chr(34)||';'||chr(92)||'! touch %')::int", "\\errverbose"),
]  # fmt: skip


def test_nothing_that_passes_the_list_starts_a_program_in_a_psql_without_a_cage(
    wheel_postgres: Server, target: Path
) -> None:
    """Thousands of random lines: those that pass go to a psql that could do harm, the others are counted."""
    psql = psqls()[0]
    conn = connection(wheel_postgres)
    dice = random.Random(20)
    passed, refused = [], 0
    while len(passed) < 3000:
        text = "".join(dice.choice(FRAGMENTS) for _ in range(dice.randint(1, 7))).replace("%", str(target))
        typed = read_typed(text)
        if isinstance(typed, Refused):
            refused += 1
        elif not any("\\q" in each for each in typed):
            passed += typed
    assert refused > 300
    env = {**conn.environment(), "PATH": os.environ["PATH"], "PGCLIENTENCODING": "UTF8"}
    for start in range(0, len(passed), 100):
        # A fresh psql now and then, since a quote left open swallows what follows.
        subprocess.run(
            [psql, "-X", "-n", "-w"], input="\n".join(passed[start : start + 100]), env=env, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert not target.exists(), passed[start : start + 100]
    # The same psql does break out when it is told to: the test can fail.
    escape = f"select (chr(34)||';'||chr(92)||'! touch {target} #')::int;\n:LAST_ERROR_MESSAGE\n"
    command = [psql, "-X", "-n", "-w"]
    subprocess.run(command, input=escape, env=env, text=True, capture_output=True, timeout=60, check=False)
    assert target.exists()
