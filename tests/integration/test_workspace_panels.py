"""What stands beside the messages of the page: home, the guide, the panels at the bottom."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError

from tests.integration.pages import ONE_LOOP, browser, open_page, running_browser, world
from tests.unit.bot.workspace.world import World, button, field_of, running, section

__all__ = ["browser", "running_browser", "world"]

pytestmark = [pytest.mark.browser, ONE_LOOP]


async def test_home_tab_shows_what_the_app_publishes(world: World, browser: Any) -> None:
    @world.app.event("app_home_opened")
    async def opened_home(event: dict[str, Any], client: Any) -> None:
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": [section("Your sessions")]})

    await world.connect()
    opened = await open_page(browser, world)
    page = await opened.show("alice/@helper")
    await page.get_by_role("tab", name="Home").click()
    await page.get_by_text("Your sessions").wait_for()
    assert opened.complaints == []


async def test_home_tab_is_each_persons_own_its_buttons_work_and_what_is_typed_there_stays(
    world: World, browser: Any
) -> None:
    def home(text: str) -> dict[str, Any]:
        blocks = [section(text), {"type": "actions", "elements": [button("end", "g1")]}, field_of("Why", "why")]
        return {"type": "home", "blocks": blocks}

    @world.app.event("app_home_opened")
    async def opened_home(event: dict[str, Any], client: Any) -> None:
        if "view" not in event:
            await client.views_publish(user_id=event["user"], view=home(f"Home of {event['user']}"))

    @world.app.action("end")
    async def end(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        typed = body["view"]["state"]["values"]["why_block"]["why"]["value"]
        await client.views_publish(user_id=body["user"]["id"], view=home(f"Ended because {typed}"))

    await world.connect()
    opened = await open_page(browser, world)
    page = await opened.show("alice/@helper")
    await page.get_by_role("tab", name="Home").click()
    await page.get_by_text("Home of U0ALICE001").wait_for()
    await page.get_by_label("Why").fill("done")
    await world.client.chat_postMessage(channel="D0ALICE001", text="meanwhile")
    await asyncio.sleep(0.2)
    await page.get_by_role("button", name="End").click()
    await page.get_by_text("Ended because done").wait_for()
    await page.get_by_role("button", name="You are Alice").click()
    await page.get_by_role("menuitemradio", name="Bob").click()
    await page.get_by_text("Home of U0BOB00001").wait_for()
    assert await page.get_by_text("Ended because").count() == 0
    assert opened.complaints == []


async def test_the_guide_ticks_what_was_done_wherever_it_was_done(tmp_path: Path, browser: Any) -> None:
    steps = [
        {"id": "ask", "title": "Ask", "text": "Ask.", "as": "alice", "where": "incidents", "command": "/ask x",
         "done": {"fact": "commanded", "who": "alice"}},
        {"id": "look", "title": "Look", "text": "Look.", "as": "bob", "where": "general",
         "done": {"fact": "looked", "who": "bob", "where": "general", "after": "ask"}},
    ]  # fmt: skip
    guide = {"steps": steps, "end": "That was all of it."}
    async with running(tmp_path / "state", guide=guide) as world:

        @world.app.command("/ask")
        async def ask(ack: Any) -> None:
            await ack("fine")

        await world.connect()
        opened = await open_page(browser, world)
        # Whoever comes without an address begins where the guide does.
        page = await opened.show("")
        await page.get_by_role("heading", name="#incidents", exact=True).wait_for()
        await page.get_by_role("button", name="You are Alice").wait_for()
        await page.get_by_text("0 of 2").wait_for()
        # From a script, not from the page: the page hears of it all the same.
        assert (await world.post("command", user="alice", channel="general", text="/ask y"))["ok"]
        await page.get_by_text("1 of 2").wait_for()
        await page.get_by_role("button", name="Go there as Bob: step 2").click()
        await page.get_by_role("complementary", name="What to try next").get_by_text("That was all of it.").wait_for()
        await page.get_by_role("button", name="Start over").click()
        await page.get_by_text("0 of 2").wait_for()
        await page.get_by_role("button", name="Go there as Alice: step 1").click()
        await page.get_by_text("Filled in. Press Enter to send it.").filter(visible=True).wait_for()
        await page.get_by_role("textbox", name="Message #incidents").press("Backspace")
        await page.get_by_role("button", name="Fill it in: step 1").wait_for()
        await page.get_by_role("button", name="Skip this step").click()
        await page.get_by_text("1 of 2").wait_for()
        assert opened.complaints == []


async def test_one_panel_at_the_bottom_and_what_is_armed_stays_said(world: World, browser: Any) -> None:
    opened = await open_page(browser, world)
    page = await opened.show("alice/general")
    await page.get_by_role("button", name="Payloads and faults").click()
    await page.get_by_text("Nothing is armed.").wait_for()
    await page.get_by_role("button", name="Next call: 500").click()
    await page.get_by_text("Armed: the next call: 500.").wait_for()
    with pytest.raises(SlackApiError):
        await world.client.api_test()
    await page.get_by_role("listitem").filter(has_text="api.test").get_by_text("500").wait_for()
    await page.get_by_text("Nothing is armed.").wait_for()
    await page.get_by_role("button", name="Drop the socket").click()
    await page.get_by_text("Every socket was cut.").wait_for()
    await page.get_by_role("button", name="Terminal").click()
    await page.get_by_text("There is no psql on this machine").wait_for()
    assert not await page.get_by_role("region", name="Payload inspector").is_visible()
    await page.set_viewport_size({"width": 1280, "height": 500})
    box = await page.locator("#main").bounding_box()
    assert box["height"] >= 245, "there is always room for what is said"
    assert opened.complaints == []


async def test_without_psql_the_pane_says_what_to_install(world: World, browser: Any) -> None:
    opened = await open_page(browser, world)
    page = await opened.show("alice/general")
    await page.get_by_role("button", name="Terminal").click()
    await page.get_by_text("There is no psql on this machine").wait_for()
    assert opened.complaints == []


async def test_terminal_is_made_taller_by_dragging_and_by_keys_and_stays_so(world: World, browser: Any) -> None:
    opened = await open_page(browser, world)
    page = await opened.show("alice/general")
    await page.get_by_role("button", name="Terminal").click()
    bar = page.get_by_role("separator", name="Height of the terminal")

    async def height() -> float:
        return float((await page.locator("#terminal").bounding_box())["height"])

    usual = await height()
    assert usual <= 0.35 * 800
    grip = await bar.bounding_box()
    await page.mouse.move(grip["x"] + 300, grip["y"] + 4)
    await page.mouse.down()
    await page.mouse.move(grip["x"] + 300, grip["y"] - 96, steps=4)
    await page.mouse.up()
    assert abs(await height() - usual - 100) <= 2
    await bar.press("ArrowUp")
    assert abs(await height() - usual - 124) <= 2
    taller = await height()
    assert await bar.get_attribute("aria-valuenow") == str(round(taller))
    await page.reload()
    await page.get_by_role("button", name="Terminal").click()
    assert await height() == taller
    await bar.press("Home")
    assert taller + 50 < await height() <= 0.8 * 800
    await bar.press("End")
    assert await height() == 150
    await bar.dblclick()
    assert await height() == usual
    assert opened.complaints == []
