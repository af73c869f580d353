"""Brings a database up to date; one newer than the program stops it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from asyncpg import PostgresError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from workflows.storage.engine import DatabaseUnusable, make_engine


class NotMigrated(DatabaseUnusable):
    """the database cannot be brought up to date"""


async def upgrade(engine: AsyncEngine, folder: Path) -> None:
    """Run the migrations of a folder that are missing, in one transaction; raises NotMigrated."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(run)
    except CommandError as error:
        raise NotMigrated(f"{NotMigrated.__doc__}: {error}") from None
    except (OSError, SQLAlchemyError, PostgresError) as error:
        said = f"{DatabaseUnusable.__doc__}: {type(error).__name__}: {error}"
        own = engine.dialect.name == "sqlite"
        raise DatabaseUnusable(said if own else f"{said}; AIRLOCK_DATABASE says where it is") from None


def migrate(url: str, folder: Path) -> None:
    """Run the migrations that are missing on a database, as a release step of its own."""

    async def run() -> None:
        engine = make_engine(url)
        try:
            await upgrade(engine, folder)
        finally:
            await engine.dispose()

    asyncio.run(run())
