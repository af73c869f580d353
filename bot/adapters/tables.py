"""The bot's tables; the migrations repeat them, with the state tables as triggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from workflows.storage.boxes import inbox_table, outbox_table
from workflows.storage.engine import UtcDateTime

MIGRATIONS = Path(__file__).with_name("migrations")
metadata = MetaData()

inbox = inbox_table(metadata)
outbox = outbox_table(metadata)

requests = Table(
    "requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("state", String(16), nullable=False),
    Column("requester", String(32), nullable=False),
    Column("account", String(40), nullable=False),
    Column("resource", String(64), nullable=False),
    Column("role", String(64), nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requirement", JSON, nullable=False),
    Column("rules", JSON, nullable=False),
    Column("policy_hash", String(64), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("asked_in", String(40), nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("order", String(64)),
    Column("decided_at", UtcDateTime),
    Column("decided_by", String(32)),
    Column("answer", Text),
    Column("note", Text),
    Column("narrowed", JSON(none_as_null=True)),
    Column("extends", String(64), index=True),
    Column("until", UtcDateTime),
    Index("requests_pending", "state", "expires_at"),
    Index("requests_requester", "requester", "state"),
)


def _given() -> list[Column[Any]]:
    """Return the columns of one person's answer, whatever it answers."""
    return [
        Column("person", String(32), nullable=False),
        Column("account", String(40), nullable=False),
        Column("answer", String(16), nullable=False),
        Column("reason", Text, nullable=False),
        Column("at", UtcDateTime, nullable=False),
        Column("evidence", JSON, nullable=False),
    ]


reviews = Table(
    "reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request", String(64), ForeignKey("requests.id"), nullable=False),
    *_given(),
    Column("terms", JSON(none_as_null=True)),
    UniqueConstraint("request", "person", name="reviews_person_once"),
)

grants = Table(
    "grants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("request", String(64), ForeignKey("requests.id"), nullable=False, index=True),
    Column("person", String(32), nullable=False, index=True),
    Column("account", String(40), nullable=False),
    Column("resource", String(64), nullable=False),
    Column("role", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("ended_by", String(32)),
    Column("ended_because", Text),
    Column("closed_at", UtcDateTime),
    Column("sessions", Integer, nullable=False),
    Column("open_sessions", Integer, nullable=False),
    Column("statements", Integer, nullable=False),
    Column("denied", Integer, nullable=False),
    Column("mistyped", Integer, nullable=False, server_default="0"),
    Column("refused", Integer, nullable=False),
    Column("refusal", Text, nullable=False, server_default=""),
    Column("refused_at", UtcDateTime),
    Column("masked", JSON, nullable=False),
    Column("verified", Boolean),
    Column("recording", String(200)),
    Column("down_since", UtcDateTime),
)

holds = Table(
    "holds",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("grant", String(64), ForeignKey("grants.id"), nullable=False, index=True),
    Column("session", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("requirement", JSON, nullable=False),
    Column("rules", JSON, nullable=False),
    Column("effects", JSON, nullable=False),
    Column("relations", JSON, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("exhibit", String(16), nullable=False),
    Column("people", JSON, nullable=False),
    Column("reason", Text),
    Column("answered", String(16)),
    Column("note", Text),
)

hold_reviews = Table(
    "hold_reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hold", String(64), ForeignKey("holds.id"), nullable=False),
    Column("digest", String(64), nullable=False),
    *_given(),
    Column("shape", String(64)),
    UniqueConstraint("hold", "person", name="hold_reviews_person_once"),
)

shapes = Table(
    "shapes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("grant", String(64), ForeignKey("grants.id"), nullable=False, index=True),
    Column("hold", String(64), ForeignKey("holds.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("people", JSON, nullable=False),
    Column("most", Integer),
    Column("approved_at", UtcDateTime, nullable=False),
    Column("withdrawn_by", String(64)),
    Column("runs", Integer, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("key", String(120), primary_key=True),
    Column("channel", String(40)),
    Column("ts", String(40)),
    Column("wanted", Integer, nullable=False),
    Column("shown", Integer, nullable=False),
)

homes = Table(
    "homes",
    metadata,
    Column("account", String(40), primary_key=True),
    Column("opened_at", UtcDateTime, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", String(1000), nullable=False),
)
