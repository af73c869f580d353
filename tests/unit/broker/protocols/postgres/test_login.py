"""The broker's own login: SCRAM and nothing else, and every pin must read back."""

import pytest

from broker.protocols.postgres import codec, pins
from broker.protocols.postgres.codec import Frame
from broker.protocols.postgres.login import Admitted, Derive, LoggedIn, Login, LoginFailed, LoginState, Send, Served
from broker.protocols.postgres.scram import PLAIN, ScramServer, make_verifier, salted_password
from policies.engine.load import read_texts
from tests.support.broker import POLICY

PINS = {"client_encoding": "UTF8", "row_security": "on", "statement_timeout": "1801000"}
SALT = b"sixteen bytes !!"


def login(waits: dict[str, str] | None = None) -> Login:
    return Login("app", "shop", PINS, PINS, "clientnonce", None, waits or {})


def frame(data: bytes) -> Frame:
    return Frame(data[0], data[5:])


def auth(code: int, body: bytes = b"") -> Frame:
    return frame(codec.authentication(code, body))


def row(*values: str) -> Frame:
    parts = [len(value).to_bytes(4, "big") + value.encode() for value in values]
    return Frame(ord("D"), len(values).to_bytes(2, "big") + b"".join(parts))


def logged_in(found: list[tuple[str, ...]], password: str = "secret", waits: dict[str, str] | None = None) -> LoggedIn:
    one, server = login(waits), ScramServer(make_verifier("secret", SALT, 4096), "servernonce", None)
    first = one.handle(auth(10, codec.string(PLAIN) + b"\0"))
    assert isinstance(first, Send)
    reader = codec.Reader(first.data[5:])
    challenge = server.first(reader.text(), reader.take(reader.int32()))
    derive = one.handle(auth(11, challenge))
    assert isinstance(derive, Derive)
    proof, asked = one.derived(salted_password(password, derive.salt, derive.iterations)).split(b"Q", 1)
    assert b"Q" + asked == codec.query(pins.verification(list(PINS), waits or {}))
    assert one.handle(auth(12, server.final(proof[5:]))) is None
    assert one.handle(auth(0)) is None
    one.handle(frame(codec.parameter_status("server_version", "18.0")))
    one.handle(frame(codec.backend_key_data(7, b"abcd")))
    assert one.handle(frame(codec.ready_for_query("I"))) == Admitted()
    for values in found:
        told = one.handle(row(*values))
        assert told is None or (isinstance(told, Served) and values is found[0])
    done = one.handle(frame(codec.ready_for_query("I")))
    assert isinstance(done, LoggedIn)
    assert one.state is LoginState.READY
    return done


STARTED = "0002ad2d45a1c6c0"
READ: list[tuple[str, ...]] = [("77", STARTED), ("UTF8",), ("on",), ("1801s",)]


def test_a_login_reads_back_who_serves_it_and_its_pins() -> None:
    done = logged_in(READ)
    assert (done.pid, done.backend_start) == (77, int(STARTED, 16) + 946_684_800_000_000)
    assert done.statuses == {"server_version": "18.0"}


def test_what_is_set_for_a_wait_is_set_behind_the_pins_and_must_read_back() -> None:
    waits = {"idle_session_timeout": "75000"}
    assert pins.verification(["row_security"], waits).endswith(
        "; show row_security; select pg_catalog.set_config('idle_session_timeout', '75000', false)"
    )
    assert logged_in([*READ, ("75s",)], waits=waits).pid == 77
    for found in (READ, [*READ, ("0",)]):
        with pytest.raises(LoginFailed):
            logged_in(found, waits=waits)


@pytest.mark.parametrize(
    ("at", "changed"),
    [
        (2, ("off",)),
        (3, ("30min",)),
        (3, ("1801",)),
        (3, ("on", "on")),
        (0, ("", STARTED)),
        (0, ("77", "")),
        (0, ("77", "x" * 16)),
        (0, ("77",)),
    ],
)
def test_a_pin_that_was_not_kept_fails_the_login(at: int, changed: tuple[str, ...]) -> None:
    with pytest.raises(LoginFailed):
        logged_in([*READ[:at], changed, *READ[at + 1 :]])


