"""Orders, grants and tickets over the broker's real API."""

from pathlib import Path

import pytest

from tests.integration.broker import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_signed_order_opens_a_grant_and_a_ticket_is_minted(world: World) -> None:
    async with world.broker() as (_, bot):
        grant = await bot.grant()
        assert grant["state"] == "active"
        status, ticket = await bot.json("POST", f"/v1/grants/{grant['id']}/tickets")
        assert status == 201
        assert ticket["database"] == "prod-db"
        events = await bot.events()
        assert [event["type"] for event in events] == ["policy.loaded", "grant.opened", "ticket.minted"]
        assert ticket["password"] not in str(events)
