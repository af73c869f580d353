"""The demo's guide, held against what the bot really says: a step is ticked by its own fact, whoever caused it how."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bot.hold_card import HoldFacts, hold_card
from bot.homes import grant_behind
from bot.intents import Approve, ApproveChanged, Ask, NewLine, Refuse
from bot.model import Given, Request
from bot.ordering import Opened, opened
from bot.outgoing import Say
from bot.request_card import RequestFacts, request_card
from bot.workspace.progress import Progress
from bot.workspace.store import Store
from tests.unit.bot.memory import NOW, MemoryWork, desk, policy, source
from tests.unit.bot.test_handlers import does
from tests.unit.bot.test_holds import held
from workflows.grants import GrantEvent
from workflows.requests import RequestState
from workflows.reviews import Answer
from workflows.terms import Terms

GUIDE = json.loads((Path(__file__).parents[4] / "broker/demo/guide.json").read_text("utf-8"))


class Guided:
    """Alice's story with the bot's own words, in front of the guide."""

    def __init__(self, store: Store) -> None:
        self.progress = Progress(store, GUIDE, lambda _: None)
        self.work = MemoryWork()
        self._said: set[str] = set()
        self._count = 0

    async def asks(self, role: str) -> Request:
        """Ask with what both the command and the form become; returns the request."""
        await does(self.work, Ask(source("alice"), "prod-db", role, "30m", "INC-42"), "alice", f"ask-{role}")
        await self.shows()
        return next(reversed(self.work.requests.values()))

    async def approves(self, person: str, request: Request, *less: str) -> None:
        self._count += 1
        where, token = source(person), request.token
        intent = ApproveChanged(where, token, *less) if less else Approve(where, token)
        await does(self.work, intent, person, f"approve-{self._count}")
        await self.shows()

    async def opens(self, request: Request) -> None:
        order = self.work.requests[request.id].order
        assert order
        grant = f"g-{request.id}"
        await opened(desk(self.work), Opened(grant, request.id, order, NOW, NOW.replace(hour=13)))
        await self.shows()

    async def shows(self) -> None:
        """Show the guide every card and every line as they are now."""
        for request in self.work.requests.values():
            given, grant = await self.work.reviews(request.id), await grant_behind(desk(self.work), request)
            self.posts(request_card(RequestFacts(request, given, grant, policy(), NOW)).text)
        for key, (_, item) in self.work.sent.items():
            if isinstance(item, Say) and key not in self._said:
                self._said.add(key)
                self.posts(item.card.text)

    def posts(self, text: str) -> None:
        self.progress.note("posted", who="app", where="access-requests", text=text)


@pytest.fixture
def guided(tmp_path: Path) -> Guided:
    return Guided(Store(tmp_path / "s.db"))


async def test_a_request_counts_once_its_card_is_there_however_it_was_made(guided: Guided) -> None:
    request = await guided.asks("read")
    assert guided.progress.done == ["ask"]
    await guided.approves("bob", request)
    assert guided.progress.done == ["ask"], "the access is not open yet"
    await guided.opens(request)
    assert guided.progress.done == ["ask", "approve"]


async def test_a_new_line_for_read_approves_nothing_and_opens_nothing_for_write(guided: Guided) -> None:
    read = await guided.asks("read")
    await guided.approves("dana", read)
    await guided.opens(read)
    write = await guided.asks("write")
    [grant] = guided.work.grants.values()
    await does(guided.work, NewLine(source("alice"), grant.token), "alice", "line")
    guided.progress.note("offered", who="alice", where="@airlock", text="Your line for read on prod-db, open until")
    guided.progress.note("opened", who="alice", text="prod-db as alice.x\nYour line for read on prod-db, open until")
    guided.posts("Session opened: Alice on prod-db as read, with psql.")
    await guided.shows()
    assert guided.progress.done == ["ask", "approve", "ask-write", "connect"]
    # In whatever order the two of them answer, each answer ticks its own step.
    await guided.approves("erin", write)
    assert guided.progress.done[4:] == ["approve-security"]
    await guided.approves("bob", write)
    assert guided.progress.done[4:] == ["approve-security", "approve-write"]


async def test_the_last_approval_counts_once_the_access_is_open(guided: Guided) -> None:
    write = await guided.asks("write")
    await guided.approves("bob", write)
    await guided.approves("erin", write)
    assert guided.progress.done == ["ask-write", "approve-write"]
    await guided.opens(write)
    assert guided.progress.done == ["ask-write", "approve-write", "approve-security"]


async def test_ending_read_and_denying_write_tick_nothing_of_write(guided: Guided) -> None:
    read = await guided.asks("read")
    await guided.approves("bob", read)
    await guided.opens(read)
    guided.posts("Alice had read on prod-db for 1m, approved by Bob.\nEnded by Alice. No session was opened.")
    guided.progress.note("read", who="bob", text="transcript-rq-1.txt")
    write = await guided.asks("write")
    await guided.approves("bob", write, "write", "10m")
    await does(guided.work, Refuse(source("erin"), write.token, "no"), "erin", "deny")
    await guided.shows()
    assert guided.progress.done == ["ask", "approve", "ask-write", "approve-write"]


@pytest.mark.parametrize("state", [RequestState.PENDING, RequestState.APPROVED])
async def test_read_given_where_write_was_asked_for_approves_no_write(guided: Guided, state: RequestState) -> None:
    write = await guided.asks("write")
    less = Terms("read", 900)
    given = Given("bob", "U0BOB00001", Answer.APPROVE, "", NOW, source("bob").evidence(), less)
    made = replace(write, narrowed=less, state=state)
    text = request_card(RequestFacts(made, (given,), None, policy(), NOW)).text
    assert "Approved by Bob" in text
    guided.posts(text)
    assert guided.progress.done == ["ask-write"]


async def test_old_cards_that_change_tick_nothing_of_a_story_that_was_begun_anew(guided: Guided) -> None:
    for role in ("read", "write"):
        request = await guided.asks(role)
        for person in ("bob", "erin")[: 1 + (role == "write")]:
            await guided.approves(person, request)
        await guided.opens(request)
    guided.progress.start_over()
    for grant in list(guided.work.grants.values()):
        await guided.work.move_grant(grant, GrantEvent.EXPIRE)
    await guided.shows()
    assert guided.progress.done == []


async def test_a_held_change_is_ticked_by_its_card_and_its_review_by_the_answer(guided: Guided) -> None:
    hold = await held(guided.work)
    grant = guided.work.grants[hold.grant]
    for role, done in (("read", []), ("write", ["write"])):
        facts = HoldFacts(hold, (), replace(grant, role=role), None, policy())
        guided.posts(hold_card(facts).text)
        assert guided.progress.done == done
    guided.posts("Bob approved the statement of Alice; it may run once.")
    assert guided.progress.done == ["write", "review"]
