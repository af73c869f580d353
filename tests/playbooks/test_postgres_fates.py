"""What is said of an approved run that is not kept: it failed, was rolled back later, or nobody heard."""

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import ClientGone
from broker.protocols.postgres.ruling import Ruling
from broker.sessions.holds import Released
from broker.sql.model import Control
from tests.playbooks.held_play import RUN, Q, answer, ask, held
from tests.playbooks.postgres_play import BOUND, PARSED, Play, bind, complete, error, permitted, ready


def undone(play: Play) -> list[str]:
    """What was said of the approved statement's end."""
    return [note["outcome"] for note in play.notes if note.get("hold") == "h1"]


def ending(sql: str) -> Ruling:
    """Inserts are asked about; transactions and savepoints are what they say."""
    control = {
        "begin": Control.BEGIN,
        "commit": Control.COMMIT,
        "rollback": Control.ROLLBACK,
        "savepoint": Control.SAVEPOINT,
        "release": Control.RELEASE,
        "back": Control.ROLLBACK_TO,
    }.get(sql)
    return permitted(sql, controls=[(control, "s", "")]) if control else ask(sql)


def ran(*before: str) -> Play:
    """An approved insert has run in a transaction."""
    play = Play(ending).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    for sql in before:
        play.client(codec.query(sql)).upstream(complete(sql.upper()), ready("T"))
    answer(play.client(Q), Released("h1"))
    return play.upstream(complete("INSERT 0 1"), ready("T"))


@pytest.mark.parametrize(
    ("before", "after", "tag", "said"),
    [
        ((), ("commit",), "COMMIT", []),
        ((), ("rollback",), "ROLLBACK", ["rolled_back"]),
        ((), ("commit",), "ROLLBACK", ["rolled_back"]),
        (("savepoint",), ("back", "commit"), "COMMIT", ["rolled_back"]),
        (("savepoint",), ("release", "commit"), "COMMIT", []),
        (("savepoint",), ("release", "rollback"), "ROLLBACK", ["rolled_back"]),
    ],
)
def test_it_is_said_when_an_approved_run_is_rolled_back(
    before: tuple[str, ...], after: tuple[str, ...], tag: str, said: list[str]
) -> None:
    play = ran(*before)
    assert undone(play) == []
    for sql in after:
        last = sql == after[-1]
        play.client(codec.query(sql)).upstream(complete(tag if last else sql.upper()), ready("I" if last else "T"))
    assert undone(play) == said
    play.hear(ClientGone(play.at))
    assert undone(play) == said


def test_a_transaction_that_is_open_when_its_session_ends_is_rolled_back_with_it() -> None:
    assert undone(ran().hear(ClientGone(9.0))) == ["rolled_back"]


def test_nothing_is_claimed_of_a_commit_that_nobody_heard_of() -> None:
    assert undone(ran().client(codec.query("commit")).hear(ClientGone(9.0))) == ["unknown"]
    assert undone(answer(held(), Released("h1")).hear(ClientGone(9.0))) == ["unknown"]


def test_it_is_said_when_an_approved_run_fails_or_never_begins() -> None:
    assert undone(answer(held(), Released("h1")).upstream(error(), ready())) == ["failed"]
    play = held(codec.parse("", "insert"), bind(""), codec.execute(""), codec.SYNC)
    answer(play, Released("h1"))
    assert undone(play.upstream(error(), ready())) == ["not_run"]
    late = held(codec.parse("", "insert"), RUN)
    answer(late, Released("h1")).upstream(PARSED, BOUND, complete("INSERT 0 1"), error("23505"), ready())
    assert undone(late) == ["rolled_back"]
    # The session ends while the approval's use is on its way to the disk: nothing was sent.
    unsent = Play(ask, slow=True).client(Q)
    assert undone(answer(unsent, Released("h1")).hear(ClientGone(9.0))) == ["not_run"]
    assert unsent.outcomes() == [("q1", "cut")]
