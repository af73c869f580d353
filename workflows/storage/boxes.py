"""Inbox and outbox tables: a payload is a row before it is acknowledged, a message is a row before it is sent."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Integer, MetaData, String, Table, UniqueConstraint
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import Delete, Update

from workflows.storage.engine import UtcDateTime


class RowMoved(Exception):
    """the row is not in the state this change starts from any more"""


def inbox_table(metadata: MetaData) -> Table:
    """Make the table of received payloads; `key` is what the sender repeats when it delivers twice."""
    return Table(
        "inbox",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("key", String(200), nullable=False),
        Column("kind", String(40), nullable=False),
        Column("payload", JSON, nullable=False),
        Column("received_at", UtcDateTime, nullable=False),
        Column("done_at", UtcDateTime, index=True),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("error", String(2000)),
        UniqueConstraint("key", name="inbox_key"),
    )


def outbox_table(metadata: MetaData) -> Table:
    """Make the table of messages to send; `lane` keeps order within one destination, `key` makes a row unique."""
    return Table(
        "outbox",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("key", String(200), nullable=False),
        Column("lane", String(120), nullable=False, index=True),
        Column("kind", String(40), nullable=False),
        Column("payload", JSON, nullable=False),
        Column("made_at", UtcDateTime, nullable=False),
        Column("not_before", UtcDateTime),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("sent_at", UtcDateTime, index=True),
        Column("receipt", JSON),
        Column("error", String(2000)),
        UniqueConstraint("key", name="outbox_key"),
    )


async def guarded(connection: AsyncConnection, change: Update | Delete) -> None:
    """Run a change that names the state it starts from; raises RowMoved unless exactly one row changed."""
    result: CursorResult[Any] = await connection.execute(change)
    if result.rowcount != 1:
        raise RowMoved(f"{result.rowcount} rows changed")
