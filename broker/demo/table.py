"""What the demo is made of: which processes, with which settings, in which order."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from broker.demo.install import find_bare_psql
from broker.demo.keeper import Process, python

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = Path(__file__).with_name("guide.json")
_MANIFEST = REPOSITORY / "bot" / "chat" / "slack" / "manifest.json"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Demo:
    """One demo: its state folder (absolute) and its ports by name (workspace, postgres, api, upstream)."""

    state: Path
    ports: Mapping[str, int]

    @property
    def workspace_url(self) -> str:
        """The one address to open."""
        return f"http://{_LOOPBACK}:{self.ports['workspace']}"

    @property
    def broker_url(self) -> str:
        """Where the broker's API is."""
        return f"http://{_LOOPBACK}:{self.ports['api']}"

    @property
    def policies(self) -> Path:
        """The policies in force: the checkout's, unless the environment names others."""
        return Path(os.environ.get("AIRLOCK_POLICIES") or REPOSITORY / "policies").absolute()

    def app(self) -> dict[str, Any]:
        """What the workspace tells its app: addresses, tokens, ids; nothing before it has started."""
        return _read_json(self.state / "workspace" / "app.json")

    def ready_file(self, name: str) -> Path:
        """Where a process says that it is ready."""
        return self.state / "run" / f"{name}.json"

    def environment(self, name: str) -> dict[str, str]:
        """The environment of one process; a developer's own Slack tokens stay out of it."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SLACK_")}
        own = {"PYTHONUNBUFFERED": "1", "AIRLOCK_READY_FILE": str(self.ready_file(name))}
        return inherited | self.settings() | own

    def settings(self) -> dict[str, str]:
        """What every process of the demo has in common; nothing secret."""
        return {
            "AIRLOCK_STATE": str(self.state),
            "AIRLOCK_POLICIES": str(self.policies),
            "AIRLOCK_SECRETS": str(self.state / "secrets"),
            "AIRLOCK_BROKER_URL": self.broker_url,
            "AIRLOCK_API_PORT": str(self.ports["api"]),
            "AIRLOCK_PORT_POSTGRES": str(self.ports["postgres"]),
            "AIRLOCK_PUBLIC_HOST": _LOOPBACK,
            "AIRLOCK_DEMO_UPSTREAM_PORT": str(self.ports["upstream"]),
        }

    def bot_environment(self) -> dict[str, str]:
        """The bot's, which has the workspace's tokens besides."""
        app = self.app()
        return self.environment("bot") | {
            "SLACK_API_URL": str(app.get("api_url", "")),
            "SLACK_BOT_TOKEN": str(app.get("bot_token", "")),
            "SLACK_APP_TOKEN": str(app.get("app_token", "")),
        }


def demo_processes(demo: Demo) -> list[Process]:
    """The processes of `make demo`, in the order in which they start; they end in the opposite one."""
    ready = demo.ready_file
    return [
        Process(
            "upstream",
            python(
                "broker.demo.upstream",
                *("--state", str(demo.state / "upstream")),
                *("--port", str(demo.ports["upstream"])),
                *("--ready", str(ready("upstream"))),
            ),
            ready("upstream"),
            _environment(demo, "upstream"),
            patience=180,  # the first start copies, initialises and fills, perhaps on a slow disk
            grace=20,
        ),
        Process(
            "workspace",
            python(
                "bot.workspace",
                *("--state", str(demo.state / "workspace")),
                *("--port", str(demo.ports["workspace"])),
                *("--manifest", str(_MANIFEST)),
                *("--guide", str(GUIDE)),
                *_pane(),
                *("--ready", str(ready("workspace"))),
            ),
            ready("workspace"),
            _environment(demo, "workspace"),
        ),
        Process("reaper", python("broker.reaper"), ready("reaper"), _environment(demo, "reaper")),
        Process(
            "broker",
            python("broker"),
            ready("broker"),
            _environment(demo, "broker"),
            probe=lambda: _answers(f"{demo.broker_url}/v1/health"),
        ),
        Process("bot", python("bot"), ready("bot"), demo.bot_environment),
    ]


def demo_summary(demo: Demo, pids: Mapping[str, int]) -> dict[str, Any]:
    """What the file of `--ready` says."""
    app = demo.app()
    return {
        "workspace": demo.workspace_url,
        "broker": demo.broker_url,
        "postgres": {"host": _LOOPBACK, "port": demo.ports["postgres"]},
        "resources": _resources(demo.policies / "resources.yaml"),
        "users": app.get("users", {}),
        "channels": app.get("channels", {}),
        "pids": dict(pids),
    }


def _pane() -> tuple[str, ...]:
    """What the page's terminal pane runs, where this machine has it."""
    psql = find_bare_psql()
    return ("--psql", str(psql)) if psql else ()


def _environment(demo: Demo, name: str) -> Callable[[], Mapping[str, str]]:
    return lambda: demo.environment(name)


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session, session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _resources(path: Path) -> list[str]:
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []  # the broker has said what is wrong with it
    resources = document.get("resources") if isinstance(document, dict) else None
    return list(resources) if isinstance(resources, dict) else []


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
