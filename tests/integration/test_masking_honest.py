"""What shows nothing masked of tables with masked fields answers as it does without a broker."""

from __future__ import annotations

import pytest

from tests.integration.two_worlds import World, worlds
from tests.support.postgres import CASES
from tests.support.require import skip_where_older

__all__ = ["worlds"]

_UPSERT = "insert into customers as c (id, ssn) values (1, 'z') on conflict (id) do update set"
READS = CASES.with_name("honest_reads.sql").read_text().splitlines()[1:]
WRITES = CASES.with_name("honest_returning.sql").read_text().splitlines()[1:]


@pytest.mark.parametrize("sql", READS)
def test_what_shows_nothing_masked_is_what_it_is_directly(worlds: tuple[World, World], sql: str) -> None:
    skip_where_older(sql, worlds[0].server.major)
    for world in worlds:
        direct = world._rows(sql, world.connection)
        world.connection.execute("rollback; deallocate all; reset search_path")
        assert repr(world.run(sql)) == repr(direct)


@pytest.mark.parametrize("sql", WRITES)
def test_what_writes_list_of_masked_fields_comes_masked(worlds: tuple[World, World], sql: str) -> None:
    left, right = (world.write(sql) for world in worlds)
    assert isinstance(left, list), left
    assert repr(left) == repr(right)
    assert "731-55" not in repr(left)


@pytest.mark.parametrize(
    "sql",
    [
        "merge into customers c using (values (1, 'x')) v(i, n) on c.id = v.i when matched then update set name = v.n"
        " returning c.ssn, merge_action()",
        "merge into customers c using (values (1, 'x')) v(i, n) on c.id = v.i when matched then update set name = v.n"
        " returning *",
        "merge into customers c using staff s on s.id = c.id and c.id < 3 when matched then delete"
        " returning s.ssn, c.*",
        "update customers set name = 'n' where id = 1 returning old.name, new.name, old.ssn, new.ssn, new.*",
        "insert into customers (id, ssn) values (9010, 'n') returning old.ssn, new.ssn",
        "update customers old set name = 'n' where id = 1 returning old.ssn, new.ssn",
    ],
)
def test_returning_of_newer_servers_masks_what_it_lists(worlds: tuple[World, World], sql: str) -> None:
    left, right = (world.write(sql) for world in worlds)
    assert repr(left) == repr(right)
    assert isinstance(left, list) or worlds[0].server.major < 18, left


@pytest.mark.parametrize(
    "sql",
    [
        "delete from customers where id = 1 returning id, ssn, upper(ssn)",
        "delete from customers c where id = 1 returning c.ssn, c",
        "update customers c set name = o.note from orders o join hubs h using (id) where c.id = 1 returning *",
        "update customers c set name = 'n' from orders o, lateral (select c.ssn) x where c.id = 1",
        "update customers c set name = (select c.ssn) where c.id = 1",
        "update customers c set name = (select x.ssn from (select c.*) x) where c.id = 1",
        "update customers c set name = 'n' from people old where c.id = 1 and old.id = 1 returning old.ssn",
        "update customers c set name = 'n' where c.id = 1 returning with (old as o) o.ssn",
        "update customers c set name = 'n' from people o where c.id = o.id and ssn = 'x'",
        "delete from customers x where exists (select from people y where y.ssn = x.ssn)",
        "with d as (delete from customers where ssn < '8' returning id) select id from d",
        "with d as (delete from customers c where id = 1 returning c) select d from d",
        "merge into customers c using people p on c.ssn = p.ssn when matched then delete",
        "merge into customers c using people p on c.id = p.id when matched and c.ssn > '8' then delete",
        f"{_UPSERT} ssn = coalesce(c.ssn, excluded.ssn)",
        f"{_UPSERT} ssn = coalesce(excluded.ssn, c.ssn, '')",
        f"{_UPSERT} salary = coalesce(excluded.salary, c.salary, -5)",
        f"{_UPSERT} salary = coalesce(excluded.salary, 1::float4, c.salary)",
        f"{_UPSERT} name = coalesce(excluded.ssn, c.ssn)",
        f"{_UPSERT} ssn = coalesce(excluded.ssn, c.email)",
        f"{_UPSERT} ssn = coalesce(excluded.ssn, upper(c.ssn))",
        f"{_UPSERT} (ssn, name) = (excluded.name, excluded.ssn)",
        f"{_UPSERT} (name, ssn) = (select excluded.ssn, 'x')",
        f"{_UPSERT} ssn = nullif(excluded.ssn, 'x')",
    ],
)
def test_what_reads_a_masked_field_of_what_it_changes_is_refused(worlds: tuple[World, World], sql: str) -> None:
    assert [world.write(sql) for world in worlds] == [("refused", "write-reads-masked")] * 2


def test_show_all_shows_what_show_does(worlds: tuple[World, World]) -> None:
    shown = worlds[0].run("show all")
    assert isinstance(shown, list)
    ((status, rows),) = shown
    assert status.startswith("SELECT")
    direct = {name: value for name, value, _ in worlds[0].connection.execute("show all").fetchall()}
    worlds[0].connection.execute("rollback")
    assert [name for name, _, _ in rows] == list(direct)
    assert {name: value for name, value, _ in rows if value is not None}.items() <= direct.items()
    hidden = {name for name, value, _ in rows if value is None}
    assert {"data_directory", "listen_addresses", "unix_socket_directories"} & direct.keys() <= hidden
    assert not {"work_mem", "search_path", "server_version", "TimeZone", "port"} & hidden
