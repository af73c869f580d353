"""The whole story with the real processes: ask, approve, psql, blocked and masked, ended, summed up."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.bot_world import buttons, shown
from tests.support.require import require_program

pytestmark = pytest.mark.e2e
CARDS = "access-requests"


@dataclass
class Workspace:
    """The local workspace's JSON API."""

    url: str

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/local/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def seen(self, user: str, channel: str, **more: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"as": user, "channel": channel, **more})
        with urllib.request.urlopen(f"{self.url}/local/messages?{query}", timeout=20) as response:
            found: list[dict[str, Any]] = json.load(response)["messages"]
        return found

    def file(self, address: str) -> str:
        with urllib.request.urlopen(f"{self.url}{address}", timeout=20) as response:
            text: str = response.read().decode()
        return text

    def find(self, user: str, channel: str, has: str, since: str = "0", **more: str) -> dict[str, Any]:
        """Wait for a message that says something."""

        def look() -> dict[str, Any] | None:
            messages = self.seen(user, channel, **more)
            return next((m for m in reversed(messages) if float(m["ts"]) > float(since) and has in shown(m)), None)

        return eventually(look, lambda: "\n---\n".join(shown(m) for m in self.seen(user, channel, **more)))

    def click(self, user: str, message: dict[str, Any], action: str) -> dict[str, Any]:
        where = {"channel": message["channel"], "message_ts": message["ts"], "action_id": action}
        answer = self.post("click", user=user, **where)
        assert answer["ok"], answer
        return answer


def eventually(look: Callable[[], Any], otherwise: Callable[[], str], seconds: float = 40) -> Any:
    """Wait for something to be there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"it never came; there is: {otherwise()}")


@pytest.fixture
def workspace(demo: dict[str, Any]) -> Workspace:
    require_program("psql", "apt-get install postgresql-client")
    return Workspace(demo["workspace"])


def line_of(message: dict[str, Any]) -> str:
    """Return the line that a ticket's message tells to paste."""
    return next(text for text in shown(message).split("\n") if text.startswith("PGPASSWORD="))


def psql(line: str, sql: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    """Paste a line into a shell, with one statement for psql."""
    command = f"{line} --no-psqlrc -v ON_ERROR_STOP=1 -At -c {shlex.quote(sql)}"
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=seconds, env=environment, check=False
    )


def now_of(workspace: Workspace, channel: str = CARDS) -> str:
    """Return the time of the newest message in a channel."""
    return max((message["ts"] for message in workspace.seen("bob", channel)), default="0")


def opened(workspace: Workspace, ask: str) -> tuple[dict[str, Any], str]:
    """Ask as Alice, approve as Bob; gives the card and Alice's line."""
    since = now_of(workspace)
    answer = workspace.post("command", user="alice", channel="incidents", text=ask)
    assert answer["ok"], answer
    card = workspace.find("bob", CARDS, "Access request", since)
    workspace.click("bob", card, "request.approve")
    workspace.find("bob", CARDS, "open until", since)
    return card, line_of(workspace.find("alice", "@Airlock", "PGPASSWORD", since))


def test_story_from_the_command_to_the_transcript(workspace: Workspace, demo: dict[str, Any]) -> None:
    card, line = opened(workspace, "/access prod-db read 30m because INC-42 customer cannot log in")
    assert "customers.ssn (last 4 shown)" in shown(card)
    assert f"port={demo['postgres']['port']}" in line

    masked = psql(line, "select upper(ssn) from customers limit 5")
    assert masked.returncode == 0, masked.stderr
    assert all(value.startswith("***") for value in masked.stdout.split())
    rows = psql(line, "select count(*) from orders")
    assert int(rows.stdout) >= 100_000
    dropped = psql(line, "drop table orders")
    assert dropped.returncode != 0
    assert "the schema of prod-db changes only through migrations" in dropped.stderr

    thread = {"thread_ts": card["ts"]}
    workspace.find("bob", CARDS, "Session opened: Alice on prod-db as read, with psql.", **thread)
    blocked = workspace.find("bob", CARDS, "Blocked: the schema of prod-db changes only through migrations", **thread)
    assert "drop table orders" in shown(blocked).lower()
    counter = workspace.find("bob", CARDS, "1 blocked, masked: customers.ssn", **thread)
    assert buttons(counter) == ["grant.end"]

    workspace.click("alice", counter, "grant.end")
    summary = workspace.find("bob", CARDS, "Alice had read on prod-db for", **thread)
    assert "approved by Bob" in shown(summary)
    assert "3 sessions" in shown(summary)
    final = workspace.find("bob", CARDS, "Ended by Alice. Its sessions are verified gone.")
    assert (final["ts"], buttons(final)) == (card["ts"], [])
    refused = psql(line, "select 1")
    assert refused.returncode != 0

    def files() -> list[dict[str, Any]] | None:
        found = [file for reply in workspace.seen("bob", CARDS, **thread) for file in reply["files"]]
        return found if len(found) == 2 else None

    attached = eventually(files, lambda: str(workspace.seen("bob", CARDS, **thread)))
    texts = {file["name"].rsplit(".", 1)[1]: workspace.file(file["url"]) for file in attached}
    assert "drop table orders" in texts["txt"].lower()
    assert all(json.loads(row) for row in texts["jsonl"].splitlines())


