"""Searches are rationed by grant and field, over any hour."""

from broker.protocols.postgres.rationing import HOUR, Rations


def test_ration_is_of_one_grant_and_field_and_comes_back_one_by_one_after_an_hour() -> None:
    rations = Rations()
    assert [rations.take("g1", "t.ssn", 2, at) for at in (0.0, 600.0)] == [0.0, 0.0]
    assert rations.take("g1", "t.ssn", 2, 1000.0) == HOUR - 1000.0
    assert rations.take("g1", "t.email", 2, 1000.0) == 0.0
    assert rations.take("g2", "t.ssn", 2, 1000.0) == 0.0
    assert rations.take("g1", "t.ssn", 2, HOUR) == 0.0
    assert rations.take("g1", "t.ssn", 2, HOUR + 1) == 599.0


def test_narrower_ration_holds_at_once() -> None:
    rations = Rations()
    for at in range(5):
        rations.take("g1", "t.ssn", 10, float(at))
    assert rations.take("g1", "t.ssn", 3, 10.0) > 0
