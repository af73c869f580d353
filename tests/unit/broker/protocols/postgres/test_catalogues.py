"""Catalogues of upstreams: how long one is relied on, and when it is read again."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres import catalogues
from broker.protocols.postgres.admin import Admins, Fetch
from broker.protocols.postgres.catalogues import Catalogues, Key
from broker.protocols.postgres.naming import Changes, KnownNames
from broker.protocols.postgres.rereading import Reading
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint
from broker.sql.catalogue_queries import AGAIN, OF_SOME, QUERIES
from broker.sql.drift import PROBE
from tests.support.catalogue import described

END = Endpoint(
    host="127.0.0.1", port=1, database="shop", user="app", password="x", tls="disable", ca=None,
    source=Source("127.0.0.1", 1, "shop", "disable", "file:app"),
)  # fmt: skip
KEY = Key((END, ("public",)))


class Upstream:
    """An admin connection, and what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stamp = "1"
        self.name = "ssn"

    def of(self, _: Endpoint) -> "Upstream":
        return self

    async def version(self) -> int:
        return 150018

    async def snapshot(self, look: Callable[[Fetch], Awaitable[Reading]]) -> Reading:
        async def fetch(sql: str, *arguments: object) -> list[dict[str, Any]]:
            if sql == PROBE:
                self.asked.append("probe")
                changed = arguments[0] != f"at {self.stamp}"
                told = {"rest": "1", "drawers": f"16:1/{self.stamp}"} if changed else {"rest": None, "drawers": None}
                return [{"moment": f"at {self.stamp}", "first": "700", **told}]
            if sql in (QUERIES["relations"], AGAIN["relations"]):
                self.asked[-1] = "all" if sql == QUERIES["relations"] else "some"
            (name,) = [name for name, text in (*QUERIES.items(), *AGAIN.items(), ("", OF_SOME)) if text == sql][:1]
            return [{"oid": 16400}] if sql == OF_SOME else self.rows().get(name, [])

        return await look(fetch)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        people = {"oid": 16400, "schema": "public", "name": "people", "kind": "r", "row_security": False}
        column = {"oid": 16400, "attnum": 3, "type": "text", "typname": "text", "typschema": "pg_catalog"}
        return described([people], [{**column, "name": self.name, "category": "S", "base": None}])


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


def shelf(upstream: Upstream, rules: list[str], names: KnownNames | None = None) -> Catalogues:
    return Catalogues(cast(Admins, upstream), lambda: rules[0], KnownNames() if names is None else names, Changes())


