"""What is wrong with an upstream, as an error says it to operators and in a person's words."""

from __future__ import annotations

import errno
import socket
import ssl

import asyncpg

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres.login import LoginFailed
from broker.transport.stream import PeerGone

_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (ConnectionRefusedError, "it refuses connections"),
    (
        (ConnectionError, PeerGone, asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError),
        "it closed the connection",
    ),
    (TimeoutError, "no answer in time"),
    (socket.gaierror, "its host name is not known"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ssl.SSLError, "no secure connection to it can be made"),
    (asyncpg.CannotConnectNowError, "it is starting up or shutting down"),
    (asyncpg.TooManyConnectionsError, "it has no connection left"),
    (asyncpg.InvalidAuthorizationSpecificationError, "it does not let the broker in"),
    (asyncpg.InvalidCatalogNameError, "its database is not there"),
)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
_LOGIN = {"53300": "it has no connection left", "57P03": "it is starting up or shutting down"}
"""SQLSTATEs that a failed login begins with, where it is not about being let in."""


def unavailable(error: BaseException) -> UpstreamUnavailable:
    """Make the error that says to operators what happened, and to everybody what it means."""
    plain = plainly(error)
    text = (str(error) or str(error.__doc__ or "")).strip().partition("\n")[0]
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return UpstreamUnavailable(message, plain) if plain else UpstreamUnavailable(message)


def plainly(error: BaseException) -> str:
    """Say in a person's words why an upstream gives no session; empty where there are no better words."""
    if isinstance(error, LoginFailed):
        return _LOGIN.get(str(error).partition(" ")[0], "it does not let the broker in")
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return "it takes no encrypted connection"
    for kinds, words in _KINDS:
        if isinstance(error, kinds):
            return words
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return "the network does not reach it"
    return ""
