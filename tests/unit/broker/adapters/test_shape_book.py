"""Approved shapes: reviews that name one make a rule, which is kept before it counts and gives no more than they."""

import asyncio
from typing import Any

import pytest

from broker.adapters.shapes import NOT_ENOUGH, NOT_OFFERED, ShapeBook
from broker.adapters.store import ShapeRow, StoreUnavailable
from broker.errors import RecordingFailed
from broker.sessions.holds import Abandoned, Asked, Estimate, HoldFacts, Released, Sought
from broker.sessions.shapes import Shape, ShapeRule
from policies.engine.decisions import Bound, Need, Requirement
from policies.engine.load import read_texts
from tests.support.broker import POLICY
from tests.unit.broker.adapters.test_holds import ONE, TWO, Desk, refused
from workflows.orders import Evidence, OrderedReview
from workflows.reviews import Answer

DIGEST, OTHER = "a" * 64, "b" * 64
SHAPE = Shape(DIGEST, "delete from pets where id = $1", ("$1: any whole number",))


def held(world: Desk, sql: str = "delete from pets where id = 1", **change: Any) -> HoldFacts:
    return world.facts(
        sql, **{"shape": SHAPE, "bound": Bound(7), "redacted": "delete from pets where id = ?", **change}
    )


def sought(world: Desk, sql: str = "delete from pets where id = 2", **change: Any) -> Sought:
    facts = held(world, sql)
    shape = change.pop("shape", SHAPE)
    values = {"requirement": ONE, "rules": ("asked",), "waits": True, **change}
    return Sought(facts.session.grant, Asked(sql), shape, **values)


def reviews(world: Desk, **given: str | None) -> list[OrderedReview]:
    evidence = Evidence(platform="slack", team="T1", user="U1")
    return [
        OrderedReview(person=who, answer=Answer.APPROVE, at=world.clock.now(), shape=shape, evidence=evidence)
        for who, shape in given.items()
    ]


async def approved(world: Desk, **change: Any) -> str:
    hold = world.desk.open(held(world, **change))
    await world.approve(hold.id, reviews=reviews(world, bob=DIGEST))
    return str(world.recorder.of("shape.approved")[-1]["shape"])


async def test_a_review_that_names_the_shape_makes_a_rule_once_it_is_stored_and_recorded() -> None:
    world = Desk()
    rule = await approved(world)
    assert world.types() == ["hold.opened", "hold.released", "shape.approved"]
    assert world.recorder.of("shape.approved") == [
        {
            "shape": rule,
            "hold": world.rows.rows[rule].hold,
            "by": ["bob"],
            "text": "delete from pets where id = ?",
            "rules": ["asked"],
            "most": 7,
        }
    ]
    assert world.recorder.entries[-1].detail["answer"]["reviews"][0]["shape"] == DIGEST
    assert world.desk.match(sought(world)) == ShapeRule(rule, 7)
    view = await world.shapes.get(rule)
    assert (view.text, view.by, view.withdrawn_by) == (SHAPE.text, ["bob"], None)


async def test_a_shape_is_in_force_before_its_statement_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Desk()
    hold = world.desk.open(held(world))
    add = world.rows.add_shape

    async def slow(row: ShapeRow) -> None:
        await asyncio.sleep(0.01)
        await add(row)

    async def waits() -> ShapeRule | None:
        assert isinstance(await hold.answered, Released)
        return world.desk.match(sought(world))

    monkeypatch.setattr(world.rows, "add_shape", slow)
    found, _ = await asyncio.gather(waits(), world.approve(hold.id, reviews=reviews(world, bob=DIGEST)))
    assert found is not None
    assert found.most == 7


async def test_a_statement_that_is_given_up_while_its_shape_is_kept_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Desk()
    hold = world.desk.open(held(world))
    add = world.rows.add_shape

    async def slow(row: ShapeRow) -> None:
        await add(row)
        world.desk.drop(hold.id, "client")
        await asyncio.sleep(0.01)

    monkeypatch.setattr(world.rows, "add_shape", slow)
    await world.approve(hold.id, reviews=reviews(world, bob=DIGEST))
    assert await hold.answered == Abandoned(hold.id, "client")


async def test_a_shape_is_offered_once_it_is_known_how_many_rows_each_run_may_touch() -> None:
    world = Desk()
    hold = world.desk.open(held(world, bound=Bound(1000, 10)))
    assert (await world.desk.get(hold.id)).shape is None
    world.desk.estimated(hold.id, Estimate(rows=2))
    view = await world.desk.get(hold.id)
    assert (view.shape is not None, view.most) == (True, 20)
    await world.approve(hold.id, reviews=reviews(world, bob=DIGEST))
    assert world.recorder.of("shape.approved")[-1]["most"] == 20


async def test_an_approval_of_one_run_or_of_another_shape_makes_no_rule() -> None:
    world = Desk()
    hold = world.desk.open(held(world))
    await world.approve(hold.id)
    assert "shape.refused" not in world.types()
    for shape, offered, why in ((OTHER, SHAPE, NOT_ENOUGH), (DIGEST, None, NOT_OFFERED)):
        hold = world.desk.open(held(world, shape=offered))
        assert (await world.approve(hold.id, reviews=reviews(world, bob=shape))).state == "released"
        assert world.recorder.of("shape.refused")[-1] == {"hold": hold.id, "reason": why}
    assert world.desk.match(sought(world)) is None
    assert world.rows.rows == {}


