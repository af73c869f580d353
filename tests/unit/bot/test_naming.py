"""`/access revoke`, `connect` and `extend`, by an id or by the name that an engineer knows: the resource's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.cards import Code, plain
from bot.intents import Ask, Connect, ExtendNamed, List, Revoke, Status
from bot.model import Grant
from bot.outgoing import DeliverTicket, EndGrant, Say
from tests.unit.bot.memory import LATER, MemoryWork, member, source
from tests.unit.bot.test_handlers import does, filed, granted
from workflows.grants import GrantState
from workflows.requests import RequestState


def ended(work: MemoryWork) -> list[tuple[str, bool]]:
    return [(item.grant, item.revoke) for _, item in work.sent.values() if isinstance(item, EndGrant)]


def lines(work: MemoryWork, cause: str = "do") -> list[str]:
    item = work.sent[f"{cause}:tell"][1]
    assert isinstance(item, Say)
    return [part.text for part in item.card.parts if isinstance(part, Code)]


def more(work: MemoryWork, grant: Grant, id: str, person: str, role: str = "read") -> None:
    """Give somebody a grant like another one."""
    own = {"person": person, "account": member(person).account, "role": role}
    work.grants[id] = replace(grant, id=id, token=id, **own)


async def test_resource_names_the_one_access_that_somebody_has_there() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, Revoke(source("alice"), "Prod-DB", "done"), "alice")
    assert ended(work) == [(grant.id, False)]
    assert work.told("do") == "Ending read on prod-db; every session under it is cut."


async def test_resource_names_a_request_that_waits() -> None:
    work = MemoryWork()
    request = await filed(work)
    await does(work, Revoke(source("alice"), "prod-db"), "alice")
    assert work.requests[request.id].state is RequestState.CANCELLED
    assert work.told("do") == "Your request for read on prod-db is cancelled."


async def test_reviewer_revokes_by_the_resource_and_who_may_not_learns_nothing_of_others() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, Revoke(source("erin"), "prod-db"), "erin", "erin")
    assert work.told("erin").startswith("Nothing that you may end is open on prod-db")
    assert ended(work) == []
    await does(work, Revoke(source("bob"), "prod-db"), "bob", "bob")
    assert ended(work) == [(grant.id, True)]
    assert work.told("bob") == "Ending read on prod-db of Alice; every session under it is cut."


async def test_several_are_listed_each_with_its_line_and_one_more_word_may_tell_them_apart() -> None:
    work = MemoryWork()
    grant = await granted(work)
    more(work, grant, "g0002", "bob")
    more(work, grant, "g0003", "alice", "write")
    request = await filed(work, "write")
    await does(work, Revoke(source("alice"), "prod-db", "wrong one"), "alice")
    assert ended(work) == []
    assert lines(work) == [f"/access revoke {id} because wrong one" for id in ("g0001", "g0003", request.id)]
    assert work.told("do").startswith("There are 3 on prod-db that this could mean.")
    await does(work, Revoke(source("bob"), "prod-db"), "bob", "bob")
    assert lines(work, "bob") == ["/access revoke g0002", "/access revoke g0001", "/access revoke g0003"]
    await does(work, Revoke(source("alice"), "prod-db", "", "read"), "alice", "role")
    assert ended(work) == [("g0001", False)]
    await does(work, Revoke(source("alice")), "alice", "none")
    assert len(lines(work, "none")) == 3


async def test_what_is_over_does_not_count() -> None:
    work = MemoryWork()
    grant = await granted(work)
    more(work, grant, "g0002", "alice")
    work.grants["g0001"] = replace(grant, state=GrantState.ENDED, closed_at=LATER)
    await does(work, Revoke(source("alice"), "prod-db"), "alice")
    assert ended(work) == [("g0002", False)]


async def test_name_that_is_nearly_right_is_suggested_and_never_taken() -> None:
    work = MemoryWork()
    await granted(work)
    await does(work, Revoke(source("alice"), "prod-bd"), "alice")
    assert ended(work) == []
    assert "did you mean `/access revoke prod-db`?" in work.told("do")
    await does(work, Revoke(source("alice"), "zzz"), "alice", "odd")
    assert work.told("odd") == "You have nothing called `zzz`. `/access status` shows what you have."
    await does(work, Revoke(source("alice"), "staging-db", "", "read"), "alice", "none")
    assert work.told("none").startswith("Nothing that you may end is open on staging-db as read")


async def test_status_and_list_take_a_resource_as_well() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, Status(source("alice"), "staging-db"), "alice", "other")
    assert work.told("other") == plain("You have no access and no request waiting on staging-db.").text
    await does(work, Status(source("alice"), "prod-db"), "alice", "this")
    assert work.told("this") == "You have 1 open and 0 waiting on prod-db."
    await does(work, Status(source("alice"), "everything"), "alice", "all")
    assert work.told("all") == "You have 1 open and 0 waiting."
    await does(work, List(source("alice"), "staging-db"), "alice", "list")
    assert "staging-db read" in work.told("list")
    assert "prod-db" not in work.told("list")
    assert grant.live


async def test_line_is_sent_for_the_access_that_a_resource_names() -> None:
    work = MemoryWork()
    grant = await granted(work)

    def rounds() -> list[tuple[str, int]]:
        return [(item.grant, item.round) for _, item in work.sent.values() if isinstance(item, DeliverTicket)]

    assert rounds() == [(grant.id, 1)]
    await does(work, Connect(source("alice"), "prod-db"), "alice", "one")
    assert rounds() == [(grant.id, 1), (grant.id, 2)]
    more(work, grant, "g0002", "alice", "write")
    await does(work, Connect(source("alice")), "alice", "two")
    assert lines(work, "two") == ["/access connect g0001", "/access connect g0002"]
    await does(work, Connect(source("alice"), "prod-db", "read"), "alice", "role")
    assert rounds()[2:] == [(grant.id, 3)]
    await does(work, Connect(source("alice"), "staging-db"), "alice", "none")
    assert work.told("none").startswith("Nothing of yours is open on staging-db.")
    assert lines(work, "none") == ["/access staging-db read 30m"]
    await does(work, Connect(source("bob"), grant.id), "bob", "other")
    assert "only they get a line" in work.told("other")
    assert len(rounds()) == 3


async def test_more_time_is_asked_for_by_the_resource() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, ExtendNamed(source("alice"), "prod-db", None, "1 h"), "alice", "one")
    [asked] = [one for one in work.requests.values() if one.extends]
    assert (asked.extends, asked.seconds) == (grant.id, 3600)
    await does(work, ExtendNamed(source("alice"), "prod-db", None, "15"), "alice", "unit")
    assert lines(work, "unit") == [f"/access extend {grant.id} 15m"]
    await does(work, ExtendNamed(source("alice")), "alice", "none")
    assert work.told("none") == "How much longer for read on prod-db?"
    await does(work, ExtendNamed(source("bob"), None, None, "15m"), "bob", "bob")
    assert work.told("bob") == "You have nothing open to extend. `/access status` shows what you have."


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (("cancel",), "/access revoke"),
        (("End", "prod-db"), "/access revoke prod-db"),
        (("ticket", "prod-db"), "/access connect prod-db"),
        (("renew", "prod-db", "15m"), "/access extend prod-db 15m"),
    ],
)
async def test_word_that_people_type_for_a_command_is_answered_with_it(typed: tuple[str, ...], line: str) -> None:
    work = MemoryWork()
    await does(work, Ask(source("alice"), *typed), "alice")
    assert lines(work) == [line]
    assert work.requests == {}


@pytest.mark.parametrize("named", ["@U0ALICE001", "alice", "@Alice"])
async def test_reviewer_ends_by_the_person(named: str) -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, Revoke(source("erin"), named), "erin", "erin")
    assert work.told("erin").startswith("Alice has nothing open that you may end.")
    await does(work, Revoke(source("bob"), named), "bob", "bob")
    assert ended(work) == [(grant.id, True)]
    more(work, grant, "g0002", "alice", "write")
    await does(work, Revoke(source("bob"), named), "bob", "two")
    assert lines(work, "two") == ["/access revoke g0001", "/access revoke g0002"]
    await does(work, Revoke(source("alice"), named, "", "write"), "alice", "own")
    assert ended(work)[1:] == [("g0002", False)]
