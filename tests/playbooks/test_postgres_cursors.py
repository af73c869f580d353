"""Cursors: one is there as long as the upstream says so, and what is fetched from it is what it was declared as."""

import pytest

from broker.protocols.postgres import codec, registry
from broker.protocols.postgres.events import Close
from broker.protocols.postgres.ruling import Ruling
from broker.protocols.postgres.states import State
from broker.sessions.model import CloseReason
from broker.sql.model import Control
from tests.playbooks.postgres_play import (
    BOUND,
    NO_DATA,
    PARSED,
    ROW,
    SUSPENDED,
    Play,
    bind,
    columns,
    complete,
    describe,
    error,
    permitted,
    ready,
)


def cursors(sql: str) -> Ruling:
    match sql.split():
        case ["declare", name, *how]:
            return permitted(sql, controls=[(Control.DECLARE_HELD if how else Control.DECLARE, name, "")])
        case ["close", *name]:
            return permitted(sql, controls=[(Control.CLOSE, "".join(name), "")])
        case ["commit"]:
            return permitted(sql, controls=[(Control.COMMIT, "", "")])
        case ["rollback"]:
            return permitted(sql, controls=[(Control.ROLLBACK, "", "")])
    return permitted(sql)


def describes(play: Play, name: str) -> bool:
    """Whether a portal's description is asked of the upstream, which then has none."""
    play.to_upstream(), play.to_client()
    play.client(describe("P", name), codec.SYNC)
    asked = describe("P", name) in play.to_upstream()
    play.upstream(*([NO_DATA] if asked else []), ready("T"))
    return asked


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ([("declare c", "DECLARE CURSOR", "T")], True),
        ([("declare c", None, "E")], False),
        ([("declare c", "DECLARE CURSOR", "T"), ("close c", "CLOSE CURSOR", "T")], False),
        ([("declare c", "DECLARE CURSOR", "T"), ("close c", None, "E")], True),
        ([("declare c", "DECLARE CURSOR", "T"), ("close d", "CLOSE CURSOR", "T")], True),
        ([("declare c", "DECLARE CURSOR", "T"), ("close", "CLOSE CURSOR ALL", "T")], False),
        ([("declare c", "DECLARE CURSOR", "T"), ("commit", "COMMIT", "I")], False),
        ([("declare c", "DECLARE CURSOR", "T"), ("commit", "COMMIT", "T")], False),
        ([("declare c held", "DECLARE CURSOR", "T"), ("commit", "COMMIT", "T")], True),
        ([("declare c held", "DECLARE CURSOR", "T"), ("commit", "ROLLBACK", "I")], False),
        ([("declare c held", "DECLARE CURSOR", "T"), ("rollback", "ROLLBACK", "T")], False),
        ([("declare c held", "DECLARE CURSOR", "T"), ("commit", None, "I")], False),
        ([("declare c held", "DECLARE CURSOR", "I"), ("rollback", "ROLLBACK", "I")], True),
        ([("declare c held", "DECLARE CURSOR", "I"), ("close", "CLOSE CURSOR ALL", "I")], False),
    ],
)
def test_a_cursor_is_there_as_long_as_the_upstream_says_so(
    script: list[tuple[str, str | None, str]], left: bool
) -> None:
    play = Play(cursors)
    for sql, tag, status in script:
        play.client(codec.query(sql)).upstream(error() if tag is None else complete(tag), ready(status))
    assert describes(play, "c") is left


def test_a_cursor_of_a_message_that_failed_behind_it_is_not_there() -> None:
    controls = [(Control.DECLARE_HELD, "c", ""), (Control.NONE, "", "")]
    play = Play(lambda sql: permitted(sql, controls=controls if ";" in sql else None))
    play.client(codec.query("declare c held; a")).upstream(complete("DECLARE CURSOR"), error(), ready())
    assert describes(play, "c") is False


def test_what_describes_a_cursor_waits_for_the_answer_that_made_it() -> None:
    play = Play(cursors).client(codec.query("declare c held"), describe("P", "c"), codec.SYNC)
    assert play.machine.state is State.DRAINING
    play.upstream(complete("DECLARE CURSOR"), ready())
    assert play.to_upstream() == codec.query("declare c held") + describe("P", "c") + codec.SYNC


def test_the_description_of_a_cursor_trips_over_a_masked_field() -> None:
    play = Play(lambda sql: permitted(sql, tripwire=[(7, 3)], controls=[(Control.DECLARE, "c", "")]))
    play.client(codec.query("declare c")).upstream(complete("DECLARE CURSOR"), ready("T"))
    play.client(describe("P", "c"), codec.SYNC).upstream(columns(("x", 7, 3)))
    assert isinstance(play.said[-1], Close)
    assert play.said[-1].reason is CloseReason.TRIPWIRE


def test_close_all_ends_the_portals_of_the_protocol_too() -> None:
    play = Play(cursors).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(codec.parse("", "select 1"), bind("", "p"), codec.execute("p", 1), codec.SYNC)
    play.upstream(PARSED, BOUND, ROW, SUSPENDED, ready("T"))
    play.client(codec.query("close")).upstream(complete("CLOSE CURSOR ALL"), ready("T"))
    assert ("q2", "ok") in play.outcomes()
    assert describes(play, "p") is False


def test_a_cursor_is_fetched_from_and_not_executed() -> None:
    play = Play(cursors).client(codec.query("declare c held")).upstream(complete("DECLARE CURSOR"), ready())
    play.to_client()
    assert b"0A000" in play.client(codec.execute("c")).to_client()


def test_cursors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_ENTRIES", 200)
    play = Play(cursors)
    for number in range(200):
        play.client(codec.query(f"declare c{number} held")).upstream(complete("DECLARE CURSOR"), ready())
    play.to_client()
    assert b"53400" in play.client(codec.query("declare one_more held")).to_client()