@pytest.mark.parametrize("found", [[], READ[:-1], [*READ, ("on",)], READ[1:]])
def test_an_answer_that_is_not_whole_fails_the_login(found: list[tuple[str, ...]]) -> None:
    with pytest.raises(LoginFailed):
        logged_in(found)


@pytest.mark.parametrize(
    ("wanted", "shown", "same"),
    [
        ("0", "0", True),
        ("500", "500ms", True),
        ("120000", "2min", True),
        ("7200000", "2h", True),
        ("172800000", "2d", True),
        ("500", "500s", False),
        ("500", "500us", False),
        ("500", "", False),
        ("on", "on", True),
        ("on", "off", False),
    ],
)
def test_a_duration_is_compared_in_whatever_unit_it_is_shown(wanted: str, shown: str, same: bool) -> None:
    assert pins.kept(wanted, shown) is same


@pytest.mark.parametrize("code", [0, 2, 3, 5, 7, 9, 13])
def test_any_other_method_is_refused(code: int) -> None:
    with pytest.raises(LoginFailed, match="only SCRAM-SHA-256 is accepted"):
        login().handle(auth(code, b"salt"))


@pytest.mark.parametrize("kind", ["Z", "D", "S", "K", "T", "?"])
def test_messages_out_of_order_are_refused(kind: str) -> None:
    with pytest.raises(LoginFailed):
        login().handle(Frame(ord(kind), b"I"))


def test_an_upstream_that_skips_its_own_proof_is_refused() -> None:
    one = login()
    one.handle(auth(10, codec.string(PLAIN) + b"\0"))
    with pytest.raises(LoginFailed):
        one.handle(auth(0))


def test_pins_depend_on_the_servers_version() -> None:
    old = pins.pinned(["public"], version=130000, remaining_ms=5000, read_only=True, session="s1")
    new = pins.pinned(["public"], version=180000, remaining_ms=5000, read_only=False, session="s1")
    timeouts = [
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "statement_timeout",
        "transaction_timeout",
    ]
    assert sorted(name for name in old if name.endswith("timeout")) == [timeouts[0], timeouts[2]]
    assert sorted(name for name in new if name.endswith("timeout")) == timeouts
    assert {new[name] for name in timeouts} == {str(5000 + pins.SLACK_MS)}
    assert (old["default_transaction_read_only"], new["default_transaction_read_only"]) == ("on", "off")
    assert new["search_path"] == '"public", pg_temp'


def test_a_client_may_have_less_than_is_pinned_and_never_more() -> None:
    pinned = pins.pinned(["public"], version=160000, remaining_ms=5000, read_only=False, session="s1")
    asked = {"statement_timeout": "100", "idle_session_timeout": "99999", "transaction_timeout": "1", "jit": "off"}
    assert pins.narrowed(pinned, asked) == {**pinned, "statement_timeout": "100"}
    nothing = {"statement_timeout": "0", pins.READ_ONLY: "yes", pins.MESSAGES: "notice"}
    assert pins.narrowed(pinned, nothing) == {**pinned, pins.READ_ONLY: "on"}
    for clear, level, found in ((False, "ERROR", "error"), (True, "warning", "warning"), (False, "notice", "warning")):
        pinned = pins.pinned(["public"], version=160000, remaining_ms=1, read_only=False, session="s1", clear=clear)
        assert pins.narrowed(pinned, {pins.MESSAGES: level})[pins.MESSAGES] == found


def test_a_session_that_no_rule_lets_write_is_pinned_read_only() -> None:
    policy = read_texts({"test.yaml": POLICY})
    assert pins.never_changes(policy, "alice", "prod-db", "read")
    assert not pins.never_changes(policy, "alice", "prod-db", "write")
    assert not pins.never_changes(policy, "alice", "prod-db", "ask")
