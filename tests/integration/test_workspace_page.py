"""The page, in a real browser: what people see and press."""

import asyncio
from typing import Any

import pytest

from tests.integration.pages import APPROVING, ONE_LOOP, browser, card, colour, open_page, running_browser, world
from tests.unit.bot.workspace.world import ALICE, DANA, REQUESTS, World, field_of, modal, section

__all__ = ["browser", "running_browser", "world"]

pytestmark = [pytest.mark.browser, ONE_LOOP]


async def test_command_card_confirm_and_edit(world: World, browser: Any) -> None:
    @world.app.command("/ask")
    async def ask(ack: Any, client: Any) -> None:
        await ack()
        await client.chat_postMessage(channel=REQUESTS, text="card", blocks=card())

    @world.app.action("approve")
    async def approve(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        done = [section(f"Approved by <@{body['user']['id']}>")]
        await client.chat_update(channel=REQUESTS, ts=body["message"]["ts"], text="done", blocks=done)

    await world.connect()
    opened = await open_page(browser, world)
    page = await opened.show("alice/access-requests")
    box = page.get_by_role("textbox", name="Message #access-requests")
    await box.fill("/as")
    await page.get_by_role("option", name="/ask").wait_for()
    await box.press("Enter")
    assert await box.input_value() == "/ask "
    await box.press("Enter")
    await page.get_by_role("button", name="Approve").wait_for()
    await page.get_by_role("button", name="You are Alice").click()
    await page.get_by_role("menuitemradio", name="Bob").click()
    await page.get_by_role("button", name="You are Bob").wait_for()
    approving = page.get_by_role("button", name="Approve")
    assert await colour(approving) in APPROVING
    await approving.click()
    dialog = page.get_by_role("dialog", name="Sure?")
    await dialog.get_by_role("button", name="Back").click()
    assert await page.get_by_text("Approved by").count() == 0
    await page.get_by_role("button", name="Approve").click()
    await dialog.get_by_role("button", name="Yes, approve").click()
    await page.get_by_text("Approved by @Bob").wait_for()
    assert await page.get_by_role("button", name="Deny").count() == 0
    assert opened.complaints == []


async def test_a_click_counts_though_the_card_was_edited_while_the_dialog_was_open(world: World, browser: Any) -> None:
    got: asyncio.Queue[str] = asyncio.Queue()

    @world.app.action("approve")
    async def approve(ack: Any, action: dict[str, Any]) -> None:
        await ack()
        got.put_nowait(action["value"])

    await world.connect()
    posted = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=card())
    page = await (await open_page(browser, world)).show("bob/access-requests")
    await page.get_by_role("button", name="Approve").click()
    await world.client.chat_update(channel=REQUESTS, ts=posted["ts"], text="card", blocks=card("It changes 3 rows"))
    await page.get_by_text("It changes 3 rows").wait_for()
    await page.get_by_role("dialog").get_by_role("button", name="Yes, approve").click()
    async with asyncio.timeout(15):
        assert await got.get() == "r1"


async def test_what_comes_while_a_thread_is_being_loaded_is_not_lost_to_the_older_answer(
    world: World, browser: Any
) -> None:
    await world.connect()
    parent = (await world.client.chat_postMessage(channel=REQUESTS, text="parent"))["ts"]
    reply = {"channel": REQUESTS, "thread_ts": parent}
    first = (await world.client.chat_postMessage(**reply, text="it waits"))["ts"]
    page = await (await open_page(browser, world)).show("bob/access-requests")
    held, go = asyncio.Event(), asyncio.Event()

    async def slowly(route: Any) -> None:
        answer = await route.fetch()
        held.set()
        await go.wait()
        await route.fulfill(response=answer)

    await page.route("**/local/messages?*thread_ts=*", slowly)
    await page.get_by_role("button", name="1 reply").click()
    await held.wait()
    await world.client.chat_update(channel=REQUESTS, ts=first, text="it ran")
    gone = (await world.client.chat_postMessage(**reply, text="a slip"))["ts"]
    await world.client.chat_delete(channel=REQUESTS, ts=gone)
    await world.client.chat_postMessage(**reply, text="and is over")
    # The log beside it has heard of the last: so has the thread.
    await page.get_by_role("button", name="2 replies").wait_for()
    go.set()
    thread = page.get_by_role("log", name="Thread messages")
    await thread.get_by_text("and is over").wait_for()
    await thread.get_by_text("it ran").wait_for()
    said = await thread.inner_text()
    assert "it waits" not in said
    assert "a slip" not in said


