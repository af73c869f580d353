"""Rulings that are kept, and for how long."""

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres.catalogues import Catalogues
from broker.protocols.postgres.inspector import Inspector, Matter
from broker.protocols.postgres.ruling import Denied, Permitted, Ruling, Subject
from broker.protocols.postgres.workers import Workers, decoded, encoded
from broker.sql.inspect import inspect
from policies.engine.load import read_texts
from tests.support.ports import FixedPolicies
from tests.unit.broker.sql.shop import CATALOGUE

POLICY = """
groups: {devs: ""}
people: {alice: {name: Alice, groups: [devs]}}
resources:
  prod-db:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: shop, tls: disable}
    roles: {read: {credential: "file:x", relations: ["public.*"]}}
statements:
  - {id: reads, decision: allow, effects: [read], when: {zone: UTC, hours: 09:00-18:00}}
"""


class Clock:
    moment = datetime(2026, 1, 5, 17, 59, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def seconds(self) -> float:
        return self.moment.timestamp()


class Shelf:
    def held(self, _: object) -> object:
        return CATALOGUE


def test_a_ruling_that_is_kept_is_not_given_when_its_hours_are_over() -> None:
    clock = Clock()
    policies = FixedPolicies(read_texts({"test.yaml": POLICY}))
    inspector = Inspector(policies, cast(Catalogues, Shelf()), cast(Workers, None), clock)
    matter = Matter(Subject("alice", "prod-db", "read"), cast(Any, None))

    def rule() -> Ruling:
        ruling = inspector.rule(matter, "select id from orders")
        assert not isinstance(ruling, Awaitable)
        return ruling

    first = rule()
    assert isinstance(first, Permitted)
    assert rule() is first
    clock.moment += timedelta(minutes=1)
    late = rule()
    assert isinstance(late, Denied)
    assert late.hint == "rule reads is for every day 09:00-18:00 UTC"
    assert rule() is late
    policies.current = read_texts({"test.yaml": POLICY.replace(", when: {zone: UTC, hours: 09:00-18:00}", "")})
    assert isinstance(rule(), Permitted)


def test_a_text_that_is_longer_than_any_may_be_is_refused_without_a_worker() -> None:
    policies = FixedPolicies(read_texts({"test.yaml": POLICY}))
    inspector = Inspector(policies, cast(Catalogues, Shelf()), cast(Workers, None), Clock())
    matter = Matter(Subject("alice", "prod-db", "read"), cast(Any, None))
    ruling = inspector.rule(matter, f"select '{'x' * 131_072}'")
    assert isinstance(ruling, Denied)
    assert (ruling.rules, ruling.sqlstate) == (("limit-length",), "54000")
    assert "xxx" not in ruling.text


def test_a_text_of_a_known_shape_is_ruled_on_as_if_it_were_new_until_the_rules_change() -> None:
    clock = Clock()
    policies = FixedPolicies(read_texts({"test.yaml": POLICY}))
    matter = Matter(Subject("alice", "prod-db", "read"), cast(Any, None))

    def fresh() -> Inspector:
        return Inspector(policies, cast(Catalogues, Shelf()), cast(Workers, None), clock)

    inspector = fresh()
    masked = "select ssn from customers where id = 1 limit 3"
    assert isinstance(inspector.rule(matter, masked), Permitted)
    assert inspector.known(matter, masked.replace("3", "3000")) == fresh().rule(matter, masked.replace("3", "3000"))
    for sql in ("select id from orders where id = 1", "select id from orders where id in (1, 2)", "delete from orders"):
        inspector.rule(matter, sql)
    other = "select id from orders where id = 123456"
    assert inspector.known(matter, other) == fresh().rule(matter, other)
    assert inspector.known(matter, "select id from orders where id in (1, 3)") is None
    assert inspector.known(matter, "select id from orders where id in (1, 2)") is not None
    clock.moment = Clock.moment + timedelta(minutes=1)
    assert inspector.known(matter, other) is None
    assert isinstance(inspector.rule(matter, other), Denied)
    clock.moment = Clock.moment
    assert inspector.known(matter, other) is not None
    policies.current = read_texts({"test.yaml": POLICY.replace("public", "archive")})
    assert inspector.known(matter, other) is None
    assert inspector.known(Matter(Subject("bob", "prod-db", "read"), cast(Any, None)), other) is None


async def test_what_a_worker_finds_arrives_as_it_was_found() -> None:
    for sql in ("copy orders from stdin", "delete from orders", "select ssn from customers where id = 1"):
        found = inspect(sql, CATALOGUE, {})
        assert await decoded(encoded(found, ""), CATALOGUE.version) == found


def test_the_catalogue_is_not_in_clear_where_a_rule_keeps_one_relation_from_being_read() -> None:
    plain = POLICY.replace('["public.*"]', '["public.*", "archive.*"]')
    denying = plain + "  - {id: pay, decision: deny, effects: [read], relations: [public.customers]}\n"
    narrow = plain.replace("when:", "relations: [public.orders], when:")
    rewritten = {}
    for text in (plain, denying, narrow):
        policies = FixedPolicies(read_texts({"test.yaml": text}))
        inspector = Inspector(policies, cast(Catalogues, Shelf()), cast(Workers, None), Clock())
        ruling = inspector.rule(
            Matter(Subject("alice", "prod-db", "read"), cast(Any, None)), "select pg_get_viewdef(1)"
        )
        assert isinstance(ruling, Permitted)
        rewritten[text] = ruling.inspection.rewritten
    assert rewritten[plain] == "select pg_get_viewdef(1)"
    assert "pg_get_viewdef(" not in rewritten[denying]
    assert "pg_get_viewdef(" not in rewritten[narrow]


async def test_what_cannot_be_looked_up_is_refused_in_words_for_who_sent_it() -> None:
    class Gone:
        def held(self, _: object) -> None: ...

        async def fresh(self, _: object) -> None:
            raise UpstreamUnavailable("InterfaceError: cannot call X at 10.0.0.1", "it closed the connection")

    policies = FixedPolicies(read_texts({"test.yaml": POLICY}))
    inspector = Inspector(policies, cast(Catalogues, Gone()), cast(Workers, None), Clock())
    waited = inspector.rule(Matter(Subject("alice", "prod-db", "read"), cast(Any, None)), "select id from orders")
    assert isinstance(waited, Awaitable)
    found = await waited
    assert isinstance(found, Denied)
    assert found.message == "what this names cannot be looked up in prod-db now: it closed the connection"
    assert found.rules == ("catalogue-unread",)
    assert "again in a moment" in str(found.hint)
