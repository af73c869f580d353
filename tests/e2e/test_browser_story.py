"""The story as a newcomer lives it: every step in a real browser, in one window, also on a phone's."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.pages import FLAGS, chromium
from tests.support.require import require_program

sync_api = pytest.importorskip("playwright.sync_api", reason="python -m pip install playwright")
pytestmark = [pytest.mark.e2e, pytest.mark.browser]
DESKTOP, PHONE = (1360, 900), (390, 844)


class Window:
    """One browser window and the demo behind it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.refused: list[str] = []
        """What the workspace said to clicks that it did not pass on."""
        page.on("response", self._hear)

    def _hear(self, response: Any) -> None:
        if response.url.endswith("/local/click") and not (answer := response.json())["ok"]:
            self.refused.append(answer["error"])

    def guide(self) -> dict[str, Any]:
        """Gives the guide as the workspace has it."""
        with urllib.request.urlopen(f"{self.url}/local/workspace", timeout=20) as response:
            found: dict[str, Any] = json.load(response)["guide"]
        return found

    def start_over(self) -> None:
        """Has the guide begin at its first step."""
        body = json.dumps({"start_over": True}).encode()
        request = urllib.request.Request(f"{self.url}/local/guide", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=20).close()

    def press(self, name: str) -> None:
        """Presses what is called so, the last of several."""
        self.page.get_by_role("button", name=re.compile(name)).last.click()

    def confirm(self, name: str) -> None:
        """Says yes in the dialog."""
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name=name).click()
        dialog.wait_for(state="hidden")

    def says(self, text: str) -> None:
        """Waits until the page shows a text."""
        self.page.get_by_text(text).last.wait_for()

    def has_done(self, *steps: str) -> None:
        """Waits until the guide has ticked steps, the page too."""
        deadline = time.monotonic() + 40
        while not set(steps) <= set(done := self.guide()["done"]):
            assert time.monotonic() < deadline, (steps, done, self.refused)
            self.page.wait_for_timeout(50)

    def leads(self, label: str) -> None:
        """Follows the guide's own button, in the panel or in the strip."""
        self.press(f"^{label}: step")

    def send(self) -> None:
        """Sends what the guide has filled in, once it is there."""
        box = self.page.get_by_role("textbox", name=re.compile("^Message "))
        sync_api.expect(box).to_have_value(re.compile("^/"))
        box.press("Enter")

    def psql(self, text: str) -> str:
        """Presses Enter in the terminal and waits for what psql says; returns all it has said."""
        box = self.page.get_by_role("textbox", name="Type SQL for psql")
        sync_api.expect(box).not_to_have_value("")
        box.press("Enter")
        screen = self.page.get_by_role("log", name="What psql says")
        screen.get_by_text(re.compile(text)).last.wait_for()
        said: str = screen.inner_text()
        return said


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def window(request: pytest.FixtureRequest, demo: dict[str, Any]) -> Iterator[Window]:
    path = chromium()
    width, height = request.param
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(30_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened = Window(page, demo["workspace"])
        opened.start_over()
        page.goto(f"{opened.url}/#alice/incidents")
        yield opened
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert complaints == []
        browser.close()


def test_the_guide_leads_from_asking_to_the_transcript_in_one_window(window: Window) -> None:
    require_program("psql", "apt install postgresql-client")
    ask_for_access(window)
    line = open_psql(window, "connect", "read")
    look_around(window)
    change_something(window)
    leave_a_trail(window, line)
    assert set(window.guide()["done"]) == {step["id"] for step in window.guide()["steps"]}


def ask_for_access(window: Window) -> None:
    window.leads("Fill it in")
    window.send()
    window.says("Your request for read on prod-db waits for 1 of dbas: Bob or Dana.")
    window.has_done("ask")
    window.leads("Go there as Bob")
    window.page.get_by_role("button", name=re.compile("^Approve read on prod-db for 30m")).last.wait_for()
    assert "approve" not in window.guide()["done"], "looking at the card approves nothing"
    approve(window, "read")
    window.has_done("approve")


def approve(window: Window, role: str) -> None:
    window.press(f"^Approve {role} on prod-db for 30m")
    assert "Alice" in window.page.get_by_role("dialog").inner_text()
    window.confirm("Approve")


def open_psql(window: Window, step: str, role: str) -> str:
    window.leads("Go there as Alice")
    messages = window.page.get_by_role("log", name="Messages")
    messages.get_by_role("button", name=f"New line for {role} on prod-db").last.wait_for()
    line: str = window.page.get_by_text("PGPASSWORD=").last.inner_text()
    window.press("^Open psql here")
    window.has_done(step)
    return line


def look_around(window: Window) -> None:
    window.leads("Type it for me")
    rows = window.psql(r"\*\*\*\d{4}")
    assert "Marta" in rows
    window.has_done("look")
    window.leads("Type it for me")
    assert "airlock: the schema of prod-db changes only through migrations" in window.psql("^HINT:")
    window.has_done("blocked")


def change_something(window: Window) -> None:
    window.leads("Go there as Alice")
    window.send()
    window.says("Your request for write on prod-db waits for")
    window.leads("Go there as Bob")
    approve(window, "write")
    window.says("Approved by Bob so far. Still waiting for 1 of security: Erin.")
    window.has_done("approve-write")
    window.leads("Go there as Erin")
    approve(window, "write")
    window.has_done("approve-security")
    open_psql(window, "connect-write", "write")
    window.leads("Type it for me")
    # psql waits, and says for whom.
    window.psql("waiting for|review")
    window.has_done("write")
    window.leads("Go there as Bob")
    window.press("repl")
    thread = window.page.get_by_role("complementary", name="Thread")
    thread.get_by_role("button", name=re.compile("^Approve .*, once$")).last.click()
    window.confirm("Approve")
    window.has_done("review")
    window.leads("Go there as Alice")
    window.page.get_by_role("log", name="What psql says").get_by_text(re.compile("^UPDATE 1")).wait_for()
    window.has_done("run")


def leave_a_trail(window: Window, line: str) -> None:
    window.leads("Go there as Alice")
    # Write is ended first, under the newest line; its button goes, and read's is the last.
    for role in ("write", "read"):
        name = f"End now: {role} on prod-db"
        ends = window.page.get_by_role("log", name="Messages").get_by_role("button", name=name)
        ends.last.click()
        window.confirm("End now")
        sync_api.expect(ends).to_have_count(0)
    window.has_done("end")
    deadline = time.monotonic() + 40
    while "this access was ended" not in (said := run(line, "select 1;\n")):
        assert time.monotonic() < deadline, said
    window.leads("Go there as Bob")
    window.press("repl")
    window.says("Its sessions are verified gone")
    window.press("^Open .*txt")
    transcript = window.page.get_by_role("dialog").inner_text()
    assert "update orders" in transcript or "drop table" in transcript
    window.has_done("read")
    window.page.keyboard.press("Escape")


def run(line: str, sql: str) -> str:
    """Paste the line into a shell, as people do, and run a statement; returns what psql says."""
    done = subprocess.run(f"{line} -X -f -", shell=True, input=sql, capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def test_a_line_pasted_into_a_shell_works_as_the_pane_does(window: Window) -> None:
    require_program("psql", "apt install postgresql-client")
    ask_for_access(window)
    window.leads("Go there as Alice")
    window.says("PGPASSWORD=")
    line = window.page.get_by_text("PGPASSWORD=").last.inner_text()
    rows = run(line, "select name, ssn, email from customers order by id limit 2;\n")
    assert re.search(r"\*\*\*\d{4} \| \*\*\*", rows), rows
    refused = run(line, r"\set VERBOSITY verbose" + "\ndrop table orders;\n")
    assert "ERROR:  42501: airlock: the schema of prod-db changes only through migrations" in refused
    # The guide has heard of it from the thread alone.
    window.has_done("connect", "look", "blocked")
    window.page.get_by_role("log", name="Messages").get_by_role("button", name=re.compile("^End now: ")).last.click()
    window.confirm("End now")
