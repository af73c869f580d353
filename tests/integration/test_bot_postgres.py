"""The bot's database on PostgreSQL behaves as it does on SQLite."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.tables import MIGRATIONS
from tests.support.postgres import Server
from tests.unit.bot.conftest import desks
from tests.unit.bot.test_boxes import (
    test_later_wish_for_a_message_has_a_later_version,
    test_outbox_gives_the_first_row_of_every_lane,
    test_payload_is_kept_once_and_taken_once,
)
from tests.unit.bot.test_guards import (
    test_database_moves_grants_as_the_table_says,
    test_database_moves_holds_as_the_table_says,
    test_hold_is_born_waiting,
    test_request_is_born_pending,
)
from tests.unit.bot.test_store import (
    test_a_hundred_clicks_of_two_people_on_one_statement_are_one_answer,
    test_change_of_a_row_that_moved_meanwhile_is_refused,
    test_cursor_moves_only_from_where_it_was,
    test_forty_people_at_once_make_one_decision,
    test_hold_and_its_reviews_are_read_back_as_they_were,
    test_migrations_make_what_the_program_expects,
    test_nothing_of_a_transaction_that_fails_is_kept,
    test_second_review_of_a_person_replaces_the_first,
    test_upgrading_twice_changes_nothing,
    test_what_is_stored_is_read_back_as_it_was,
)
from workflows.storage.engine import make_engine
from workflows.storage.migrate import upgrade

__all__ = [
    "desks",
    "test_a_hundred_clicks_of_two_people_on_one_statement_are_one_answer",
    "test_change_of_a_row_that_moved_meanwhile_is_refused",
    "test_cursor_moves_only_from_where_it_was",
    "test_database_moves_grants_as_the_table_says",
    "test_database_moves_holds_as_the_table_says",
    "test_forty_people_at_once_make_one_decision",
    "test_hold_and_its_reviews_are_read_back_as_they_were",
    "test_hold_is_born_waiting",
    "test_later_wish_for_a_message_has_a_later_version",
    "test_migrations_make_what_the_program_expects",
    "test_nothing_of_a_transaction_that_fails_is_kept",
    "test_outbox_gives_the_first_row_of_every_lane",
    "test_payload_is_kept_once_and_taken_once",
    "test_request_is_born_pending",
    "test_second_review_of_a_person_replaces_the_first",
    "test_upgrading_twice_changes_nothing",
    "test_what_is_stored_is_read_back_as_it_was",
]


def engine_of(server: Server, name: str) -> AsyncEngine:
    return make_engine(server.url(name).replace("postgresql://", "postgresql+asyncpg://"))


@pytest.fixture(scope="module")
def migrated(wheel_postgres: Server) -> str:
    """A database with nothing in it, made once: migrations take longer than most tests."""

    async def make() -> None:
        made = engine_of(wheel_postgres, "bot_empty")
        await upgrade(made, MIGRATIONS)
        await made.dispose()

    wheel_postgres.create_database("bot_empty")
    asyncio.run(make())
    return "bot_empty"


@pytest.fixture
async def engine(wheel_postgres: Server, migrated: str) -> AsyncIterator[AsyncEngine]:
    name = f"bot_{secrets.token_hex(4)}"
    wheel_postgres.create_database(name, migrated)
    made = engine_of(wheel_postgres, name)
    yield made
    await made.dispose()
