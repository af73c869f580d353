"""One airlock of real processes on a fresh state folder: workspace, reaper, broker, bot; the upstream is kept."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import aiohttp

from broker.demo.cluster import free_port
from tests.chaos.people import People
from tests.chaos.policy import READ, WRITE, write_policy
from tests.chaos.processes import REPOSITORY, Member
from tests.chaos.upstream import PASSWORD, Upstream

_MANIFEST = REPOSITORY / "bot" / "chat" / "slack" / "manifest.json"
_SHIM = Path(__file__).with_name("wallclock.c")
NO_COMPILER = "no C compiler, so no step of the clock: apt-get install gcc libc6-dev"


@lru_cache(maxsize=1)
def clock_shim() -> Path | None:
    """Return the library that shifts a process's wall clock, made once; None where nothing here compiles C."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="airlock-chaos-clock-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "wallclock.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(_SHIM), "-ldl"], capture_output=True, check=False
    )
    return made if done.returncode == 0 else None


class Rig:
    """The processes and where they keep things; `say` writes into the timeline of whatever runs now."""

    def __init__(self, upstream: Upstream, say: Callable[[str], None], workers: int = 1) -> None:
        self.upstream = upstream
        self.workers = workers
        self.root = Path(tempfile.mkdtemp(prefix="airlock-chaos-"))
        self.state = self.root / "state"
        self.policies = self.root / "policies"
        self.shift = 0.0
        self._say = say
        self._ports = {name: free_port() for name in ("workspace", "api", "postgres")}
        self._clock = self.root / "clock"
        self._clock.write_bytes(struct.pack("q", 0))
        self.members = {
            "workspace": Member("workspace", self._workspace_words(), self.root, self._plain_environment, say),
            "reaper": Member("reaper", ["broker.reaper"], self.root, self._environment, say),
            "broker": Member("broker", ["broker"], self.root, self._environment, say),
            "bot": Member("bot", ["bot"], self.root, self._bot_environment, say),
        }
        self.http: aiohttp.ClientSession
        self.people: People

    def _workspace_words(self) -> list[str]:
        return [
            "bot.workspace",
            *("--state", str(self.root / "workspace")),
            *("--port", str(self._ports["workspace"])),
            *("--manifest", str(_MANIFEST)),
            *("--ready", str(self.root / "run" / "workspace.json")),
        ]

    def _plain_environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith(("SLACK_", "AIRLOCK_"))}

    def _environment(self) -> dict[str, str]:
        shim = clock_shim()
        clock = {"LD_PRELOAD": str(shim), "CHAOS_WALL_SHIFT": str(self._clock)} if shim else {}
        return (
            self._plain_environment()
            | clock
            | {
                "AIRLOCK_STATE": str(self.state),
                "AIRLOCK_POLICIES": str(self.policies),
                "AIRLOCK_BROKER_URL": f"http://127.0.0.1:{self._ports['api']}",
                "AIRLOCK_API_PORT": str(self._ports["api"]),
                "AIRLOCK_PORT_POSTGRES": str(self._ports["postgres"]),
                "AIRLOCK_PENDING_CAP": "100000",
                "AIRLOCK_WORKERS": str(self.workers),
            }
        )

    def _bot_environment(self) -> dict[str, str]:
        app = self.app()
        return self._environment() | {
            "SLACK_API_URL": app["api_url"],
            "SLACK_BOT_TOKEN": app["bot_token"],
            "SLACK_APP_TOKEN": app["app_token"],
        }

    def app(self) -> dict[str, str]:
        """What the workspace tells its app."""
        found: dict[str, str] = json.loads((self.root / "workspace" / "app.json").read_text())
        return found

    async def start(self) -> None:
        """Start everything."""
        write_policy(self.policies, self.upstream.port)
        secrets = self.state / "secrets"
        secrets.mkdir(parents=True)
        for name, role in (("read", READ), ("write", WRITE)):
            (secrets / name).write_text(f"{role}:{PASSWORD}\n")
        await asyncio.gather(self.members["workspace"].start(), self.members["reaper"].start())
        self.http = aiohttp.ClientSession()
        self.people = People(self.http, f"http://127.0.0.1:{self._ports['workspace']}", self.app())
        # The bot makes the order key that the broker reads.
        await asyncio.gather(self.members["bot"].start(), self.members["broker"].start())

    def step_clock(self, seconds: float) -> None:
        """Step the wall clock of bot, broker and reaper; the upstream and Slack are on other machines."""
        self.shift += seconds
        # In place: the processes have this file mapped, and one that is cut short ends them by SIGBUS.
        with self._clock.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", int(self.shift * 1_000_000_000)))

    @property
    def api(self) -> str:
        """Where the broker's API is."""
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def postgres_port(self) -> int:
        """Where the broker listens for clients."""
        return self._ports["postgres"]

    async def healed(self, patience: float = 60.0) -> None:
        """Wait until every process is up and at work."""
        for member in self.members.values():
            member.thaw()
            if member.pid:
                member.empty_disk()
        await asyncio.gather(*(asyncio.wait_for(member.up.wait(), patience) for member in self.members.values()))

    def was_down(self, name: str, since: float, until: float) -> bool:
        """Say whether a process was not at work at some time between two moments."""
        spans = self.upstream.down if name == "upstream" else self.members[name].down
        return any(begin <= until and end >= since for begin, end in spans)

    async def stop(self, keep: bool = False) -> None:
        """End everything in the opposite order and remove the folder, unless it is wanted."""
        for name in ("bot", "broker", "reaper", "workspace"):
            await self.members[name].stop()
        with suppress(AttributeError):
            await self.http.close()
        if not keep:
            shutil.rmtree(self.root, ignore_errors=True)
