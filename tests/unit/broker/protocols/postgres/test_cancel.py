"""A cancel key names its own session only, whatever process id it shares."""

from broker.protocols.postgres.cancel import GUESSES, CancelKeys
from broker.protocols.postgres.startup import CancelKey


def test_sessions_of_two_upstreams_may_have_one_process_id() -> None:
    keys = CancelKeys()
    one, two = keys.issue("one", 77), keys.issue("two", 77)
    assert one.pid == two.pid == 77
    assert keys.find(one, "here", 0.0) == "one"
    keys.revoke(one)
    keys.revoke(one)
    assert keys.find(one, "here", 0.0) is None
    assert keys.find(two, "here", 0.0) == "two"


def test_a_wrong_secret_finds_nothing_and_is_counted() -> None:
    keys = CancelKeys()
    key = keys.issue("one", 77)
    for _ in range(GUESSES):
        assert keys.find(CancelKey(77, bytes(8)), "here", 0.0) is None
    assert keys.find(key, "here", 0.0) is None
    assert keys.find(key, "elsewhere", 0.0) == "one"
