"""SCRAM holds on both sides, against scramp as an independent implementation, and refuses what is bent."""

import base64

import pytest
from scramp import ScramClient as OtherClient

from broker.protocols.postgres.scram import (
    PLAIN,
    PLUS,
    ScramClient,
    ScramFailed,
    ScramServer,
    fake_verifier,
    make_verifier,
    salted_password,
)

SALT = b"sixteen bytes !!"
VERIFIER = make_verifier("pencil", SALT, 4096)


def exchange(password: str, client_binding: bytes | None, server_binding: bytes | None) -> None:
    client, server = ScramClient("clientnonce", client_binding), ScramServer(VERIFIER, "servernonce", server_binding)
    salt, iterations = client.challenged(server.first(client.mechanism, client.first()))
    client.verify(server.final(client.final(salted_password(password, salt, iterations))))


@pytest.mark.parametrize("binding", [None, b"hash of the certificate"])
def test_both_sides_agree(binding: bytes | None) -> None:
    exchange("pencil", binding, binding)
    with pytest.raises(ScramFailed):
        exchange("pen", binding, binding)


def test_another_certificate_is_found_out() -> None:
    with pytest.raises(ScramFailed):
        exchange("pencil", b"of the one in the middle", b"hash of the certificate")


def test_an_independent_client_gets_in() -> None:
    server = ScramServer(VERIFIER, "servernonce", b"bound")
    client = OtherClient([PLAIN], "anyone", "pencil")
    client.set_server_first(server.first(PLAIN, client.get_client_first().encode()).decode())
    client.set_server_final(server.final(client.get_client_final().encode()).decode())


@pytest.mark.parametrize(
    ("mechanism", "first"),
    [
        ("SCRAM-SHA-1", b"n,,n=,r=abc"),
        (PLAIN, b""),
        (PLAIN, b"n,,n=,r="),
        (PLAIN, b"n,a=admin,n=,r=abc"),
        (PLAIN, b"n,,m=x,n=,r=abc"),
        (PLAIN, b"y,,n=,r=abc"),
        (PLAIN, b"p=tls-server-end-point,,n=,r=abc"),
        (PLUS, b"n,,n=,r=abc"),
        (PLUS, b"p=tls-unique,,n=,r=abc"),
        (PLAIN, b"\xff\xfe"),
        (PLAIN, b"n,,n=,r=" + b"x" * 300),
    ],
)
def test_bent_first_messages_are_refused(mechanism: str, first: bytes) -> None:
    with pytest.raises(ScramFailed):
        ScramServer(VERIFIER, "servernonce", b"bound").first(mechanism, first)


@pytest.mark.parametrize(
    "final",
    [
        b"",
        b"c=biws,r=clientnonceservernonce",
        b"c=biws,r=clientnonceservernonce,p=!!!",
        b"c=biws,r=clientnonceservernonce,p=",
        b"c=biws,r=other,p=" + base64.b64encode(bytes(32)),
        b"c=biws,r=clientnonceservernonce,p=" + base64.b64encode(bytes(32)),
        b"\xff,p=",
    ],
)
def test_bent_final_messages_are_refused(final: bytes) -> None:
    server = ScramServer(VERIFIER, "servernonce", b"bound")
    server.first(PLAIN, b"n,,n=,r=clientnonce")
    with pytest.raises(ScramFailed):
        server.final(final)


def test_a_proof_serves_once() -> None:
    server = ScramServer(VERIFIER, "servernonce", None)
    client = ScramClient("clientnonce")
    salt, iterations = client.challenged(server.first(PLAIN, client.first()))
    proof = client.final(salted_password("pencil", salt, iterations))
    server.final(proof)
    with pytest.raises(ScramFailed):
        server.final(proof)


@pytest.mark.parametrize(
    "challenge",
    [
        b"r=other,s=c2FsdA==,i=4096",
        b"r=clientnonce,s=c2FsdA==,i=4096",
        b"r=clientnonceX,s=c2FsdA==,i=1000000000",
        b"r=clientnonceX,s=c2FsdA==,i=1",
        b"r=clientnonceX,s=c2FsdA==,i=-4096",
        b"r=clientnonceX,s=c2FsdA==,i=4096999999999999",
        b"r=clientnonceX,s=!,i=4096",
        b"m=x,r=clientnonceX,s=c2FsdA==,i=4096",
        b"\xff",
    ],
)
def test_an_upstreams_bent_challenge_is_refused(challenge: bytes) -> None:
    with pytest.raises(ScramFailed):
        ScramClient("clientnonce").challenged(challenge)


def test_an_unknown_user_has_one_salt_and_no_password() -> None:
    one, same = fake_verifier("mallory", b"secret", 4096), fake_verifier("mallory", b"secret", 4096)
    assert one == same
    assert one.salt != fake_verifier("mallet", b"secret", 4096).salt
    assert len(one.salt) == 16