async def test_every_reviewer_that_is_needed_must_approve_the_shape() -> None:
    world = Desk()
    hold = world.desk.open(held(world, requirement=TWO))
    await world.approve(hold.id, reviews=reviews(world, bob=DIGEST, dana=None))
    assert world.recorder.of("shape.refused") == [{"hold": hold.id, "reason": NOT_ENOUGH}]
    hold = world.desk.open(held(world, requirement=TWO))
    await world.approve(hold.id, reviews=reviews(world, bob=DIGEST, dana=DIGEST))
    assert world.desk.match(sought(world, requirement=TWO)) is not None


async def test_whoever_approved_one_run_after_all_has_not_approved_the_shape() -> None:
    world = Desk()
    hold = world.desk.open(held(world, requirement=TWO))
    changed = [*reviews(world, bob=DIGEST), *reviews(world, dana=DIGEST, bob=None)]
    await world.approve(hold.id, reviews=changed)
    assert world.recorder.of("shape.refused") == [{"hold": hold.id, "reason": NOT_ENOUGH}]


async def test_nobody_approves_a_shape_of_their_own() -> None:
    world = Desk()
    hold = world.desk.open(held(world))
    both = reviews(world, alice=DIGEST, bob=None)
    await world.approve(hold.id, reviews=both)
    assert world.recorder.of("shape.refused") == [{"hold": hold.id, "reason": NOT_ENOUGH}]


MORE = Requirement((Need(1, ("dbas",)), Need(1, ("security",))))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": Shape(OTHER, "delete from pets where id > $1", ())},
        {"rules": ("asked", "more")},
        {"rules": ("else",)},
        {"requirement": TWO},
        {"requirement": MORE},
    ],
)
async def test_a_rule_lets_nothing_pass_that_was_not_approved(change: dict[str, Any]) -> None:
    world = Desk()
    await approved(world)
    assert world.desk.match(sought(world, **change)) is None
    assert world.desk.match(sought(world)) is not None


async def test_a_rule_rests_on_reviewers_who_are_that_still_and_is_of_its_grant_alone() -> None:
    world = Desk()
    await approved(world)
    other = sought(world)
    facts = world.facts(grant="g2").session.grant
    assert world.desk.match(Sought(facts, other.asked, SHAPE, ONE, ("asked",), waits=True)) is None
    gone = POLICY.replace("{name: Bob, groups: [dbas]}", "{name: Bob, groups: [dbas], active: false}")
    world.policies.current = read_texts({"test.yaml": gone})
    assert world.desk.match(sought(world)) is None


async def test_a_shape_that_cannot_be_kept_makes_no_rule_and_the_statement_runs_all_the_same() -> None:
    world = Desk()
    world.rows.away = True
    hold = world.desk.open(held(world))
    assert (await world.approve(hold.id, reviews=reviews(world, bob=DIGEST))).state == "released"
    (said,) = world.recorder.of("shape.refused")
    assert said["reason"].startswith("it could not be kept")
    assert world.desk.match(sought(world)) is None


async def test_a_withdrawn_shape_counts_no_more_whatever_fails_after_that() -> None:
    world = Desk()
    rule = await approved(world)
    world.recorder.broken = True
    with pytest.raises(RecordingFailed):
        await world.shapes.withdraw(rule, "alice", "enough")
    assert world.desk.match(sought(world)) is None
    world.recorder.broken, world.rows.away = False, True
    with pytest.raises(StoreUnavailable):
        await world.shapes.withdraw(rule, "alice", "enough")
    world.rows.away = False
    assert (await world.shapes.withdraw(rule, "alice", "enough")).withdrawn_by == "alice"
    assert (await world.shapes.withdraw(rule, "bob", "")).withdrawn_by == "alice"
    assert world.recorder.of("shape.withdrawn") == [{"shape": rule, "by": "alice", "reason": "enough"}]
    assert (await refused(world.shapes.withdraw("shape-0000", "alice", ""))).code == "not_found"


async def test_a_shape_ends_with_its_grant() -> None:
    world = Desk()
    rule = await approved(world)
    world.desk.end("g1", "revoked")
    assert world.desk.match(sought(world)) is None
    assert (await refused(world.shapes.withdraw(rule, "alice", ""))).code == "over"


async def test_a_broker_that_starts_again_takes_up_what_is_stored_and_recorded() -> None:
    world = Desk()
    rule = await approved(world)
    again = ShapeBook(world.rows, world.recorder, world.clock, world.policies)
    await again.take_up("g1", set())
    assert again.match(sought(world)) is None
    await again.take_up("g1", {rule})
    assert again.match(sought(world)) == ShapeRule(rule, 7)
    await again.withdraw(rule, "bob", "")
    last = ShapeBook(world.rows, world.recorder, world.clock, world.policies)
    await last.take_up("g1", {rule})
    assert last.match(sought(world)) is None


async def test_the_approval_of_a_refused_statement_itself_is_used_before_its_shape() -> None:
    world = Desk()
    sql = "delete from pets where id = 1"
    await approved(world, waits=False)
    assert world.desk.match(sought(world, sql, waits=False)) is None
    assert world.desk.match(sought(world, waits=False)) is not None
