"""`make compat` fails on what differs and is not listed, and on what is listed and does not differ."""

from tests.compat.comparing import Outcomes, compare

PASSED, FAILED = ("passed", ""), ("failed", "why")
PLAIN: Outcomes = {"suite.One.test_a": PASSED, "suite.One.test_b": PASSED, "suite.Two.test_a": PASSED}


def test_suites_that_fare_alike_are_good() -> None:
    assert compare(PLAIN, dict(PLAIN), {}).good


def test_a_difference_that_nobody_listed_is_not_good() -> None:
    found = compare(PLAIN, PLAIN | {"suite.One.test_b": FAILED}, {})
    assert found.unlisted == ["suite.One.test_b"]
    assert not found.good


def test_a_test_that_only_one_run_has_differs() -> None:
    assert compare(PLAIN, {**PLAIN, "suite.Two.test_b": PASSED}, {}).unlisted == ["suite.Two.test_b"]


def test_a_listed_difference_is_good_as_long_as_it_occurs() -> None:
    broker = PLAIN | {"suite.One.test_b": FAILED}
    assert compare(PLAIN, broker, {"a reason": ["suite.One.test_b"]}).good
    assert compare(PLAIN, PLAIN, {"a reason": ["suite.One.test_b"]}).gone == ("suite.One.test_b",)


def test_what_is_unsteady_is_not_compared() -> None:
    broker = PLAIN | {"suite.One.test_b": FAILED}
    assert compare(PLAIN, broker, {}, {"suite.One.test_b"}).good
    assert not compare(PLAIN, broker, {}, {"suite.One.test_a"}).good


def test_a_pattern_may_not_name_what_fares_alike() -> None:
    broker = PLAIN | {"suite.One.test_b": FAILED}
    assert compare(PLAIN, broker, {"a reason": ["suite.One.*"]}).gone == ("suite.One.*",)
    every = dict.fromkeys(PLAIN, FAILED)
    assert compare(PLAIN, every, {"a reason": ["suite.One.*", "suite.Two.*"]}).good
