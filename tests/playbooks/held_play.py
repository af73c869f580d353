"""A play in which inserts are held, and reviewers answer."""

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import HoldAnswered, HoldOpened
from broker.protocols.postgres.ruling import Ruling
from broker.protocols.postgres.states import State
from broker.sessions.holds import Answer
from policies.engine.decisions import Effect
from tests.playbooks.postgres_play import ASKING, Play, bind, permitted

Q = codec.query("insert")
RUN = bind("") + codec.execute("") + codec.SYNC


def ask(sql: str) -> Ruling:
    """Inserts are asked about."""
    changes = sql.startswith("insert")
    return permitted(sql, effect=Effect.WRITE if changes else Effect.READ, asking=ASKING if changes else None)


def held(*messages: bytes) -> Play:
    play = Play(ask).client(*(messages or (Q,)))
    assert play.machine.state is State.HELD
    play.hear(HoldOpened(play.holds[-1].token, 600, play.at))
    return play


def answer(play: Play, found: Answer) -> Play:
    return play.hear(HoldAnswered(play.holds[-1].token, found, play.at))
