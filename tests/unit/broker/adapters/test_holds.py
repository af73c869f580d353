"""The desk of holds: one winner among those who come together, every move recorded before it takes effect."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.adapters.holds import KEPT, MOST_PER_GRANT, HoldDesk
from broker.adapters.shapes import ShapeBook
from broker.errors import RecordingFailed
from broker.sessions.holds import Abandoned, Asked, Estimate, HoldFacts, Pending, Refused, Released, Sized, TimedOut
from broker.sessions.model import GrantFacts, SessionFacts
from broker.sessions.services import Refusal
from policies.engine.decisions import Need, Requirement
from policies.engine.load import read_texts
from tests.support.broker import POLICY
from tests.support.ports import AnswerKey, Clock, FixedPolicies, Recorder, ShapeRows
from workflows.orders import Evidence, HoldAnswer, OrderedReview, sign_hold_answer
from workflows.reviews import Answer

ONE = Requirement((Need(1, ("dbas",)),))
TWO = Requirement((Need(2, ("dbas",)),))


class Desk:
    """A desk with a clock and a recorder that the test holds."""

    def __init__(self) -> None:
        self.key, self.clock, self.recorder = AnswerKey(), Clock(), Recorder()
        self.policies = FixedPolicies(read_texts({"test.yaml": POLICY}))
        self.rows = ShapeRows()
        self.shapes = ShapeBook(self.rows, self.recorder, self.clock, self.policies)
        self.desk = HoldDesk(self.key, self.recorder, self.clock, self.policies, self.shapes)
        self.numbers = iter(range(1000))

    def facts(self, sql: str = "insert", session: str = "s1", grant: str = "g1", **change: Any) -> HoldFacts:
        expires = self.clock.now() + timedelta(hours=1)
        held = SessionFacts(session, "t1", GrantFacts(grant, "r1", "alice", "prod-db", "write", expires, expires))
        values = {"requirement": ONE, "rules": ("asked",), "seconds": 600.0, "sequence": next(self.numbers)}
        return HoldFacts(session=held, statement="q1", **{"asked": Asked(sql), **values, **change})

    def signed(self, hold: str, *people: str, answer: Answer = Answer.APPROVE, **change: Any) -> str:
        evidence = Evidence(platform="slack", team="T1", user="U1")
        now = datetime.now(UTC)
        reviews = [
            OrderedReview(person=person, answer=answer, at=now, reason="why", evidence=evidence) for person in people
        ]
        values = {
            "id": f"answer{next(self.numbers)}",
            "hold": hold,
            "digest": self.desk._find(hold).digest,
            "reviews": reviews,
            "policy_hash": self.policies.hash,
        }
        return sign_hold_answer(HoldAnswer(**{**values, **change}), self.key.private, now)

    async def approve(self, hold: str, *people: str, **change: Any) -> Any:
        return await self.desk.answer(hold, self.signed(hold, *(people or ("bob",)), **change))

    def types(self) -> list[str]:
        return [entry.type for entry in self.recorder.entries]


async def refused(call: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await call
    return caught.value


async def test_an_answer_is_recorded_before_it_is_told_and_used_once() -> None:
    world = Desk()
    world.recorder.delay = 0.05
    hold = world.desk.open(world.facts())
    assert world.types() == ["hold.opened"]
    approval = asyncio.create_task(world.approve(hold.id))
    await asyncio.sleep(0.02)
    assert world.types() == ["hold.opened", "hold.released"]
    assert not asyncio.ensure_future(hold.answered).done()
    assert (await approval).state == "released"
    assert await hold.answered == Released(hold.id, by=("Bob",))
    assert world.desk.use(hold.id, ONE)
    assert not world.desk.use(hold.id, ONE)
    assert (await world.desk.get(hold.id)).state == "consumed"
    (released,) = world.recorder.of("hold.released")
    view = await world.desk.get(hold.id)
    assert released == {"hold": hold.id, "by": ["bob"], "waits": True, "expires_at": view.expires_at}
    assert world.recorder.entries[1].detail["answer"]["reviews"][0]["person"] == "bob"


async def test_the_client_hears_of_those_alone_whose_approval_counted() -> None:
    world = Desk()
    for waits in (True, False):
        hold = world.desk.open(world.facts(waits=waits))
        await world.approve(hold.id, "alice", "bob")
        again = hold if waits else world.desk.open(world.facts(waits=False))
        assert await again.answered == Released(hold.id, by=("Bob",))


async def test_estimate_is_recorded_and_shown_while_a_hold_waits() -> None:
    world = Desk()
    hold = world.desk.open(world.facts())
    estimate = Estimate((Sized("public.orders", 100, 8192), Sized("public.new", None, None)), 7, "", ("public.a (x)",))
    world.desk.estimated(hold.id, estimate)
    shown = (await world.desk.get(hold.id)).estimate
    assert shown is not None
    assert (shown.rows, [one.name for one in shown.relations], shown.locks) == (
        7,
        ["public.orders", "public.new"],
        ["public.a (x)"],
    )
    (said,) = world.recorder.of("hold.estimated")
    assert (said["hold"], said["rows"], said["relations"][0]["bytes"]) == (hold.id, 7, 8192)
    assert "why" not in said
    world.desk.drop(hold.id, "client")
    world.desk.estimated(hold.id, estimate)
    world.desk.estimated("h00000000", estimate)
    assert len(world.recorder.of("hold.estimated")) == 1


async def test_estimate_that_cannot_be_recorded_is_not_shown() -> None:
    world = Desk()
    hold = world.desk.open(world.facts())
    world.recorder.broken = True
    world.desk.estimated(hold.id, Estimate(rows=7))
    world.recorder.broken = False
    view = await world.desk.get(hold.id)
    assert (view.state, view.estimate) == ("waiting", None)


async def test_hold_says_the_time_that_it_was_opened_with() -> None:
    world = Desk()
    world.recorder.slow_by = lambda: setattr(world.clock, "offset", timedelta(seconds=3))
    hold = world.desk.open(world.facts())
    assert world.clock.offset == timedelta(seconds=3)
    assert hold.seconds == 600


async def test_approval_that_is_kept_says_until_when() -> None:
    world = Desk()
    hold = world.desk.open(world.facts(waits=False))
    assert hold.fresh
    again = world.desk.open(world.facts(waits=False))
    assert (again.id, again.fresh) == (hold.id, False)
    view = await world.approve(hold.id)
    (released,) = world.recorder.of("hold.released")
    assert (released["waits"], released["expires_at"]) == (False, view.expires_at)
    assert view.expires_at - world.clock.now() <= timedelta(minutes=10)


async def test_of_fifty_answers_at_once_one_wins() -> None:
    world = Desk()
    world.recorder.delay = 0.01
    hold = world.desk.open(world.facts())
    signed = [
        world.signed(hold.id, "bob" if number % 2 else "dana", answer=Answer.APPROVE if number % 3 else Answer.DENY)
        for number in range(50)
    ]
    found = await asyncio.gather(*(world.desk.answer(hold.id, one) for one in signed), return_exceptions=True)
    losers = [one for one in found if isinstance(one, Refusal)]
    assert len(losers) == 49
    assert {one.code for one in losers} == {"over"}
    assert len(world.types()) == 2
    assert isinstance(await hold.answered, Released | Refused)


async def test_answers_races_and_ends_leave_one_end() -> None:
    for _ in range(50):
        world = Desk()
        hold = world.desk.open(world.facts())
        held = world.desk._find(hold.id)

        async def cancel(world: Desk = world, hold: str = hold.id) -> None:
            world.desk.drop(hold, "cancelled")

        async def expire(world: Desk = world, held: Any = held) -> None:
            held.wanted = world.clock.now()
            world.desk._time_out(held)

        calls = [world.approve(hold.id), world.approve(hold.id, answer=Answer.DENY), cancel(), expire()]
        await asyncio.gather(*calls, return_exceptions=True)
        await hold.answered
        ends = [kind for kind in world.types() if kind not in ("hold.opened", "hold.released")]
        assert len(ends) <= 1
        assert world.desk.use(hold.id, ONE) is (world.types()[-1] == "hold.released")


async def test_the_same_answer_again_is_the_same_answer() -> None:
    world = Desk()
    hold = world.desk.open(world.facts())
    signed = world.signed(hold.id, "bob")
    assert (await world.desk.answer(hold.id, signed)).state == "released"
    assert (await world.desk.answer(hold.id, signed)).state == "released"
    assert (await refused(world.approve(hold.id))).code == "over"


async def test_an_answer_counts_for_its_own_hold_digest_and_key_only() -> None:
    world = Desk()
    one, two = world.desk.open(world.facts()), world.desk.open(world.facts())
    for token in (
        world.signed(two.id, "bob"),
        world.signed(one.id, "bob", digest="0" * 64),
        "x.y.z",
        sign_hold_answer(_answer(world, one.id), AnswerKey().private, datetime.now(UTC)),
        sign_hold_answer(_answer(world, one.id), world.key.private, datetime.now(UTC) - timedelta(minutes=11)),
    ):
        assert (await refused(world.desk.answer(one.id, token))).code == "order_invalid"
    assert (await refused(world.desk.answer("h" * 8, world.signed(one.id, "bob")))).code == "not_found"
    assert world.types() == ["hold.opened"] * 2


def _answer(world: Desk, hold: str) -> HoldAnswer:
    evidence = Evidence(platform="slack", team="T1", user="U1")
    review = OrderedReview(person="bob", answer=Answer.APPROVE, at=datetime.now(UTC), evidence=evidence)
    digest = world.desk._find(hold).digest
    return HoldAnswer(id="answer", hold=hold, digest=digest, reviews=[review], policy_hash=world.policies.hash)


async def test_reviews_are_tallied_again_and_never_the_requesters() -> None:
    world = Desk()
    hold = world.desk.open(world.facts(requirement=TWO))
    for people in (("alice",), ("bob",), ("bob", "bob"), ("bob", "alice"), ("nobody",)):
        found = await refused(world.approve(hold.id, *people))
        assert found.code == "more_reviews"
        assert found.needs
    assert (await world.approve(hold.id, "bob", "dana")).state == "released"


async def test_a_refusal_reaches_who_waits_though_its_reviewer_leaves_while_it_is_written() -> None:
    world = Desk()
    world.recorder.delay = 0.05
    hold = world.desk.open(world.facts())
    refusing = asyncio.create_task(world.approve(hold.id, answer=Answer.DENY))
    await asyncio.sleep(0.02)
    del world.policies.current.people["bob"]
    assert (await refusing).state == "refused"
    assert await asyncio.wait_for(hold.answered, 5) == Refused(hold.id, "Bob", "why")


async def test_reviewers_are_looked_at_again_when_the_approval_is_used() -> None:
    world = Desk()
    hold = world.desk.open(world.facts())
    await world.approve(hold.id)
    gone = POLICY.replace("bob: {name: Bob, groups: [dbas]}", "bob: {name: Bob, groups: [dbas], active: false}")
    world.policies.current = read_texts({"test.yaml": gone})
    assert not world.desk.use(hold.id, ONE)
    assert world.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": "policy"}]


async def test_more_than_was_asked_for_is_not_met() -> None:
    world = Desk()
    hold = world.desk.open(world.facts())
    await world.approve(hold.id)
    assert not world.desk.use(hold.id, TWO)


async def test_an_approval_is_void_after_its_time() -> None:
    world = Desk()
    hold = world.desk.open(world.facts())
    await world.approve(hold.id)
    world.clock.offset = timedelta(minutes=11)
    assert not world.desk.use(hold.id, ONE)


async def test_a_hold_lasts_no_longer_than_its_grant_and_then_says_so() -> None:
    world = Desk()
    hold = world.desk.open(world.facts(seconds=0.05))
    assert await asyncio.wait_for(asyncio.ensure_future(hold.answered), 2) == TimedOut(hold.id)
    assert world.recorder.of("hold.timed_out") == [{"hold": hold.id}]
    found = await refused(world.approve(hold.id))
    assert (found.code, found.message) == ("over", "nobody answered in time")
    long = world.desk.open(world.facts(seconds=1e6))
    view = await world.desk.get(long.id)
    assert view.expires_at - view.opened_at <= timedelta(hours=1)


async def test_a_session_and_a_grant_take_their_holds_along() -> None:
    world = Desk()
    mine, other = world.desk.open(world.facts()), world.desk.open(world.facts(session="s2"))
    later = world.desk.open(world.facts(waits=False))
    world.desk.leave("s1", "client")
    assert await mine.answered == Abandoned(mine.id, "client")
    assert (await world.desk.get(other.id)).state == (await world.desk.get(later.id)).state == "waiting"
    world.desk.end("g1", "revoked")
    assert await other.answered == Abandoned(other.id, "revoked")
    assert (await world.desk.get(later.id)).state == "abandoned"


async def test_a_stop_abandons_everything() -> None:
    world = Desk()
    hold = world.desk.open(world.facts())
    await world.desk.stop()
    assert world.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": "shutdown"}]


async def test_what_cannot_be_recorded_is_not_opened_and_not_released() -> None:
    world = Desk()
    world.recorder.broken = True
    with pytest.raises(RecordingFailed):
        world.desk.open(world.facts())
    world.recorder.broken = False
    hold = world.desk.open(world.facts())
    world.recorder.unsyncable = True
    with pytest.raises(RecordingFailed):
        await world.approve(hold.id)
    assert await hold.answered == Abandoned(hold.id, "recording")
    assert not world.desk.use(hold.id, ONE)


async def test_an_approval_in_the_last_moment_is_good_for_the_run() -> None:
    world = Desk()
    early, late = (world.desk.open(world.facts(seconds=60.0)) for _ in range(2))
    ends = (await world.desk.get(early.id)).expires_at
    await world.approve(early.id)
    assert (await world.desk.get(early.id)).expires_at == ends
    world.clock.offset = timedelta(seconds=59)
    await world.approve(late.id)
    assert timedelta(seconds=8) < (await world.desk.get(late.id)).expires_at - ends < timedelta(seconds=10)
    world.clock.offset = timedelta(seconds=65)
    assert [world.desk.use(hold.id, ONE) for hold in (early, late)] == [False, True]


async def test_the_same_statement_again_meets_its_own_approval_only() -> None:
    world = Desk()
    first = world.desk.open(world.facts(waits=False))
    assert isinstance(await first.answered, Pending)
    assert world.desk.open(world.facts(waits=False, session="s2")).id == first.id
    await world.approve(first.id)
    for other in (world.facts("delete", waits=False), world.facts(waits=False, grant="g2")):
        assert isinstance(await world.desk.open(other).answered, Pending)
    again = world.desk.open(world.facts(waits=False, session="s3"))
    assert await again.answered == Released(first.id, by=("Bob",))
    assert world.desk.use(again.id, ONE)
    assert isinstance(await world.desk.open(world.facts(waits=False)).answered, Pending)


async def test_holds_that_nobody_waits_for_are_bounded() -> None:
    world = Desk()
    for number in range(MOST_PER_GRANT + 3):
        world.desk.open(world.facts(f"insert {number}", waits=False))
    assert world.types().count("hold.abandoned") == 3
    for number in range(KEPT + 5):
        world.desk.drop(world.desk.open(world.facts(f"update {number}")).id, "client")
    assert len(world.desk._over) == KEPT


async def test_an_approval_that_nobody_has_used_yet_is_not_crowded_out() -> None:
    world = Desk()
    approved = world.desk.open(world.facts(waits=False))
    await world.approve(approved.id)
    later = [world.desk.open(world.facts(f"insert {number}", waits=False)) for number in range(MOST_PER_GRANT)]
    assert world.recorder.of("hold.abandoned") == [{"hold": later[0].id, "reason": "crowded"}]
    for hold in later[1:]:
        await world.approve(hold.id)
    newest = world.desk.open(world.facts("one more", waits=False))
    assert [world.desk.alive(hold.id) for hold in (approved, later[1], newest)] == [False, True, True]


async def test_digests_differ_in_whatever_is_bound() -> None:
    world = Desk()
    asked = [
        Asked("insert"),
        Asked("insert "),
        Asked("insert", bodies=("x",)),
        Asked("insert", values=(b"1",)),
        Asked("insert", values=(None,)),
        Asked("insert", values=(b"1",), formats=(1,)),
        Asked("insert", values=(b"1",), types=(23,)),
        Asked("insert", values=(b"1",), results=(1,)),
    ]
    digests = {(await world.desk.get(world.desk.open(world.facts(asked=one)).id)).digest for one in asked}
    assert len(digests) == len(asked)


def test_a_reviewer_reads_what_a_text_is_under_line_by_line() -> None:
    settings = (("DateStyle", "ISO, MDY"), ("TimeZone", "<a\nselect 1>3"))
    asked = Asked("delete from a", path=("app",), settings=settings, altered=True)
    assert asked.text.splitlines() == [
        "-- behind a change of the schema, so that names may mean something else",
        "-- under search_path = app",
        "-- under TimeZone = '<a\\nselect 1>3'",
        "delete from a",
    ]
