"""Projections of holds and the reviews of them; the database repeats the hold's state table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bot.adapters.migrations.guards import guard, unguard
from workflows.storage.engine import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LEGAL = {
    "waiting": ("released", "refused", "timed_out", "abandoned"),
    "released": ("consumed", "abandoned", "timed_out"),
}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "holds",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False, server_default="0"),
        sa.Column("grant", sa.String(64), sa.ForeignKey("grants.id"), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requirement", sa.JSON, nullable=False),
        sa.Column("rules", sa.JSON, nullable=False),
        sa.Column("effects", sa.JSON, nullable=False),
        sa.Column("relations", sa.JSON, nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("exhibit", sa.String(16), nullable=False),
        sa.Column("people", sa.JSON, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("answered", sa.String(16)),
        sa.Column("note", sa.Text),
    )
    op.create_index("ix_holds_grant", "holds", ["grant"])
    op.create_table(
        "hold_reviews",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("hold", sa.String(64), sa.ForeignKey("holds.id"), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("person", sa.String(32), nullable=False),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("answer", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.UniqueConstraint("hold", "person", name="hold_reviews_person_once"),
    )
    guard("holds", _LEGAL, ("waiting",))


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("hold_reviews")
    op.drop_table("holds")
    unguard("holds")
