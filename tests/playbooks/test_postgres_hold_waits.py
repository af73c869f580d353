"""How long a statement waits for its review: not for long where others may wait for its transaction's locks."""

import pytest

from broker.protocols.postgres import codec
from broker.sessions.holds import Refused
from broker.sql.model import Control
from tests.playbooks.held_play import Q, answer, ask
from tests.playbooks.postgres_play import PARSED, POISON, Play, bind, complete, error, permitted, ready


def test_in_a_transaction_a_refusal_fails_both_sides_and_the_wait_is_short() -> None:
    play = Play(ask).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.to_upstream(), play.to_client()
    play.client(Q)
    assert (play.holds[0].facts.seconds, play.holds[0].facts.in_transaction) == (60.0, True)
    answer(play, Refused("h1", "Bob", ""))
    assert play.to_upstream() == POISON + codec.SYNC
    play.upstream(error("34000"), ready("E"))
    assert b"Bob refused" in play.to_client()
    assert b"25P02" in play.client(Q).upstream(error("34000"), ready("E")).to_client()
    assert len(play.holds) == 1


@pytest.mark.parametrize(
    ("sent", "controls", "seconds"),
    [
        (["begin"], [(Control.BEGIN, "", "")], 600.0),
        (["select 1; begin"], [(Control.NONE, "", ""), (Control.BEGIN, "", "")], 60.0),
        (["begin", "begin"], [(Control.BEGIN, "", "")], 60.0),
        (["begin", "select 1"], [(Control.BEGIN, "", "")], 60.0),
    ],
)
def test_a_transaction_that_has_only_begun_keeps_no_lock_and_the_wait_is_as_long_as_elsewhere(
    sent: list[str], controls: list[tuple[Control, str, str]], seconds: float
) -> None:
    play = Play(lambda sql: permitted(sql, controls=controls) if "begin" in sql else ask(sql))
    for sql in sent:
        play.client(codec.query(sql)).upstream(*(complete(part) for part in sql.split(";")), ready("T"))
    play.client(Q)
    assert (play.holds[0].facts.seconds, play.holds[0].facts.in_transaction) == (seconds, True)


def test_what_a_flush_has_sent_keeps_the_wait_short() -> None:
    play = Play(ask).client(codec.parse("", "insert"), codec.message(b"H")).upstream(PARSED)
    play.client(bind(""), codec.execute(""), codec.SYNC)
    assert (play.holds[0].facts.seconds, play.holds[0].facts.in_transaction) == (60.0, True)
