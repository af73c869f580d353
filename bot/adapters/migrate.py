"""Brings the bot's database up to date; a database newer than the program stops it."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

FOLDER = Path(__file__).with_name("migrations")


async def upgrade(engine: AsyncEngine) -> None:
    """Run the migrations that are missing, in one transaction."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.begin() as connection:
        await connection.run_sync(run)
