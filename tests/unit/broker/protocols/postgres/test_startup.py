"""Startup packets: what drivers put into them is read as the server would, or refused with what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres import codec
from broker.protocols.postgres.outset import untaken
from broker.protocols.postgres.startup import Startup, StartupRefused, local, read_startup, switches
from broker.sql.paths import listed, setting

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def read(*pairs: tuple[str, str]) -> Startup:
    return read_startup(codec.startup([("user", "u"), ("database", "d"), *pairs])[4:])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", []),
        ("  ", []),
        ("-c jit=off", [("jit", "off")]),
        ("-cjit=off -c\tgeqo=on", [("jit", "off"), ("geqo", "on")]),
        ("--default-transaction-isolation=repeatable\\ read", [("default_transaction_isolation", "repeatable read")]),
        ("-c Search_Path=app,public", [("search_path", "app,public")]),
        ("-c search_path=a\\ b\\\\c=", [("search_path", "a b\\c=")]),
        ("-c jit=", [("jit", "")]),
        ("-c x=1\\", [("x", "1")]),
    ],
)
def test_options_are_read_as_the_server_reads_them(options: str, found: list[tuple[str, str]]) -> None:
    assert list(switches(options)) == found


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.8.9.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("192.0.2.7", "127.0.0.1", False),
        ("127.0.0.1", "192.0.2.7", False),
        ("192.0.2.7", "192.0.2.7", False),
        ("::ffff:192.0.2.7", "::1", False),
        ("fe80::1%lo", "fe80::1%lo", False),
        ("", "127.0.0.1", False),
        ("localhost", "localhost", False),
    ],
)
def test_a_connection_has_left_no_machine_only_where_both_ends_are_loopback(here: str, there: str, found: bool) -> None:
    assert local(here, there) is found


@pytest.mark.parametrize("options", ["-c", "-c jit", "--jit", "--", "--=1", "-c =1", "jit=off", "-fs", "-S 100", "-"])
def test_other_switches_are_refused_with_how_settings_are_written(options: str) -> None:
    with pytest.raises(StartupRefused) as caught:
        read(("options", options))
    assert "-c name=value" in (caught.value.problem.hint or "")


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True), WORDS, max_size=4))
def test_whatever_is_escaped_is_read_back(wanted: dict[str, str]) -> None:
    words = ["-c" + "".join(f"\\{char}" for char in f"{name}={value}") for name, value in wanted.items()]
    assert dict(switches(" ".join(words))) == wanted


def test_what_stands_by_itself_counts_more_than_the_same_in_options() -> None:
    startup = read(("options", "-c jit=on -c TimeZone=UTC -c search_path=a -c search_path=b"), ("JIT", "off"))
    assert dict(startup.settings) == {"jit": "off", "timezone": "UTC"}
    assert startup.path == ("b",)
    assert read(("search_path", ""), ("options", "-csearch_path=b")).path == ()
    assert read().path is None


@given(st.lists(WORDS, max_size=4))
def test_a_path_is_ruled_on_as_the_set_that_it_stands_for(names: list[str]) -> None:
    said = setting(names).removeprefix("SET search_path TO ")
    assert (listed(said) if said != "''" else []) == [name for name in names if name]


@pytest.mark.parametrize("name", ["transaction_isolation", "work_mem", "backslash_quote", "app.api_key"])
def test_what_could_not_be_set_is_refused_with_what_can_be_done(name: str) -> None:
    known = name.startswith(("transaction", "backslash"))
    said = "is pinned for this session" if known else "is not among the settings that a session may change"
    for pair in ((name, "1"), ("options", f"-c {name}=1")):
        with pytest.raises(StartupRefused, match=f"{name} {said}") as caught:
            read(pair)
        assert "connect without it" in (caught.value.problem.hint or "")
        assert "may be set: application_name, " in (caught.value.problem.hint or "")
        assert ", search_path, " in (caught.value.problem.hint or "")


def test_a_setting_of_an_applications_own_waits_until_it_is_known_who_asks() -> None:
    for pair in (("App.User_Id", "7"), ("options", "-c app.user_id=7")):
        assert read(pair).own == (("app.user_id", "7"),)
    assert read(("jit", "off")).own == ()
    with pytest.raises(StartupRefused, match="cannot be set to that value"):
        read(("app.user_id", "a\nb"))


def test_a_timeout_is_read_into_milliseconds() -> None:
    startup = read(("statement_timeout", "30s"), ("options", r"-c lock_timeout=5s --idle-session-timeout=1\ min"))
    assert dict(startup.settings) == {
        "statement_timeout": "30000", "lock_timeout": "5s", "idle_session_timeout": "60000"
    }  # fmt: skip
    for value in ("-1", "a while", "500us"):
        with pytest.raises(StartupRefused, match="is set to a whole number"):
            read(("statement_timeout", value))


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ('22023 invalid value for parameter "TimeZone": "Nowhere"', 'invalid value for parameter "TimeZone"'),
        ('42704 unrecognized configuration parameter "transaction_timeout"', "unrecognized configuration parameter"),
        ("57014 canceling statement due to statement timeout", "too short for the login itself"),
        ('22023 invalid value for parameter "row_security": "x"', None),
        ('28P01 password authentication failed for user "timezone"', None),
        ("the upstream did not keep timezone", None),
    ],
)
def test_a_login_that_fails_over_what_the_client_asks_for_says_so(failure: str, told: str | None) -> None:
    startup = read(("TimeZone", "Nowhere"), ("transaction_timeout", "5s"), ("statement_timeout", "1"))
    problem = untaken(UpstreamUnavailable(f"LoginFailed: {failure}"), startup)
    assert (problem is not None) is (told is not None)
    if problem is not None and told is not None:
        assert told in problem.message
        assert problem.hint
    assert untaken(UpstreamUnavailable(f"LoginFailed: {failure}"), read()) is None