def test_secret_of_a_ticket_is_seen_by_its_owner_alone(workspace: Workspace) -> None:
    card, line = opened(workspace, "/access prod-db read 10m")
    secret = line.split("=", 1)[1].split(" ", 1)[0].strip("'\"")
    for user in ("bob", "dana", "erin"):
        for channel in (CARDS, "incidents", "@Airlock"):
            assert secret not in json.dumps(workspace.seen(user, channel))
        assert secret not in json.dumps(workspace.seen(user, CARDS, thread_ts=card["ts"]))
    workspace.post("command", user="alice", channel="incidents", text="/access revoke")
    workspace.find("alice", "@Airlock", "opens nothing any more", card["ts"])
    assert secret not in json.dumps(workspace.seen("alice", "@Airlock"))


def test_what_the_policy_allows_opens_without_a_review(workspace: Workspace) -> None:
    since = now_of(workspace)
    workspace.post("command", user="alice", channel="incidents", text="/access staging-db write for 30m")
    line = line_of(workspace.find("alice", "@Airlock", "PGPASSWORD", since))
    changed = psql(line, "update customers set name = name where id = 1")
    assert changed.returncode == 0, changed.stderr
    workspace.post("command", user="alice", channel="incidents", text="/access revoke")
    workspace.find("bob", CARDS, "Ended by Alice", since)


def test_session_that_runs_is_cut_when_a_reviewer_revokes(workspace: Workspace) -> None:
    card, line = opened(workspace, "/access prod-db read 10m because long query")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"{line} --no-psqlrc -c 'select count(*) from orders a, orders b, orders c'"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    try:
        counter = workspace.find("bob", CARDS, "1 open session", thread_ts=card["ts"])
        workspace.click("dana", counter, "grant.end")
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode != 0, output
    final = workspace.find("bob", CARDS, "Revoked by Dana.")
    assert final["ts"] == card["ts"]
    workspace.find("bob", CARDS, "verified gone", thread_ts=card["ts"])


def test_form_is_approved_with_changes_and_the_session_has_no_more(workspace: Workspace) -> None:
    since = now_of(workspace)
    opened_form = workspace.post("command", user="alice", channel="incidents", text="/access prod-db write")
    view = opened_form["view"]
    assert view["callback_id"] == "access.ask"
    sent = workspace.post("submit", user="alice", view_id=view["id"], values={"For how long": "30m", "Why": "INC-7"})
    assert sent["ok"], sent
    card = workspace.find("bob", CARDS, "Access request", since)
    less = workspace.click("bob", card, "request.changes")["view"]
    values = {"As": "read", "For how long": "15m"}
    assert workspace.post("submit", user="bob", view_id=less["id"], values=values)["ok"]
    workspace.find("bob", CARDS, "Approved by Bob, read for 15m", since)
    line = line_of(workspace.find("alice", "@Airlock", "PGPASSWORD", since))
    assert psql(line, "select count(*) from orders").returncode == 0
    refused = psql(line, "update products set name = name where id = 1")
    assert "changing data is not allowed by this role" in refused.stderr
    workspace.post("command", user="alice", channel="incidents", text="/access revoke")
    workspace.find("bob", CARDS, "Ended by Alice", since)


def test_access_is_extended_while_its_session_runs_on(workspace: Workspace) -> None:
    card, line = opened(workspace, "/access prod-db read 10m because long work")
    thread = {"thread_ts": card["ts"]}
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"{line} --no-psqlrc -At"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        counter = workspace.find("bob", CARDS, "1 open session", **thread)
        token = next(e["value"] for b in counter["blocks"] if b["type"] == "actions" for e in b["elements"])
        # The button itself comes five minutes before the end; what it sends is sent now.
        forced = {"channel": counter["channel"], "message_ts": counter["ts"], "value": token, "force": True}
        workspace.post("click", user="alice", action_id="grant.extend.900", **forced)
        request = workspace.find("bob", CARDS, "Alice asks for 15m more of read on prod-db", **thread)
        workspace.click("bob", request, "request.approve")
        workspace.find("bob", CARDS, "the access was extended until", **thread)
        workspace.find("alice", "@Airlock", "was extended: it is open until", card["ts"])
        output, _ = process.communicate("select 40 + 2;\n", timeout=20)
        assert output == "42\n"
        workspace.post("click", user="alice", action_id="grant.extend.86400", **forced)
        workspace.find("alice", CARDS, "can be extended by at most 3h35m", **thread)
    finally:
        process.kill()
    workspace.post("command", user="alice", channel="incidents", text="/access revoke")
    workspace.find("bob", CARDS, "Ended by Alice", str(float(card["ts"]) - 0.001))
