"""What the demo says to the person who started it: one address, what to do first, which psql to use."""

import json
import sys
from typing import Any

from rich.console import Console

from broker.demo.install import NoPostgres, find_postgres, find_psql, speaks_tls
from broker.demo.table import GUIDE, Demo

_INSTALL = (
    "brew install libpq && brew link --force libpq" if sys.platform == "darwin" else "apt install postgresql-client"
)


def greet(console: Console, demo: Demo, seconds: float) -> None:
    """Prints it; the steps are those of the page's own panel."""
    steps: list[dict[str, Any]] = json.loads(GUIDE.read_text("utf-8"))["steps"]
    console.print(f"\nAirlock is ready ({seconds:.0f} s). Open\n\n    {demo.workspace_url}\n", markup=False)
    for number, step in enumerate(steps[:3], start=1):
        console.print(f"  {number}. {step['text']}", markup=False)
        if command := step.get("command"):
            console.print(f"         {command}", markup=False)
    console.print(f"\n{psql_advice()}", markup=False)
    console.print(
        f"Logs are in {demo.state / 'logs'}. Ctrl-C stops everything; starting again goes on from there.\n",
        markup=False,
    )


def psql_advice() -> str:
    """Which psql to paste Airlock's line into, or how to get one."""
    found = find_psql()
    if found:
        return f"psql is {found}: paste Airlock's line into any shell."
    try:
        install = find_postgres()
    except NoPostgres:
        install = None
    if install is None or not speaks_tls(install.bin / "psql"):
        return f"No psql is installed here: `{_INSTALL}`."
    return f'No psql is installed here. The demo\'s own works: `export PATH="$PATH:{install.bin}"`. Or: `{_INSTALL}`.'
