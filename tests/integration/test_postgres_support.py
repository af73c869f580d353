"""The throwaway servers and the corpus's two worlds are what the oracles assume."""

import json

from tests.support.postgres import CASES, Server, load_world


def test_two_worlds_differ_only_in_masked_values(postgres: Server) -> None:
    for world in ("A", "B"):
        load_world(postgres, f"world_{world.lower()}", world)
    seen = {
        world: postgres.execute("select id, name, ssn from customers order by id", f"world_{world}", "lvl_read")
        for world in ("a", "b")
    }
    assert len(seen["a"]) == len(seen["b"]) == 500
    assert [row[:2] for row in seen["a"]] == [row[:2] for row in seen["b"]]
    assert not {row[2] for row in seen["a"]} & {row[2] for row in seen["b"]}


def test_a_world_can_be_loaded_again_over_itself(wheel_postgres: Server) -> None:
    for _ in range(2):
        load_world(wheel_postgres, "world_again", "A")
    assert wheel_postgres.execute("select count(*) from orders", "world_again", "lvl_write") == [(100,)]


def test_every_case_names_a_role_that_the_worlds_have(wheel_postgres: Server) -> None:
    load_world(wheel_postgres, "world_roles", "A")
    roles = {json.loads(line)["role"] for line in CASES.read_text().splitlines()}
    assert roles <= set(wheel_postgres.passwords)
