"""A home fits whatever is in it, follows what it shows, and says how much time is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import homes
from bot.cards import Paragraph, Part
from bot.chat.slack import limits
from bot.chat.slack.blocks import home_view
from bot.chat.slack.check import check_payload
from bot.handlers import handle
from bot.homes import RECENT_SHOWN, SHOWN, Home, home_card, home_for, left_words, outsider_card
from bot.intents import AccountChanged, Extend, HomeOpened, Status
from bot.outgoing import Say, card_of, hold_of, home_of
from bot.ports import Outsider
from bot.request_card import RequestFacts
from tests.unit.bot.memory import NOW, MemoryWork, desk, member, source
from tests.unit.bot.test_holds import held
from workflows.grants import GrantState
from workflows.holds import HoldState
from workflows.requests import RequestState

MANY = 30


async def full(text: str) -> tuple[Home, dict[str, str]]:
    """Return a home with more of everything than it shows, all of it in somebody's words."""
    work = MemoryWork()
    hold = replace(await held(work), relations=(text,) * 5, effects=(text,))
    [request], [grant] = work.requests.values(), work.grants.values()
    at = desk(work)
    requests = [replace(request, id=f"rq-{number}", reason=text, answer=text, note=text) for number in range(MANY)]
    holds = [(replace(hold, id=f"h{number}"), grant) for number in range(MANY)]
    grants = [replace(grant, id=f"g{number}", resource=text[:64], role=text[:64]) for number in range(MANY)]
    own = [RequestFacts(one, (), grant, at.policy, NOW) for one in requests[: SHOWN + RECENT_SHOWN]]
    links = {card_of(one.id): "https://x.test/archives/C1/p1" for one in requests}
    links |= {hold_of(one.id): "https://x.test/archives/C1/p2" for one, _ in holds}
    held_too = {one.id: [hold for hold, _ in holds] for one in grants}
    return Home(requests, holds, grants, own, NOW, held=held_too), links


@pytest.mark.parametrize("text", ["x", "語" * 3000, "<!channel> *b* `c` & " * 200, "\u202e\n" * 500, "&" * 5000])
async def test_home_with_the_most_of_everything_is_one_that_slack_takes(text: str) -> None:
    home, links = await full(text)
    view = home_view(home_card(desk(MemoryWork()), home), links)
    check_payload(view)
    assert len(view["blocks"]) <= limits.VIEW_BLOCKS
    actions = [
        element["action_id"] for block in view["blocks"] if block["type"] == "actions" for element in block["elements"]
    ]
    assert actions.count("go") == 2 * SHOWN
    assert actions.count("grant.end") == SHOWN
    assert actions.count("access.ask") == 1


async def test_access_can_be_extended_from_home_where_the_policy_gives_more() -> None:
    work = MemoryWork()
    await held(work)
    [grant] = work.grants.values()
    view = home_view(home_card(desk(work), Home((), (), [grant], (), NOW)), {})
    check_payload(view)
    buttons = [element for block in view["blocks"] if block["type"] == "actions" for element in block["elements"]]
    assert [one["action_id"] for one in buttons] == [
        "ticket.new",
        "grant.extend.900",
        "grant.extend.1800",
        "grant.end",
        "access.ask",
    ]


async def test_home_says_that_more_time_was_asked_for_and_whom_it_waits_for() -> None:
    work = MemoryWork()
    await held(work)
    [grant] = work.grants.values()
    await handle(desk(work), Extend(source("alice"), grant.token, 900), member("alice"), "more")
    extension = next(one for one in work.requests.values() if one.extends)
    view = str(home_view(await home_for(desk(work), "alice"), {card_of(extension.id): "https://x.test/archives/C1/p1"}))
    assert "15m more was asked for" in view
    assert " and waits for 1 of dbas: Bob or Dana." in view
    assert "grant.extend" not in view


async def test_home_shows_times_in_the_readers_zone_alone_and_forgets_the_end_of_what_is_over() -> None:
    work = MemoryWork()
    await held(work)
    [grant] = work.grants.values()
    await handle(desk(work), Extend(source("alice"), grant.token, 900), member("alice"), "more")
    extension = next(one for one in work.requests.values() if one.extends)
    until = grant.expires_at + timedelta(minutes=15)
    work.requests[extension.id] = replace(extension, state=RequestState.APPROVED, until=until)
    work.grants[grant.id] = replace(grant, expires_at=until)
    shown = str([part for part in (await home_for(desk(work), "alice")).parts if isinstance(part, Paragraph)])
    assert "the access was extended until" in shown
    assert "UTC" not in shown.replace("timezone.utc", "")
    work.grants[grant.id] = replace(grant, state=GrantState.REVOKED, ended_by="bob")
    shown = str((await home_for(desk(work), "alice")).parts)
    assert "extended until" not in shown
    assert "is over: Revoked by Bob." in shown


