"""The broker's tables; the migrations repeat them, with the state table as triggers."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from workflows.storage.engine import UtcDateTime

MIGRATIONS = Path(__file__).with_name("migrations")
metadata = MetaData()

grants = Table(
    "grants",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("order_id", String(64), nullable=False, unique=True),
    Column("order_digest", String(64), nullable=False),
    Column("order", JSON, nullable=False),
    Column("person", String(32), nullable=False),
    Column("resource", String(64), nullable=False),
    Column("role", String(64), nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("boot_id", String(40), nullable=False),
    Column("boot_deadline", Float, nullable=False),
    Column("policy", String(64), nullable=False),
    Column("over_by", String(64)),
    Column("over_reason", Text),
    Column("closed_at", UtcDateTime),
    Column("verified", Boolean),
    Index(
        "grants_request",
        "request",
        unique=True,
        sqlite_where=text("state <> 'refused'"),
        postgresql_where=text("state <> 'refused'"),
    ),
)

extensions = Table(
    "extensions",
    metadata,
    Column("order_id", String(64), primary_key=True),
    Column("order_digest", String(64), nullable=False),
    Column("order", JSON, nullable=False),
    Column("request", String(64), nullable=False, unique=True),
    Column("grant", String(40), ForeignKey("grants.id"), nullable=False, index=True),
    Column("seconds", Integer, nullable=False),
    Column("before", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("counted", JSON, nullable=False),
    Column("rules", JSON, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("recorded", Boolean, nullable=False),
)

shapes = Table(
    "shapes",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("grant", String(40), ForeignKey("grants.id"), nullable=False, index=True),
    Column("hold", String(64), nullable=False, unique=True),
    Column("digest", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("redacted", Text, nullable=False),
    Column("values", JSON, nullable=False),
    Column("rules", JSON, nullable=False),
    Column("counted", JSON, nullable=False),
    Column("most", Integer),
    Column("answer", JSON, nullable=False),
    Column("approved_at", UtcDateTime, nullable=False),
    Column("withdrawn_at", UtcDateTime),
    Column("withdrawn_by", String(64)),
)

tickets = Table(
    "tickets",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("grant", String(40), ForeignKey("grants.id"), nullable=False, index=True),
    Column("user", String(64), nullable=False, unique=True),
    Column("salt", LargeBinary, nullable=False),
    Column("iterations", Integer, nullable=False),
    Column("stored_key", LargeBinary, nullable=False),
    Column("server_key", LargeBinary, nullable=False),
    Column("minted_at", UtcDateTime, nullable=False),
    Column("minted_by", String(64), nullable=False),
    Column("used_at", UtcDateTime),
    Column("voided_at", UtcDateTime),
)