async def test_modal_shows_errors_inline_keeps_what_was_typed_and_closes_on_escape(world: World, browser: Any) -> None:
    @world.app.shortcut("begin")
    async def begin(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        view = modal(field_of("Reason", "reason"), title={"type": "plain_text", "text": "Ask"})
        await client.views_open(trigger_id=body["trigger_id"], view=view)

    @world.app.view("form")
    async def form(ack: Any, view: dict[str, Any]) -> None:
        if view["state"]["values"]["reason_block"]["reason"]["value"] == "no":
            await ack(response_action="errors", errors={"reason_block": "Name an incident"})
        else:
            await ack()

    await world.connect()
    opened = await open_page(browser, world)
    page = await opened.show("alice/general")
    await page.get_by_role("button", name="Begin").click()
    dialog = page.get_by_role("dialog", name="Ask")
    # A modal may deny something, and Slack lets it say nothing of its colour: it must not be that of an approval.
    assert await colour(dialog.get_by_role("button", name="Send")) not in APPROVING
    await dialog.get_by_role("button", name="Send").click()
    await dialog.get_by_text("This is a required field").wait_for()
    field = dialog.get_by_label("Reason")
    await field.fill("no")
    await field.press("Enter")
    await dialog.get_by_text("Name an incident").wait_for()
    assert await field.input_value() == "no"
    assert await field.get_attribute("aria-invalid") == "true"
    await field.fill("INC-42")
    await dialog.get_by_role("button", name="Send").click()
    await dialog.wait_for(state="hidden")
    await page.get_by_role("button", name="Begin").click()
    await dialog.wait_for()
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="hidden")
    assert (await world.get("views", **{"as": "alice"}))["views"] == []
    assert opened.complaints == []


async def test_thread_file_ephemeral_and_live_updates(world: World, browser: Any) -> None:
    await world.connect()
    top = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=card())
    opened = await open_page(browser, world)
    page = await opened.show("alice/access-requests")
    await world.client.chat_postMessage(channel=REQUESTS, thread_ts=top["ts"], text="Session opened")
    await page.get_by_role("button", name="1 reply").click()
    thread = page.get_by_role("complementary", name="Thread")
    await thread.get_by_text("Session opened").wait_for()
    content = "\n".join(f"line {number}" for number in range(40))
    await world.client.files_upload_v2(channel=REQUESTS, thread_ts=top["ts"], filename="t.txt", content=content)
    await thread.get_by_text("line 7").wait_for()
    await thread.get_by_role("button", name="Show all 40 lines").click()
    await page.get_by_role("dialog").get_by_text("line 39").wait_for()
    await page.keyboard.press("Escape")
    await thread.get_by_role("textbox", name="Reply in thread").fill("thanks")
    await page.keyboard.press("Enter")
    await thread.get_by_text("thanks").wait_for()
    preformatted = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "psql line"}]}
    blocks = [{"type": "rich_text", "elements": [preformatted]}]
    await world.client.chat_postEphemeral(channel=REQUESTS, user=ALICE, text="ticket", blocks=blocks)
    await page.get_by_text("Only visible to you").wait_for()
    await page.get_by_role("button", name="Copy").click()
    await page.get_by_text("Copied").wait_for()
    assert opened.complaints == []


async def test_hostile_text_stays_text(world: World, browser: Any) -> None:
    hostile = (
        "<javascript:alert(1)|click> &lt;img src=x onerror=alert(1)&gt; ```a\n`b` *c _d* <!date^x^y|z> <@U0> <#C0|q>"
    )
    inline = {"type": "link", "url": "javascript:alert(1)", "text": "rich"}
    rich = {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [inline]}]}
    await world.connect()
    await world.client.chat_postMessage(channel=REQUESTS, text="x", blocks=[section(hostile), rich])
    opened = await open_page(browser, world)
    page = await opened.show("alice/access-requests")
    await page.get_by_text("<img src=x onerror=alert(1)>").wait_for()
    assert await page.get_by_role("log", name="Messages").locator("a, img").count() == 0
    assert opened.complaints == []


async def test_unread_badge_appears_for_other_channels_and_clears(world: World, browser: Any) -> None:
    opened = await open_page(browser, world)
    page = await opened.show("bob/general")
    await world.client.chat_postMessage(channel=REQUESTS, text="look")
    await page.get_by_role("button", name="#access-requests, 1 unread").click()
    await page.get_by_role("button", name="#access-requests", exact=True).wait_for()


