"""How clients come in, and who does not: security.md A1 through the real listener."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import asyncpg
import pytest

from broker.protocols.postgres import codec
from broker.sessions.model import REPLACED
from policies.engine.load import read_texts
from tests.integration.postgres_world import Raw, endpoint, enter, kinds, make_world, problem, psql, raw, still_serves
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server

LOOPS = ("uvloop", "asyncio")


@pytest.fixture
async def served(wheel_postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    async with serving(tmp_path, make_world(wheel_postgres)) as broker:
        yield broker


async def test_plain_text_is_refused_before_any_ticket_is_shown(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(), "select 1", sslmode="disable")
    assert "FATAL:  airlock: this connection is not encrypted" in errors
    assert "sslmode=require" in errors


async def test_clients_of_this_machine_may_do_without_tls_where_an_operator_says_so(
    wheel_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_PLAINTEXT", "loopback")
    async with serving(tmp_path, make_world(wheel_postgres)) as broker:
        ticket = broker.ticket()
        assert (await psql(ticket, "select 1", sslmode="disable"))[:2] == (0, "1\n")
        # A guess proves nothing here either, and whoever asks for TLS has it, bound to the ticket's proof.
        wrong = await psql(replace(ticket, password="x" * 52), "select 1", sslmode="disable")
        assert "no ticket opens with" in wrong[2]
        assert (await psql(ticket, "select 1", channel_binding="require"))[:2] == (0, "1\n")
        unbound = await psql(ticket, "select 1", sslmode="disable", channel_binding="require")
        assert "channel binding" in unbound[2]
        with raw(broker.port) as client:
            client.send(codec.request(codec.GSSENC_REQUEST))
            assert await asyncio.to_thread(client.receive, 1) == b"N"
            client.send(codec.startup([("user", ticket.user), ("database", ticket.database)]))
            offered = await asyncio.to_thread(client.message)
            assert offered == codec.Frame(ord("R"), b"\0\0\0\nSCRAM-SHA-256\0\0")


async def test_bytes_sent_ahead_of_tls_end_the_connection(served: TestBroker) -> None:
    ticket = served.ticket()
    startup = codec.startup([("user", ticket.user), ("database", ticket.database)])
    with raw(served.port) as client:
        client.send(codec.request(codec.SSL_REQUEST) + startup)
        assert await asyncio.to_thread(client.rest) in (b"", b"S")
    await still_serves(served)


async def test_gss_is_refused_once_and_then_tls_works(served: TestBroker) -> None:
    def gss(client: Raw) -> bytes:
        client.send(codec.request(codec.GSSENC_REQUEST))
        return client.receive(1)

    ticket = served.ticket()
    with raw(served.port) as client:
        assert await asyncio.to_thread(gss, client) == b"N"
        assert kinds(await asyncio.to_thread(enter, client, ticket)).endswith("Z")
    with raw(served.port) as client:
        assert await asyncio.to_thread(gss, client) == b"N"
        assert await asyncio.to_thread(gss, client) == b""
    for second in (codec.SSL_REQUEST, codec.GSSENC_REQUEST):
        with raw(served.port) as client:
            await asyncio.to_thread(client.secure)
            client.send(codec.request(second))
            assert await asyncio.to_thread(client.rest) == b""


async def test_direct_tls_needs_its_protocol_named(served: TestBroker) -> None:
    ticket = served.ticket()

    def attempt(client: Raw, alpn: list[str] | None) -> str:
        try:
            client.secure(alpn, direct=True)
            client.start([("user", ticket.user), ("database", ticket.database)])
            return kinds([client.message()])
        except (OSError, EOFError):
            return ""

    for alpn, said in ((["postgresql"], "R"), (None, ""), (["http/1.1"], "")):
        with raw(served.port) as client:
            assert await asyncio.to_thread(attempt, client, alpn) == said, alpn


REFUSED = {
    "options": (
        "-c default_transaction_read_only=off",
        "settings",
        "default_transaction_read_only cannot be set to that value",
    ),
    "replication": ("true", "startup.replication", "replication does not pass"),
    "search_path": ('"evil', "settings", 'invalid value for parameter "search_path": ""evil"'),
    "standard_conforming_strings": ("off", "settings", "cannot be set to that value"),
    "row_security": ("off", "settings", "row_security cannot be set to that value"),
    "ext.foo": ("bar", "default-setting", "ext.foo is a setting of an application's own, and no rule names it"),
    "role": ("postgres", "settings", "role is pinned"),
    "client_encoding": ("SJIS", "startup.encoding", "only UTF8"),
    "TimeZone": ("x'; drop", "settings", "invalid value for parameter"),
    "extra_float_digits": ("99", "settings", "outside the valid range"),
    "lock_timeout": ("999999999d", "settings", 'invalid value for parameter "lock_timeout"'),
    "jit": ("'off'; drop", "settings", "jit cannot be set to that value"),
    "client_min_messages": ("debug5", "settings", "client_min_messages cannot be set to that value"),
}


async def test_startup_parameters_outside_the_list_are_refused(served: TestBroker, subtests: pytest.Subtests) -> None:
    for name, (value, rule, message) in REFUSED.items():
        with subtests.test(name):
            with raw(served.port) as client:
                answer = (await asyncio.to_thread(enter, client, served.ticket(), (name, value)))[0]
            assert problem(answer)["S"] == "FATAL"
            assert problem(answer)["D"] == f"rules: {rule}"
            assert message in problem(answer)["M"]
            assert problem(answer)["H"]
            # That the upstream takes no such value is nothing that is wrong with the upstream.
            assert not served.recorder.of("upstream.failed")
            await served.until(lambda: not served.live.sessions)


async def test_what_may_be_set_may_be_asked_for_at_startup(served: TestBroker) -> None:
    asked = {"jit": "off", "enable_seqscan": "off", "client_min_messages": "warning", "IntervalStyle": "iso_8601"}
    more = {"default_transaction_isolation": "repeatable read", "geqo": "off", "lock_timeout": "5s"}
    more |= {"default_transaction_read_only": "on", "row_security": "on"}
    words = [f"--{name.replace('_', '-')}={value}".replace(" ", r"\ ") for name, value in more.items()]
    options = {**asked, "options": " ".join(["-c jit=on -cTimeZone=Asia/Tokyo -c application_name=batch", *words])}
    connection = await asyncpg.connect(**served.ticket().asyncpg(), server_settings=options)
    try:
        shown = {**asked, **more, "TimeZone": "Asia/Tokyo"}
        assert {name: await connection.fetchval(f"show {name}") for name in shown} == shown
        await connection.execute("set timezone to 'UTC'; reset all")
        assert await connection.fetchval("show timezone") == "Asia/Tokyo"
        assert connection.get_settings().application_name == "batch"
    finally:
        await connection.close()
    assert served.recorder.of("session.opened")[0]["application"] == "batch"


async def test_encodings_but_utf8_are_refused_and_its_names_accepted(served: TestBroker) -> None:
    for value in ("GBK", "BIG5", "GB18030", "UHC", "JOHAB", "LATIN1"):
        with raw(served.port) as client:
            answer = (await asyncio.to_thread(enter, client, served.ticket(), ("client_encoding", value)))[0]
        assert problem(answer)["C"] == "22023"
    for value in ("UTF-8", "utf8", "'unicode'", "SQL_ASCII"):
        with raw(served.port) as client:
            frames = await asyncio.to_thread(enter, client, served.ticket(), ("client_encoding", value))
        assert codec.string("client_encoding") + codec.string("UTF8") in [frame.body for frame in frames]


async def test_doubled_keys_and_other_versions_are_refused(served: TestBroker) -> None:
    ticket = served.ticket()
    with raw(served.port) as client:
        answer = (await asyncio.to_thread(enter, client, ticket, ("user", "postgres")))[0]
    assert "startup.duplicate" in problem(answer)["D"]
    for version in (0x0002_0000, 0x0004_0000):
        with raw(served.port) as client:
            await asyncio.to_thread(client.secure)
            client.start([("user", ticket.user)], version)
            assert "startup.protocol" in problem(await asyncio.to_thread(client.message))["D"]


async def test_a_startup_packet_that_does_not_read_is_answered(served: TestBroker) -> None:
    user = codec.string("user") + codec.string(served.ticket().user)
    for pairs, why in (
        (user + codec.string("application_name") + b"caf\xe9\0\0", "invalid byte sequence for encoding UTF8"),
        (user + b"\0junk\0", "bytes after its end"),
        (user + b"database", "a string has no end"),
    ):
        with raw(served.port) as client:
            await asyncio.to_thread(client.secure)
            body = codec.PROTOCOL_3_0.to_bytes(4, "big") + pairs
            client.send((len(body) + 4).to_bytes(4, "big") + body)
            told = problem(await asyncio.to_thread(client.message))
            assert (told["S"], told["C"]) == ("FATAL", "08P01")
            assert why in told["M"]


async def test_later_minor_versions_and_extensions_are_negotiated_down(served: TestBroker) -> None:
    ticket = served.ticket()
    cases = ((0x0003_270F, []), (0x0003_0002, [("_pq_.x", "1")]), (codec.PROTOCOL_3_0, [("_pq_.x", "1")]))
    for version, more in cases:
        with raw(served.port) as client:
            await asyncio.to_thread(client.secure)
            client.start([("user", ticket.user), ("database", ticket.database), *more], version)
            told = await asyncio.to_thread(client.message)
            assert chr(told.type) == "v"
            assert struct.unpack_from(">II", told.body) == (min(version, 0x0003_0002), len(more))
            assert chr((await asyncio.to_thread(client.prove, ticket.password)).type) == "R"
            assert kinds(await asyncio.to_thread(client.until, "Z")).endswith("KZ")


async def test_protocol_3_2_is_spoken(served: TestBroker) -> None:
    ticket = served.ticket()
    with raw(served.port) as client:
        await asyncio.to_thread(client.secure)
        client.start([("user", ticket.user), ("database", ticket.database)], 0x0003_0002)
        assert chr((await asyncio.to_thread(client.prove, ticket.password)).type) == "R"
        assert kinds(await asyncio.to_thread(client.until, "Z")).endswith("KZ")


async def test_lying_startup_lengths_close_the_connection(served: TestBroker) -> None:
    for length, secure in product([0, 4, 7, 10_001, 0x7FFF_FFFF, 0xFFFF_FFFF], [False, True]):
        with raw(served.port) as client:
            if secure:
                await asyncio.to_thread(client.secure)
            client.send(length.to_bytes(4, "big") + b"\0\3\0\0")
            assert await asyncio.to_thread(client.rest) == b"", (length, secure)


async def test_wrong_and_unknown_tickets_cannot_be_told_apart(served: TestBroker) -> None:
    ticket = served.ticket()
    told = []
    for user in (ticket.user, "alice.none", "mallory.x1"):
        salts = set()
        for _ in range(2):
            with raw(served.port) as client:
                await asyncio.to_thread(client.secure)
                client.start([("user", user), ("database", ticket.database)])
                await asyncio.to_thread(client.message)
                first = b"n,,n=,r=abcdefghijklmnop"
                body = codec.string("SCRAM-SHA-256") + len(first).to_bytes(4, "big") + first
                client.send(codec.message(b"p", body))
                challenge = (await asyncio.to_thread(client.message)).body.decode()
                salts.add(challenge.split("s=")[1])
                nonce = challenge[4:].split(",")[0].removeprefix("r=")
                client.send(codec.message(b"p", f"c=biws,r={nonce},p={'A' * 43}=".encode()))
                answer = problem(await asyncio.to_thread(client.message))
        assert len(salts) == 1
        told.append((answer["C"], answer["M"].replace(user, "USER"), answer["H"]))
    assert len(set(told)) == 1
    assert told[0][0] == "28P01"
    assert not served.recorder.of("session.opened")


async def test_expired_and_foreign_tickets_are_told_why_once_proved(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(refusal="this access has expired"), "select 1")
    assert "airlock: this access has expired" in errors
    assert "/access prod-db read 30m" in errors
    _, _, errors = await psql(served.ticket(), "select 1", dbname="other-db")
    assert "this ticket is for prod-db, not for `other-db`" in errors
    late = served.ticket(lasts=-1)
    assert "this access is over" in (await psql(late, "select 1"))[2]
    assert [entry["reason"] for entry in served.recorder.of("session.refused")] == [
        "this access has expired",
        "another database",
        "this access is over",
    ]


async def test_a_replaced_ticket_points_at_the_newer_line_and_not_at_asking_again(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(refusal=REPLACED), "select 1")
    assert "this ticket was replaced by a newer one" in errors
    assert "HINT:  use the newest line in your direct message, or press New line there" in errors
    assert "ask again" not in errors


async def test_reconnecting_to_another_database_says_what_would_help(served: TestBroker) -> None:
    _, output, errors = await psql(served.ticket(), stdin="\\c otherdb\n")
    assert "this ticket is for prod-db" in errors
    assert output == ""


async def test_a_ticket_opens_its_database_by_its_own_name_where_that_is_no_resource(served: TestBroker) -> None:
    assert await psql(served.ticket(), "select current_database()", dbname="shop") == (0, "shop\n", "")
    other = """resources:
  shop:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: other}
    roles: {read: {credential: "file:x", relations: ["public.*"]}}"""
    policy = POLICY.replace("resources:", other)
    served.policies.current = read_texts({"test.yaml": policy})
    _, _, errors = await psql(served.ticket(), "select 1", dbname="shop")
    assert "this ticket is for prod-db, not for `shop`" in errors


async def test_no_session_without_a_reaper(served: TestBroker) -> None:
    served.leases.alive = False
    assert "nothing would end it if the broker died" in (await psql(served.ticket(), "select 1"))[2]


async def test_an_upstream_that_is_down_is_said_and_recorded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    from broker.sessions.model import Source
    from broker.sessions.ports import Endpoint

    gone = Endpoint(
        "127.0.0.1", port, "shop", "app", "x", "disable", None, Source("127.0.0.1", port, "shop", "disable", "file:x")
    )
    async with serving(tmp_path, gone) as broker:
        _, _, errors = await psql(broker.ticket(), "select 1")
        assert "airlock: prod-db cannot be used now: it refuses connections" in errors
        failed = {"resource": "prod-db", "reason": "it refuses connections"}
        assert broker.recorder.of("upstream.failed") == [failed]
        assert [one["reason"] for one in broker.recorder.of("session.refused")] == ["upstream down"]
        assert not broker.live.sessions


async def test_an_upstream_with_a_wrong_credential_is_an_upstream_that_failed(
    wheel_postgres: Server, tmp_path: Path
) -> None:
    make_world(wheel_postgres)
    async with serving(tmp_path, endpoint(wheel_postgres, "app", password="wrong-password")) as broker:
        _, _, errors = await psql(broker.ticket(), "select 1")
        assert "airlock: prod-db cannot be used now: it does not let the broker in" in errors
        assert "`airlock doctor prod-db` says more" in errors
        assert "wrong-password" not in errors + str(broker.recorder.entries)
        assert broker.recorder.of("upstream.failed")[0]["reason"] == "it does not let the broker in"


async def test_names_of_applications_are_sanitised(served: TestBroker) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket(), ("application_name", "a\nb\x1b[31m<@U1>" + "x" * 4000))
    (opened,) = served.recorder.of("session.opened")
    assert opened["application"].startswith("a?b?[31m<@U1>x")
    assert len(opened["application"]) == 64


async def test_the_certificate_and_key_are_kept_and_private(served: TestBroker) -> None:
    home = served.broker.home
    assert os.stat(home / "tls.key").st_mode & 0o077 == 0
    assert os.stat(home / "postgres.secret").st_mode & 0o077 == 0
