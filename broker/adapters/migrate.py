"""Brings the broker's database up to date; a database newer than the program stops it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import Misconfigured
from workflows.storage.engine import make_engine

FOLDER = Path(__file__).with_name("migrations")


async def upgrade(engine: AsyncEngine) -> None:
    """Run the migrations that are missing, in one transaction."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(run)
    except CommandError as error:
        raise Misconfigured(f"the database cannot be brought up to date: {error}") from None


def migrate(url: str) -> None:
    """Run the migrations that are missing on a database."""

    async def run() -> None:
        engine = make_engine(url)
        try:
            await upgrade(engine)
        finally:
            await engine.dispose()

    asyncio.run(run())
