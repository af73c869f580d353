"""The terminal pane in a real browser on a phone: tabs that do not fit, and sessions that end while nobody types."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.pages import ONE_LOOP, browser, open_page, playwright, running_browser
from tests.integration.psqls import psqls
from tests.integration.test_workspace_terminal import DM, line, offer
from tests.support.postgres import Server
from tests.support.require import missing
from tests.unit.bot.workspace.world import World, running

__all__ = ["browser", "line", "running_browser"]

pytestmark = [pytest.mark.browser, ONE_LOOP]
PHONE = 390


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path: Path) -> AsyncIterator[World]:
    if not psqls():
        missing("no psql", "apt install postgresql-client")
    async with running(tmp_path / "state", psql=psqls()[0]) as started:
        yield started


async def test_the_tab_that_is_looked_at_fits_the_prompt_stays_whole_and_an_ended_session_says_so(
    world: World, browser: Any, line: str, wheel_postgres: Server
) -> None:
    opened = await open_page(browser, world, PHONE)
    for _ in range(3):
        await offer(world, line, DM)
    page = await opened.show("alice/@helper")
    box = page.get_by_role("textbox", name="Type SQL for psql")
    for number in range(3):
        await page.get_by_role("button", name="Open psql here").nth(number).click()
        await playwright.expect(page.get_by_role("tab")).to_have_count(number + 1)
        await playwright.expect(box).to_have_attribute("placeholder", "SQL, or \\d for tables")
        chosen = await page.locator(".psql-tab.current").bounding_box()
        assert chosen["x"] >= 0
        assert chosen["x"] + chosen["width"] <= PHONE
        height = (await box.bounding_box())["height"]
        await page.get_by_role("button", name="Hide terminal").click()
    # A page that comes anew hears of its psqls while the pane is hidden, where nothing has a height.
    page = await opened.show("alice/@helper")
    await page.get_by_role("button", name="Show channels").click()
    await page.get_by_role("button", name="Terminal").last.click()
    await box.wait_for()
    assert (await box.bounding_box())["height"] == height
    wheel_postgres.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pane'")
    await playwright.expect(page.get_by_role("button", name="Close")).to_have_count(3)
    await playwright.expect(box).to_have_attribute("placeholder", "ended; \\q leaves")
    assert opened.complaints == []
