"""What a client hears of its reviewers: whom it waits for, what they say, and why nothing came of it."""

from dataclasses import replace

import pytest

from broker.protocols.postgres.events import HoldOpened
from broker.sessions.holds import Abandoned, Answer, Refused, Released, TimedOut
from policies.engine.decisions import Effect, Need, Requirement
from tests.playbooks.held_play import Q, answer, held
from tests.playbooks.postgres_play import ASKING, Play, permitted


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Refused("h1", "Bob", "use staging\nfirst"), b"airlock: Bob refused this statement: use staging\nfirst\0"),
        (Refused("h1", "Bob", "la\x1b[2Jter\u202e"), rb"refused this statement: la\u{1b}[2Jter\u{202e}"),
        (TimedOut("h1"), b"airlock: nobody answered in time, so this statement was not run"),
        (Abandoned("h1", "shutdown"), b"airlock: canceled: the review is over, because the broker stops"),
        (Abandoned("h1", "recording"), b"the review is over, because it cannot be recorded"),
    ],
)
def test_the_end_of_a_review_is_told_in_words_that_a_terminal_shows(found: Answer, words: bytes) -> None:
    assert words in answer(held(), found).to_client()


def test_everybody_who_approved_is_named() -> None:
    assert (
        b"airlock: approved by Ann, Bob and Erin"
        in answer(held(), Released("h1", by=("Ann", "Bob", "Erin"))).to_client()
    )


def test_of_several_who_are_needed_some_may_have_answered() -> None:
    two = replace(ASKING, requirement=Requirement((Need(2, ("dbas",)),)))
    play = Play(lambda sql: permitted(sql, effect=Effect.WRITE, asking=two)).client(Q)
    assert b"airlock: not everybody who was needed answered in time" in answer(play, TimedOut("h1")).to_client()


def test_of_many_who_may_answer_a_few_are_named() -> None:
    many = replace(ASKING, names=tuple("ABCDEFGH"))
    play = Play(lambda sql: permitted(sql, effect=Effect.WRITE, asking=many)).client(Q)
    play.hear(HoldOpened(play.holds[-1].token, 600, play.at))
    assert b"waiting for 1 of dbas (A, B, C, D, E, F or 2 more) to review" in play.to_client()