async def test_a_catalogue_is_used_while_it_is_young_and_then_probed(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = shelf(upstream, ["rules"])
    assert kept.held(KEY) is None
    first = await kept.fresh(KEY)
    monkeypatch.setattr(catalogues, "PROBE_SECONDS", 3600)
    monkeypatch.setattr(catalogues, "TRUSTED_SECONDS", 3600)
    assert kept.held(KEY) is first
    assert upstream.asked == ["all"]
    monkeypatch.setattr(catalogues, "TRUSTED_SECONDS", -1)
    assert kept.held(KEY) is None
    monkeypatch.setattr(catalogues, "PROBE_SECONDS", -1)
    assert await kept.fresh(KEY, since=float(catalogues.time.monotonic())) is first
    assert upstream.asked == ["all", "probe"]


async def test_a_name_of_before_is_remembered_until_the_field_rules_change(upstream: Upstream) -> None:
    rules = ["rules"]
    kept = shelf(upstream, rules)
    before = await kept.fresh(KEY)
    upstream.name, upstream.stamp = "note", "2"
    kept.drop(KEY)
    after = await kept.fresh(KEY)
    assert after.version != before.version
    (column,) = after.by_oid[16400].columns
    assert (column.name, column.former) == ("note", ("ssn",))
    rules[0] = "others"
    upstream.asked.clear()
    (column,) = (await kept.fresh(KEY, since=float(catalogues.time.monotonic()))).by_oid[16400].columns
    assert (column.name, column.former) == ("note", ())
    assert upstream.asked == ["all"]


async def test_a_name_of_before_is_known_to_every_process_that_reads_later(upstream: Upstream) -> None:
    rules, names = ["rules"], KnownNames()
    await shelf(upstream, rules, names).fresh(KEY)
    upstream.name = "note"
    for again in range(2):
        # One that has just begun, as another that takes its place.
        (column,) = (await shelf(upstream, rules, names).fresh(KEY)).by_oid[16400].columns
        assert (column.name, column.former) == ("note", ("ssn",)), again
    upstream.name = "ssn"
    (column,) = (await shelf(upstream, rules, names).fresh(KEY)).by_oid[16400].columns
    assert (column.name, set(column.former)) == ("ssn", {"ssn", "note"})


def test_who_writes_rules_after_others_were_taken_back_has_seen_the_names_of_then() -> None:
    known, place = KnownNames(), ("127.0.0.1", 1, "shop")
    for rules, name in (("first", "ssn"), ("second", "ssn"), ("first", "ssn")):
        assert known.see(place, rules, {16400: f"0 0 0 public.people\n3 25 -1 {name}"}) == {}
    renamed = {16400: "0 0 0 public.people\n3 25 -1 contact"}
    assert known.see(place, "first", renamed) == {(16400, 3): ("ssn",)}
    assert known.see(place, "third", renamed) == {}
    # Those that another process may obey for another moment are still known.
    assert known.see(place, "first", renamed) == {(16400, 3): ("ssn",)}


async def test_a_process_that_has_not_heard_of_other_field_rules_yet_has_nothing_forgotten(upstream: Upstream) -> None:
    ahead, behind, names = ["new"], ["old"], KnownNames()
    first, second = shelf(upstream, ahead, names), shelf(upstream, behind, names)
    await second.fresh(KEY)
    await first.fresh(KEY)
    upstream.name, upstream.stamp = "note", "2"
    for one in (first, second, first):
        one.drop(KEY)
        (column,) = (await one.fresh(KEY)).by_oid[16400].columns
        assert (column.name, column.former) == ("note", ("ssn",))
    behind[0] = "new"
    (column,) = (await second.fresh(KEY, since=float(catalogues.time.monotonic()))).by_oid[16400].columns
    assert (column.name, column.former) == ("note", ("ssn",))


async def test_a_change_that_another_process_has_seen_has_it_look_again(upstream: Upstream) -> None:
    changes, heard = Changes(), list[Catalogues]()
    for _ in range(2):
        heard.append(Catalogues(cast(Admins, upstream), lambda: "rules", KnownNames(), changes))
    changes.tell = lambda place, by: [one.hear(place, by) for one in heard] and None
    first, second = [await one.fresh(KEY) for one in heard]
    upstream.name, upstream.stamp = "note", "2"
    heard[0].drop(KEY)
    assert [one.held(KEY) for one in heard] == [None, None]
    assert await heard[1].fresh(KEY) is not second
    assert await heard[0].fresh(KEY) is not first
    assert heard[1].held(KEY) is not None
    heard[0].drop(KEY, own=False)
    assert heard[1].held(KEY) is not None
    heard[0].drop(Key((replace(END, database="another"), ("public",))))
    assert heard[1].held(KEY) is not None


async def test_a_change_that_was_undone_or_was_only_temporary_has_nothing_read_anew(upstream: Upstream) -> None:
    kept = shelf(upstream, ["rules"])
    before = await kept.fresh(KEY)
    kept.drop(KEY)
    assert kept.held(KEY) is None
    assert await kept.fresh(KEY) is before
    assert kept.held(KEY) is before
    assert upstream.asked == ["all", "probe"]


async def test_a_schema_that_is_read_anew_and_is_the_same_keeps_its_version(upstream: Upstream) -> None:
    kept = shelf(upstream, ["rules"])
    before = await kept.fresh(KEY)
    upstream.stamp = "2"
    kept.drop(KEY)
    assert await kept.fresh(KEY) is before
    assert upstream.asked == ["all", "some"]


async def test_what_was_built_under_other_field_rules_is_built_anew_though_the_first_try_fails(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = ["rules"]
    kept = shelf(upstream, rules)
    await kept.fresh(KEY)
    upstream.name, upstream.stamp = "note", "2"
    kept.drop(KEY)
    await kept.fresh(KEY)
    rules[0] = "others"
    working = upstream.snapshot

    async def away(_: object) -> Reading:
        raise UpstreamUnavailable("away", "away")

    monkeypatch.setattr(upstream, "snapshot", away)
    with pytest.raises(UpstreamUnavailable):
        await kept.fresh(KEY, since=float(catalogues.time.monotonic()))
    monkeypatch.setattr(upstream, "snapshot", working)
    (column,) = (await kept.fresh(KEY)).by_oid[16400].columns
    assert (column.name, column.former) == ("note", ())
