"""What the upstream says is passed, rebuilt or kept, by what could be in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres import codec
from broker.protocols.postgres.replies import denial, passed_problem, passes_status

SECRET = "123-45-6789"


def body(**values: str) -> bytes:
    return codec.fields(b"E", values)[5:]


def fields(data: bytes) -> dict[str, str]:
    return codec.read_fields(data[5:])


@given(
    st.text(alphabet="0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=5, max_size=5),
    st.lists(st.sampled_from("DWqstcdnRFL"), unique=True),
)
def test_scrubbed_problems_keep_no_field_that_could_carry_a_value(state: str, names: list[str]) -> None:
    given_ = {"S": "ERROR", "V": "ERROR", "C": state, "M": "text", **dict.fromkeys(names, SECRET)}
    told = fields(passed_problem(b"E", body(**given_), None, scrub=True))
    assert set(told) <= {"S", "V", "C", "M"}
    assert told["C"] == state


@pytest.mark.parametrize("state", ["22P02", "23505", "23514", "P0001", "XX000", "22012", "0A000", "42602", "01000"])
def test_texts_that_quote_values_are_replaced(state: str) -> None:
    told = fields(passed_problem(b"E", body(S="ERROR", V="ERROR", C=state, M=f"bad {SECRET}"), None, scrub=True))
    assert SECRET not in told["M"]
    assert "withheld" in told["M"]


@pytest.mark.parametrize("state", ["42703", "42P01", "42501", "57014", "25P02", "26000", "34000"])
def test_texts_about_names_and_states_stay(state: str) -> None:
    told = fields(passed_problem(b"E", body(S="ERROR", V="ERROR", C=state, M="its text", P="8"), None, scrub=True))
    assert told["M"] == "its text"


@pytest.mark.parametrize("state", ["42703", "42P01", "42883", "42704", "42601", "3F000"])
def test_a_name_that_has_no_place_in_the_statement_is_a_value(state: str) -> None:
    text = f'relation "{SECRET}" does not exist'
    told = fields(passed_problem(b"E", body(S="ERROR", V="ERROR", C=state, M=text, p="8"), None, scrub=True))
    assert SECRET not in told["M"]
    assert "withheld" in told["M"]


@pytest.mark.parametrize(
    ("state", "text", "more"),
    [
        ("22P02", 'invalid input syntax for type integer: "x"', {"P": "8"}),
        ("22007", 'invalid input syntax for type date: "x"', {"W": "unnamed portal parameter $1"}),
        ("22P02", 'invalid input value for enum color: "x"', {"W": "portal \"a\" parameter $12 = 'x'"}),
        ("42601", "INSERT has more expressions than target columns", {}),
        ("42601", 'multiple assignments to same column "name"', {}),
        ("42703", 'column "nope" specified in USING clause does not exist in left table', {}),
    ],
)
def test_what_quotes_the_statement_or_its_parameters_stays(state: str, text: str, more: dict[str, str]) -> None:
    told = fields(passed_problem(b"E", body(S="ERROR", V="ERROR", C=state, M=text, **more), None, scrub=True))
    assert told["M"] == text


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("22P02", {"W": "COPY people, line 1, column id"}),
        ("22P02", {"W": "unnamed portal with parameters: $1 = 'x'"}),
        ("22P02", {"W": 'unnamed portal parameter $1\nSQL function "tell" statement 1'}),
        ("22P02", {"P": "8", "W": 'SQL function "tell" statement 1'}),
        ("22P02", {"p": "8", "q": "select 1"}),
        ("23514", {"P": "8"}),
        ("42601", {}),
    ],
)
def test_what_is_said_of_values_as_a_statement_runs_does_not(state: str, more: dict[str, str]) -> None:
    told = fields(passed_problem(b"E", body(S="ERROR", V="ERROR", C=state, M=SECRET, **more), None, scrub=True))
    assert SECRET not in told["M"]


@pytest.mark.parametrize("state", ["42P01", "42501", "57014", "55P03", "25001", "08006", "P0001"])
def test_code_gives_what_it_says_any_state(state: str) -> None:
    said = body(S="ERROR", V="ERROR", C=state, M=SECRET, P="8", W="PL/pgSQL function tell() line 1 at RAISE")
    told = fields(passed_problem(b"E", said, None, scrub=True))
    assert SECRET not in told["M"]
    assert "withheld" in told["M"]
    own = body(S="ERROR", V="ERROR", C="57014", M="canceling statement", W="COPY people, line 1")
    assert fields(passed_problem(b"E", own, None, scrub=True))["M"] == "canceling statement"


def test_what_is_not_scrubbed_passes_byte_by_byte() -> None:
    whole = body(S="ERROR", V="ERROR", C="23505", M="dup", D="Key (id)=(1)", n="pk")
    assert passed_problem(b"E", whole, (), scrub=False) == codec.message(b"E", whole)


def test_a_problem_with_a_position_keeps_the_order_of_its_fields() -> None:
    whole = body(S="ERROR", V="ERROR", C="42703", M="x", P="8", F="parse_relation.c", L="3854")
    assert passed_problem(b"E", whole, ((0, 0, 20),), scrub=False) == codec.message(b"E", whole)


def test_positions_are_mapped_or_dropped() -> None:
    edits = ((0, 0, 10), (10, 12, 0), (40, 20, 5))
    for position, own in ((1, 1), (10, 10), (11, 13), (40, 13), (41, 21), (45, 25)):
        error = body(S="ERROR", V="ERROR", C="42703", M="x", P=str(position))
        assert fields(passed_problem(b"E", error, edits, scrub=False))["P"] == str(own)
    for position, known in (("46", edits), ("0", edits), ("-1", edits), ("x", edits), ("41", None)):
        error = body(S="ERROR", V="ERROR", C="42703", M="x", P=position)
        assert "P" not in fields(passed_problem(b"E", error, known, scrub=False))


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("TimeZone", "Europe/Berlin", True),
        ("server_version", "18.6 (Debian 18.6-1)", True),
        ("application_name", "x", False),
        ("is_superuser", "on", False),
        ("session_authorization", "app", False),
        ("TimeZone", "<b>", False),
        ("DateStyle", "x" * 65, False),
        ("TimeZone", "é", False),
    ],
)
def test_statuses_are_allow_listed_by_name_and_value(name: str, value: str, passes: bool) -> None:
    assert passes_status(name, value) is passes


def test_a_denial_names_its_rules_and_the_next_step() -> None:
    told = fields(denial("42501", "no", ("r1", "r2"), "ask", 7).encoded())
    assert told == {
        "S": "ERROR",
        "V": "ERROR",
        "C": "42501",
        "M": "airlock: no",
        "D": "rules: r1, r2",
        "H": "ask",
        "P": "7",
    }


def test_a_problem_cannot_forge_fields() -> None:
    told = fields(denial("42501", "a\0Hforged", (), None).encoded())
    assert "H" not in told
