"""The demo's database as it is filled: an invented shop, roles with no more than they need, closed to all but TCP."""

import asyncio
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import psycopg
import pytest

from broker.adapters.endpoints import PolicyEndpoints
from broker.demo.owner import server_owner
from broker.protocols.postgres import OFFER
from broker.sessions.findings import Grade
from policies.engine.load import load
from tests.integration.demo_upstream import CREDENTIALS, Upstream, as_root
from tests.support.places import in_memory

POLICIES = Path(__file__).resolve().parents[2] / "policies"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """One that is only looked at."""
    path = Path(tempfile.mkdtemp(prefix="airlock-test-upstream-", dir=in_memory()))
    path.chmod(0o711)
    shared = Upstream(path / "state")
    shared.start()
    yield shared
    shared.stop()
    shutil.rmtree(path, ignore_errors=True)


def test_the_shop_is_big_enough_to_be_believed(upstream: Upstream) -> None:
    assert upstream.query("select count(*) >= 100000 from orders") == [(True,)]
    assert upstream.query("select count(*), count(distinct ssn), count(distinct email) from customers") == [
        (5000, 5000, 5000)
    ]
    assert upstream.query("select count(*) > 4000 from cards") == [(True,)]
    assert upstream.query("select count(*) = (select count(*) from orders) from payments") == [(True,)]
    assert upstream.query("select count(*) from orders", "staging-db-read") == [(200,)]


def test_the_shop_is_the_same_everywhere(upstream: Upstream) -> None:
    assert upstream.query("select name, ssn, phone, salary from customers where id = 1") == [
        ("Marta Ito", "931-60-4647", "+1 212 555 0102", 71100)
    ]
    assert upstream.query("select total, placed_at::date::text from orders where id in (1, 120000) order by id") == [
        (upstream.query("select sum(quantity * unit_price) from order_items where order_id = 1")[0][0], "2024-01-02"),
        (upstream.query("select amount from payments where order_id = 120000")[0][0], "2026-10-18"),
    ]


def test_invented_values_cannot_be_anybodys(upstream: Upstream) -> None:
    assert upstream.query("select count(*) from customers where ssn !~ '^9[0-9]{2}-[0-9]{2}-[0-9]{4}$'") == [(0,)]
    assert upstream.query(
        "select count(*) from customers where email !~ '@(example[.](com|net|org)|.*[.]example)$'"
    ) == [(0,)]
    assert upstream.query("select obj_description('customers'::regclass) like '%invented%'") == [(True,)]


def test_card_numbers_pass_the_check_that_detectors_make(upstream: Upstream) -> None:
    for (number,) in upstream.query("select number from cards limit 300"):
        doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(number))]
        assert sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_credentials_are_private_files_that_work(upstream: Upstream, credential: str) -> None:
    path = upstream.secrets / credential
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.read_text().count("\n") == 1
    assert upstream.query("select current_database()::text, current_user::text", credential) == [
        CREDENTIALS[credential]
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into orders (customer_id) values (1)",
        "update customers set name = 'x' where id = 1",
        "delete from orders where id = 1",
        "create table mine (id int)",
        "create temp table mine (id int)",
        "create schema mine",
        "create role mine",
    ],
)
def test_the_reading_role_can_only_read(upstream: Upstream, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        upstream.query(statement)


def test_the_writing_role_writes_rows_and_nothing_else(upstream: Upstream) -> None:
    changed = upstream.query(
        "insert into orders (customer_id, note) values (7, 'test') returning id", "staging-db-write"
    )
    assert changed == [(201,)]
    assert upstream.query("delete from orders where note = 'test' returning id", "staging-db-write") == changed
    for statement in ("drop table orders", "truncate orders", "create temp table mine (id int)", "set role postgres"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            upstream.query(statement, "staging-db-write")


def test_only_tcp_on_loopback_and_only_with_a_password(upstream: Upstream) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=upstream.port, user="airlock_read", password="wrong", dbname="shop")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=upstream.port, user="postgres", password="", dbname="postgres")
    assert upstream.query("select setting from pg_settings where name = 'listen_addresses'") == [("127.0.0.1",)]
    # An empty value of a superuser's setting reads as null to others; the files on disk say the same.
    assert not list(Path("/tmp").glob(f".s.PGSQL.{upstream.port}"))
    for address in _other_addresses():
        with socket.socket() as probe, pytest.raises(OSError):
            probe.connect((address, upstream.port))


def _other_addresses() -> set[str]:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()
    return {address for address in found if not address.startswith("127.")}


def test_the_superusers_password_is_private(upstream: Upstream) -> None:
    path = upstream.state / "superuser"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip().partition(":")[2] not in upstream.output()


@as_root
def test_under_root_the_server_runs_as_nobody(upstream: Upstream) -> None:
    pid = json.loads(upstream.ready.read_text())["pid"]
    owner = server_owner()
    assert owner is not None
    assert Path(f"/proc/{pid}").stat().st_uid == owner.uid
    assert (upstream.state / "data").stat().st_uid == owner.uid
    assert (upstream.state / "superuser").stat().st_uid == 0


def test_asyncpg_reads_the_shop_too(upstream: Upstream) -> None:
    async def read() -> Any:
        user, _, word = (upstream.secrets / "prod-db-read").read_text().strip().partition(":")
        connection = await asyncpg.connect(
            host="127.0.0.1", port=upstream.port, user=user, password=word, database="shop", ssl=False
        )
        try:
            return await connection.fetchval("select count(*) from customers")
        finally:
            await connection.close()

    assert asyncio.run(read()) == 5000


@pytest.mark.parametrize("role", ["read", "write"])
@pytest.mark.parametrize("resource", ["prod-db", "staging-db"])
async def test_the_doctor_finds_nothing_wrong_with_the_shop(
    upstream: Upstream, resource: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_DEMO_UPSTREAM_PORT", str(upstream.port))
    policies = SimpleNamespace(current=load(POLICIES))
    endpoint = PolicyEndpoints(policies, upstream.secrets).of(resource, role)
    found = await OFFER.examine(policies.current, resource, role, endpoint)
    assert [one for one in found if one.grade in (Grade.PROBLEM, Grade.WARNING)] == []
