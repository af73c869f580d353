"""Projections of approved shapes, and the shape that a review of a held statement approves, with the state table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bot.adapters.migrations.guards import guard, unguard
from workflows.storage.engine import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and add the column."""
    op.create_table(
        "shapes",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False, server_default="0"),
        sa.Column("grant", sa.String(64), sa.ForeignKey("grants.id"), nullable=False),
        sa.Column("hold", sa.String(64), sa.ForeignKey("holds.id"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("people", sa.JSON, nullable=False),
        sa.Column("most", sa.Integer),
        sa.Column("approved_at", UtcDateTime, nullable=False),
        sa.Column("withdrawn_by", sa.String(64)),
        sa.Column("runs", sa.Integer, nullable=False),
    )
    op.create_index("ix_shapes_grant", "shapes", ["grant"])
    guard("shapes", {"active": ("withdrawn",)}, ("active",))
    op.add_column("hold_reviews", sa.Column("shape", sa.String(64)))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("hold_reviews", "shape")
    op.drop_table("shapes")
    unguard("shapes")