async def test_what_leads_to_no_posted_card_is_left_out() -> None:
    home, _ = await full("x")
    view = home_view(home_card(desk(MemoryWork()), home), {})
    check_payload(view)
    assert '"go"' not in str(view)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_refusal_is_a_home_that_slack_takes(reason: str) -> None:
    check_payload(home_view(outsider_card(reason), {}))


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(0), "less than a minute left"),
        (timedelta(seconds=-5), "less than a minute left"),
        (timedelta(seconds=20), "1 minute left"),
        (timedelta(minutes=29, seconds=1), "30 minutes left"),
        (timedelta(hours=1), "1 h left"),
        (timedelta(hours=3, minutes=59, seconds=30), "4 h left"),
        (timedelta(hours=1, minutes=5), "1 h 5 min left"),
    ],
    ids=str,
)
def test_time_left_is_said_as_people_say_it(left: timedelta, words: str) -> None:
    assert left_words(left) == words


async def test_change_is_shown_to_those_whom_it_concerns_and_who_have_a_home() -> None:
    work = MemoryWork()
    await held(work)
    for person in ("alice", "bob", "erin"):
        await work.open_home(member(person).account)
    [request], [grant], [hold] = work.requests, work.grants, work.holds
    shown = {}
    for changed in (("requests", request), ("grants", grant), ("holds", hold), ("requests", "gone")):
        work.places = {key: place for key, place in work.places.items() if not key.startswith("home:")}
        await homes.concern(desk(work), {changed})
        shown[changed] = {key for key in work.places if key.startswith("home:")}
    alice, bob = home_of(member("alice").account), home_of(member("bob").account)
    assert shown["requests", request] == {alice, bob}
    assert shown["grants", grant] == {alice}
    assert shown["holds", hold] == {alice, bob}
    assert shown["requests", "gone"] == set()


async def test_remaining_times_are_kept_up_to_date_while_somebody_may_be_looking() -> None:
    work = MemoryWork()
    await held(work)
    for person in ("alice", "bob"):
        await work.open_home(member(person).account)
    await homes.tick(desk(work))
    assert {key for key in work.places if key.startswith("home:")} == {home_of(member("alice").account)}
    work.places.clear()
    await homes.tick(desk(work, NOW + homes.WATCHED_FOR + timedelta(seconds=1)))
    assert work.places == {}


async def test_home_of_an_account_that_changed_is_made_anew_and_of_one_that_left_forgotten() -> None:
    work = MemoryWork()
    account = member("alice").account
    await handle(desk(work), HomeOpened(source("alice")), Outsider(account, "nobody"), "open")
    assert work.places[home_of(account)].wanted == 1
    await handle(desk(work), AccountChanged(source("alice"), False), Outsider(account, ""), "changed")
    assert work.places[home_of(account)].wanted == 2
    await handle(desk(work), AccountChanged(source("bob"), False), Outsider("U0BOB00001", ""), "other")
    await handle(desk(work), AccountChanged(source("alice"), True), Outsider(account, ""), "left")
    assert work.opened == {}
    assert work.places[home_of(account)].wanted == 2


async def test_statement_that_waits_is_told_to_whoever_sent_it_at_home_and_by_status() -> None:
    work = MemoryWork()
    hold = await held(work)
    words = "A statement that changes public.orders waits for 1 of dbas: Bob or Dana, until "

    def said(parts: Sequence[Part]) -> list[str]:
        spans = [part.spans for part in parts if isinstance(part, Paragraph)]
        return ["".join(getattr(span, "text", "") for span in one) for one in spans]

    async def status(cause: str) -> list[str]:
        await handle(desk(work), Status(source("alice")), member("alice"), cause)
        item = work.sent[f"{cause}:tell"][1]
        assert isinstance(item, Say)
        return said(item.card.parts)

    assert f"{words}." in said((await home_for(desk(work), "alice")).parts)
    assert f"{words}." in await status("waits")
    work.opened[member("alice").account] = NOW
    await homes.concern(desk(work), {("holds", hold.id)})
    assert home_of(member("alice").account) in work.places
    work.holds[hold.id] = replace(hold, state=HoldState.REFUSED)
    assert f"{words}." not in said((await home_for(desk(work), "alice")).parts)
    assert f"{words}." not in await status("over")
