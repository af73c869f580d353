"""An upstream that fails: exact words for operators, a person's words for everybody."""

from __future__ import annotations

import errno
import socket

import asyncpg
import pytest

from broker.protocols.postgres.login import LoginFailed
from broker.protocols.postgres.outage import unavailable
from broker.transport.stream import PeerGone


@pytest.mark.parametrize(
    ("error", "plainly"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 5432)"), "it refuses connections"),
        (ConnectionResetError(104, "reset"), "it closed the connection"),
        (ConnectionError('PostgreSQL server at "h:1" rejected SSL upgrade'), "it takes no encrypted connection"),
        (PeerGone(), "it closed the connection"),
        (TimeoutError(), "no answer in time"),
        (socket.gaierror(-2, "Name or service not known"), "its host name is not known"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "the network does not reach it"),
        (asyncpg.InvalidPasswordError('password authentication failed for user "app"'), "it does not let the broker"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), "it is starting up or shutting down"),
        (LoginFailed("57P03 the database system is shutting down"), "it is starting up or shutting down"),
        (LoginFailed("28P01 password authentication failed"), "it does not let the broker in"),
        (LoginFailed("the upstream does not offer SCRAM-SHA-256"), "it does not let the broker in"),
        (asyncpg.InternalClientError("cannot switch to state 12"), "it closed the connection"),
        (asyncpg.InterfaceError("0x7f"), "the broker cannot work with it"),
    ],
)
def test_failure_is_said_in_words_without_classes_numbers_or_addresses(error: Exception, plainly: str) -> None:
    made = unavailable(error)
    assert made.plainly.startswith(plainly)
    assert not any(character.isdigit() for character in made.plainly)
    assert type(error).__name__ in str(made)
