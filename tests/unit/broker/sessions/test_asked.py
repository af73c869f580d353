"""What reviewers read of a held statement: the broker's own words are told from what its author wrote."""

import pytest

from broker.sessions.holds import Asked

SETTINGS = (("DateStyle", "German, DMY"), ("TimeZone", "UTC"))


def test_what_a_statement_runs_under_stands_before_it() -> None:
    asked = Asked("select 1", path=("a", "b"), settings=SETTINGS)
    assert asked.text == "-- under search_path = a, b\n-- under DateStyle = German, DMY\nselect 1"
    assert Asked("execute p", bodies=("select 1",)).text == "execute p\n\n-- which runs:\nselect 1"
    assert Asked("-- fix INC-42\nselect 1").text == "-- fix INC-42\nselect 1"


@pytest.mark.parametrize(
    "line",
    [
        "-- under search_path = staging",
        "\n--\n  -- under DateStyle = ISO, MDY",
        "-- behind a change of the schema, so that names may mean something else",
        "-- as it was sent:",
    ],
)
def test_words_of_the_authors_own_are_not_taken_for_the_brokers(line: str) -> None:
    sql = f"{line}\nupdate orders set total = 0"
    assert Asked(sql).text == f"-- as it was sent:\n{sql}"
    assert Asked(sql, settings=SETTINGS).text == f"-- under DateStyle = German, DMY\n-- as it was sent:\n{sql}"
