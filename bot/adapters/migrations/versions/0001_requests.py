"""Requests, reviews, projections of grants, messages, boxes; the database repeats both state tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bot.adapters.migrations.guards import guard, unguard
from workflows.storage.engine import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_LEGAL = {
    "requests": {
        "pending": ("approved", "denied", "expired", "cancelled"),
        "approved": ("pending",),
    },
    "grants": {
        "opening": ("active", "refused"),
        "active": ("ended", "expired", "revoked"),
    },
}
_BIRTHS = {"requests": ("pending",), "grants": ("opening", "active")}


def upgrade() -> None:
    """Make the tables."""
    _make_boxes()
    _make_requests()
    _make_grants()
    _make_places()
    for table in _LEGAL:
        guard(table, _LEGAL[table], _BIRTHS[table])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("cursors", "messages", "grants", "reviews", "requests", "outbox", "inbox"):
        op.drop_table(table)
    for table in _LEGAL:
        unguard(table)


def _make_boxes() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Column("done_at", UtcDateTime),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.String(2000)),
        sa.UniqueConstraint("key", name="inbox_key"),
    )
    op.create_index("ix_inbox_done_at", "inbox", ["done_at"])
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("lane", sa.String(120), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("made_at", UtcDateTime, nullable=False),
        sa.Column("not_before", UtcDateTime),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("sent_at", UtcDateTime),
        sa.Column("receipt", sa.JSON),
        sa.Column("error", sa.String(2000)),
        sa.UniqueConstraint("key", name="outbox_key"),
    )
    op.create_index("ix_outbox_lane", "outbox", ["lane"])
    op.create_index("ix_outbox_sent_at", "outbox", ["sent_at"])


def _make_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requester", sa.String(32), nullable=False),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requirement", sa.JSON, nullable=False),
        sa.Column("rules", sa.JSON, nullable=False),
        sa.Column("policy_hash", sa.String(64), nullable=False),
        sa.Column("asked_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("asked_in", sa.String(40), nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("order", sa.String(64)),
        sa.Column("decided_at", UtcDateTime),
        sa.Column("decided_by", sa.String(32)),
        sa.Column("answer", sa.Text),
        sa.Column("note", sa.Text),
    )
    op.create_index("requests_pending", "requests", ["state", "expires_at"])
    op.create_index("requests_requester", "requests", ["requester", "state"])
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("request", sa.String(64), sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("person", sa.String(32), nullable=False),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("answer", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.UniqueConstraint("request", "person", name="reviews_person_once"),
    )


def _make_grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False, server_default="0"),
        sa.Column("request", sa.String(64), sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("person", sa.String(32), nullable=False),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("ended_by", sa.String(32)),
        sa.Column("closed_at", UtcDateTime),
        sa.Column("sessions", sa.Integer, nullable=False),
        sa.Column("open_sessions", sa.Integer, nullable=False),
        sa.Column("statements", sa.Integer, nullable=False),
        sa.Column("denied", sa.Integer, nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.Column("masked", sa.JSON, nullable=False),
        sa.Column("verified", sa.Boolean),
        sa.Column("recording", sa.String(200)),
    )
    op.create_index("ix_grants_request", "grants", ["request"])
    op.create_index("ix_grants_person", "grants", ["person"])


def _make_places() -> None:
    op.create_table(
        "messages",
        sa.Column("key", sa.String(120), primary_key=True),
        sa.Column("channel", sa.String(40)),
        sa.Column("ts", sa.String(40)),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("shown", sa.Integer, nullable=False),
    )
    op.create_table(
        "cursors",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.String(1000), nullable=False),
    )
