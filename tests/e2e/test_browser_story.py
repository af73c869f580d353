"""The story as a newcomer lives it: every step in a real browser, with psql run from the line that the page shows."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_workspace_page import FLAGS, chromium
from tests.support.require import require_program

sync_api = pytest.importorskip("playwright.sync_api", reason="python -m pip install playwright")
pytestmark = [pytest.mark.e2e, pytest.mark.browser]


@pytest.fixture
def page(demo: dict[str, Any]) -> Iterator[Any]:
    path = chromium()
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        shown = browser.new_context(viewport={"width": 1360, "height": 900}).new_page()
        shown.set_default_timeout(15_000)
        complaints: list[str] = []
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        yield shown
        assert complaints == []
        browser.close()


def run(line: str, sql: str) -> str:
    """Paste the line into a shell, as people do, and run a statement; returns what psql says."""
    done = subprocess.run(f"{line} -X -f -", shell=True, input=sql, capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def finished(page: Any, wanted: int) -> int:
    """Wait until the guide has ticked that many steps; returns how many it has."""
    page.locator(".steps li.finished").nth(wanted - 1).wait_for()
    return int(page.locator(".steps li.finished").count())


def test_the_guide_leads_from_asking_to_the_transcript(demo: dict[str, Any], page: Any, tmp_path: Path) -> None:
    require_program("psql", "apt install postgresql-client")
    page.goto(f"{demo['workspace']}/#alice/incidents")
    page.get_by_role("button", name="Fill it in: step 1").click()
    page.keyboard.press("Enter")
    page.get_by_text("Your request for read on prod-db waits for 1 of dbas: Bob or Dana.").last.wait_for()
    assert finished(page, 1) == 1

    page.get_by_role("button", name="Go there as Bob: step 2").click()
    page.get_by_role("heading", name="Access request: prod-db (read)").last.wait_for()
    assert finished(page, 1) == 1, "looking at the card approves nothing"
    page.screenshot(path=tmp_path / "card.png")
    page.get_by_role("button", name=re.compile("^Approve read on prod-db for 30m")).last.click()
    dialog = page.get_by_role("dialog")
    assert "Alice" in dialog.inner_text()
    dialog.get_by_role("button", name="Approve").click()
    page.get_by_text("Approved by Bob").last.wait_for()
    assert finished(page, 2) == 2

    page.get_by_role("button", name="Go there as Alice: step 3").click()
    page.get_by_text("PGPASSWORD=").last.wait_for()
    line = page.get_by_text("PGPASSWORD=").last.inner_text()
    rows = run(line, "select name, ssn, email from customers order by id limit 2;\n")
    assert re.search(r"\*\*\*\d{4} \| \*\*\*", rows), rows
    refused = run(line, r"\set VERBOSITY verbose" + "\ndrop table orders;\n")
    assert "ERROR:  42501: airlock: the schema of prod-db changes only through migrations" in refused

    assert finished(page, 5) == 5

    page.get_by_role("button", name="End now: read on prod-db").last.click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("End")).click()
    # Other stories may have ended on this page before, so psql says whether this one has.
    deadline = time.monotonic() + 10
    while "this access was ended" not in (said := run(line, "select 1;\n")):
        assert time.monotonic() < deadline, said
    page.get_by_text("Its sessions are verified gone").last.wait_for()
    assert finished(page, 6) == 6

    page.get_by_role("button", name="Go there as Bob: step 7").click()
    page.get_by_role("button", name=re.compile("repl")).last.click()
    page.get_by_text("drop table orders", exact=True).last.wait_for()
    page.get_by_text("Transcript, to read: read on prod-db").last.wait_for()
    page.screenshot(path=tmp_path / "thread.png")
