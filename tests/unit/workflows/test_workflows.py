"""State tables, tallies and orders: what moves a request, who counts, and what a broker obeys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from policies.engine.decisions import Need, Requirement
from policies.engine.load import read_texts
from workflows import grants, requests
from workflows.grants import GrantEvent, GrantMoveIllegal, GrantState
from workflows.orders import (
    Evidence,
    Order,
    OrderedReview,
    OrderInvalid,
    sign_call,
    sign_order,
    verify_call,
    verify_order,
)
from workflows.requests import RequestEvent, RequestMoveIllegal, RequestState
from workflows.reviews import Answer, Ineligible, Met, Missing, Refused, Review, may_review, tally

POLICY = read_texts(
    {
        "p.yaml": """
groups: {dbas: "", security: "", devs: ""}
people:
  alice: {name: Alice, groups: [devs, dbas]}
  bob: {name: Bob, groups: [dbas]}
  dana: {name: Dana, groups: [dbas, security]}
  erin: {name: Erin, groups: [security]}
  gone: {name: Gone, groups: [dbas], active: false}
"""
    }
)
ONE = Requirement((Need(1, ("dbas",)),))
BOTH = Requirement((Need(1, ("dbas",)), Need(1, ("security",))))
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()


def approvals(*people: str) -> list[Review]:
    return [Review(person, Answer.APPROVE) for person in people]


def test_every_pair_of_request_state_and_event_is_a_move_or_an_error() -> None:
    for state, event in product(RequestState, RequestEvent):
        if (state, event) in requests.TABLE:
            assert requests.moved(state, event) is requests.TABLE[state, event]
        else:
            with pytest.raises(RequestMoveIllegal):
                requests.moved(state, event)
    assert not [pair for pair in requests.TABLE if pair[0] in requests.FINAL]


def test_every_pair_of_grant_state_and_event_is_a_move_or_an_error() -> None:
    for state, event in product(GrantState, GrantEvent):
        if (state, event) in grants.TABLE:
            assert grants.moved(state, event) is grants.TABLE[state, event]
        else:
            with pytest.raises(GrantMoveIllegal):
                grants.moved(state, event)
    assert {state for state, _ in grants.TABLE} == grants.LIVE


def test_the_requester_never_counts() -> None:
    assert isinstance(may_review(POLICY, ONE, "alice", "alice"), Ineligible)
    assert tally(POLICY, ONE, "alice", approvals("alice")) == Missing((Need(1, ("dbas",)),), ())


@pytest.mark.parametrize("person", [None, "nobody", "gone", "erin"])
def test_who_is_not_an_active_member_never_counts(person: str | None) -> None:
    assert isinstance(may_review(POLICY, ONE, "alice", person), Ineligible)
    assert isinstance(tally(POLICY, ONE, "alice", approvals(person or "")), Missing)


def test_one_person_in_two_groups_fills_one_place() -> None:
    assert isinstance(tally(POLICY, BOTH, "alice", approvals("dana", "dana")), Missing)
    assert isinstance(tally(POLICY, BOTH, "alice", approvals("dana", "bob")), Met)
    assert isinstance(tally(POLICY, BOTH, "alice", approvals("erin", "dana")), Met)


def test_a_deny_of_an_eligible_person_ends_it_and_of_another_does_not() -> None:
    assert tally(POLICY, ONE, "alice", [*approvals("bob"), Review("dana", Answer.DENY)]) == Refused("dana")
    assert isinstance(tally(POLICY, ONE, "alice", [*approvals("bob"), Review("erin", Answer.DENY)]), Met)


def test_a_persons_last_review_counts() -> None:
    assert isinstance(tally(POLICY, ONE, "alice", [Review("bob", Answer.DENY), *approvals("bob")]), Met)


def test_an_empty_requirement_is_never_met() -> None:
    assert isinstance(tally(POLICY, Requirement(()), "alice", approvals("bob")), Missing)


@given(st.lists(st.tuples(st.sampled_from(["alice", "bob", "dana", "erin", "gone", "x"]), st.sampled_from(Answer))))
def test_a_met_requirement_has_distinct_eligible_people_for_every_place(answers: list[tuple[str, Answer]]) -> None:
    result = tally(POLICY, BOTH, "alice", [Review(person, answer) for person, answer in answers])
    if isinstance(result, Met):
        assert len(set(result.by)) >= 2
        assert "alice" not in result.by
        assert {"bob", "dana"} & set(result.by)
        assert {"dana", "erin"} & set(result.by)


def order(**changes: object) -> Order:
    evidence = Evidence(platform="slack", team="T0", user="U0", action="1.2")
    values: dict[str, object] = {
        "id": "order-1",
        "request": "req-1",
        "requester": "alice",
        "requester_evidence": evidence,
        "resource": "db",
        "role": "read",
        "seconds": 1800,
        "reason": "INC-42",
        "asked_at": NOW,
        "reviews": [OrderedReview(person="bob", answer=Answer.APPROVE, at=NOW, evidence=evidence)],
        "policy_hash": "0" * 64,
    }
    return Order.model_validate({**values, **changes})


def test_an_order_reads_back_as_it_was_signed() -> None:
    assert verify_order(sign_order(order(), KEY, NOW), KEY.public_key(), NOW) == order()


@pytest.mark.parametrize("shift", [timedelta(minutes=11), timedelta(minutes=-1), timedelta(days=365)])
def test_an_order_outside_its_time_is_not_obeyed(shift: timedelta) -> None:
    with pytest.raises(OrderInvalid):
        verify_order(sign_order(order(), KEY, NOW), KEY.public_key(), NOW + shift)


def test_an_order_of_another_key_or_algorithm_is_not_obeyed() -> None:
    claims = {"order": order().model_dump(mode="json"), "jti": "order-1", "iss": "airlock-bot", "aud": "airlock-broker"}
    times = {"iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 60}
    forged = [
        sign_order(order(), Ed25519PrivateKey.generate(), NOW),
        jwt.encode({**claims, **times}, None, algorithm="none"),
        jwt.encode({**claims, **times}, "a-shared-secret-of-32-characters!", algorithm="HS256"),
        jwt.encode({**claims, **times, "exp": int(NOW.timestamp()) + 10**6}, KEY, algorithm="EdDSA"),
        jwt.encode({**claims, **times, "jti": "another"}, KEY, algorithm="EdDSA"),
        jwt.encode({**claims, **times, "aud": "somebody-else"}, KEY, algorithm="EdDSA"),
        jwt.encode({**claims, "iat": times["iat"]}, KEY, algorithm="EdDSA"),
        sign_call("GET", "/v1/events", KEY, NOW),
        "x" * 100_000,
        "",
    ]
    for token in forged:
        with pytest.raises(OrderInvalid):
            verify_order(token, KEY.public_key(), NOW)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_changed_order_is_not_obeyed(at: int, flip: int) -> None:
    token = bytearray(sign_order(order(), KEY, NOW), "ascii")
    at %= len(token)
    token[at] = (token[at] ^ flip) & 0x7F
    changed = token.decode("ascii")
    if changed == sign_order(order(), KEY, NOW):
        return
    try:
        read = verify_order(changed, KEY.public_key(), NOW)
    except OrderInvalid:
        return
    # The last characters of base64 may carry bits that no byte uses: the order itself is the same then.
    assert read == order()


def test_a_call_is_good_for_its_method_and_path_only() -> None:
    token = sign_call("DELETE", "/v1/grants/g1", KEY, NOW, actor="alice")
    assert verify_call(token, "DELETE", "/v1/grants/g1", KEY.public_key(), NOW) == "alice"
    for method, path in (("GET", "/v1/grants/g1"), ("DELETE", "/v1/grants/g2")):
        with pytest.raises(OrderInvalid):
            verify_call(token, method, path, KEY.public_key(), NOW)


@pytest.mark.parametrize("change", [{"seconds": 5}, {"requester": "A B"}, {"id": "x y z !"}, {"reason": "x" * 10_001}])
def test_an_order_that_does_not_read_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        order(**change)
