"""A browser, and pages of the workspace in it whose console must stay silent."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.require import missing
from tests.unit.bot.workspace.world import World, button, running, section

playwright = pytest.importorskip("playwright.async_api", reason="python -m pip install playwright")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    return found if found is not None else missing("no Chromium found", "apt-get install chromium")


ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
"""For modules with a browser: it lives as long as their loop."""


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "state") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_browser() -> AsyncIterator[Any]:
    """One program for all tests of a module: it starts in a second of processor time."""
    path = chromium()
    async with playwright.async_playwright() as driver:
        started = await driver.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="module")
async def browser(running_browser: Any) -> AsyncIterator[Any]:
    """A browser without a page; what a test opens is closed with it."""
    yield running_browser
    for context in running_browser.contexts:
        await context.close()


class Page:
    """A page whose console must stay silent."""

    def __init__(self, page: Any, world: World) -> None:
        self.page = page
        self.world = world
        self.complaints: list[str] = []
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))

    async def show(self, where: str) -> Any:
        await self.page.goto("about:blank")
        await self.page.goto(f"{self.world.url}/#{where}")
        await self.page.get_by_role("heading", level=1).wait_for()
        return self.page


async def open_page(browser: Any, world: World, width: int = 1280, **options: Any) -> Page:
    context = await browser.new_context(viewport={"width": width, "height": 800}, **options)
    return Page(await context.new_page(), world)


APPROVING = ("rgb(10, 122, 90)", "rgb(18, 128, 95)")
"""The green of a primary button, in a light and in a dark page."""


async def colour(button: Any) -> str:
    found: str = await button.evaluate("node => getComputedStyle(node).backgroundColor")
    return found


def card(text: str = "A card") -> list[dict[str, Any]]:
    confirm = {
        "title": {"type": "plain_text", "text": "Sure?"},
        "text": {"type": "mrkdwn", "text": "Alice gets *read*"},
        "confirm": {"type": "plain_text", "text": "Yes, approve"},
        "deny": {"type": "plain_text", "text": "Back"},
    }
    buttons = [button("approve", "r1", style="primary", confirm=confirm), button("deny", "r1", style="danger")]
    return [section(text), {"type": "actions", "elements": buttons}]