async def test_page_says_it_is_not_slack_and_whether_the_app_is_there(world: World, browser: Any) -> None:
    opened = await open_page(browser, world)
    page = await opened.show("alice/general")
    await page.get_by_text("This is not Slack").wait_for()
    await page.get_by_text("helper is not connected").wait_for()
    await world.connect()
    await page.get_by_text("helper is connected").wait_for()


async def test_phone_width_has_no_sideways_scroll_and_reaches_everything(world: World, browser: Any) -> None:
    top = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=card("word " * 60 + "x" * 300))
    await world.client.chat_postMessage(channel=REQUESTS, thread_ts=top["ts"], text="reply")
    opened = await open_page(browser, world, width=375, color_scheme="dark")
    page = await opened.show("alice/general")
    await page.get_by_role("button", name="Show channels; you are Alice").click()
    await page.get_by_role("button", name="#access-requests").click()
    await page.get_by_role("button", name="1 reply").click()
    await page.get_by_role("button", name="Close thread").click()
    await asyncio.sleep(0.1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 375
    assert opened.complaints == []


@pytest.mark.parametrize("width", [320, 360])
async def test_small_phone_shows_the_whole_name_of_the_app(world: World, browser: Any, width: int) -> None:
    opened = await open_page(browser, world, width=width)
    page = await opened.show("alice/@helper")
    await page.get_by_role("tab", name="Home").wait_for()
    cut = await page.evaluate("(head => head.scrollWidth > head.clientWidth)(document.querySelector('h1'))")
    assert not cut
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_a_long_channel_shows_its_end_and_gives_the_rest_on_request(world: World, browser: Any) -> None:
    for number in range(700):
        world.space.messages.post(REQUESTS, {"user": ALICE, "text": f"line {number}"})
    opened = await open_page(browser, world)
    page = await opened.show("alice/access-requests")
    log = page.get_by_role("log", name="Messages")
    await log.get_by_text("line 699", exact=True).wait_for()
    assert await log.get_by_role("article").count() == 300
    await page.get_by_role("button", name="Show earlier messages").click()
    await log.get_by_text("line 100", exact=True).wait_for()
    world.space.messages.post(REQUESTS, {"user": DANA, "text": "the newest"})
    await log.get_by_text("the newest").wait_for()
    assert opened.complaints == []


async def test_a_permalink_leads_to_its_thread_within_the_page(world: World, browser: Any) -> None:
    top = await world.client.chat_postMessage(channel=REQUESTS, text="The card")
    link = (await world.client.chat_getPermalink(channel=REQUESTS, message_ts=top["ts"]))["permalink"]
    await world.client.chat_postMessage(channel="C0INCIDNT1", text=f"See <{link}|its card>, or <https://e.test/|more>")
    opened = await open_page(browser, world)
    page = await opened.show("alice/incidents")
    assert await page.get_by_role("link", name="more").get_attribute("target") == "_blank"
    await page.get_by_role("link", name="its card").click()
    await page.get_by_role("complementary", name="Thread").get_by_text("The card").wait_for()
    assert len(page.context.pages) == 1
    assert opened.complaints == []


async def test_what_only_one_person_sees_is_no_reply(world: World, browser: Any) -> None:
    top = await world.client.chat_postMessage(channel=REQUESTS, text="The card")
    await world.client.chat_postMessage(channel=REQUESTS, text="A reply", thread_ts=top["ts"])
    await world.client.chat_postEphemeral(channel=REQUESTS, user=ALICE, text="For you", thread_ts=top["ts"])
    assert [one["reply_count"] for one in await world.seen("alice", REQUESTS)] == [1]
    opened = await open_page(browser, world)
    page = await opened.show("alice/access-requests")
    await page.get_by_role("button", name="1 reply").click()
    thread = page.get_by_role("complementary", name="Thread")
    await thread.get_by_text("For you").wait_for()
    await thread.get_by_text("1 reply").wait_for()
    assert opened.complaints == []


async def test_up_and_down_walk_through_lists(world: World, browser: Any) -> None:
    opened = await open_page(browser, world)
    page = await opened.show("alice/general")
    await page.get_by_role("button", name="#general").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="#incidents", exact=True).wait_for()
    await page.get_by_role("button", name="You are Alice").click()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="You are Bob").wait_for()
    assert opened.complaints == []
