"""Extensions: each order that moved a grant's end, with its evidence; a request moves one end, once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workflows.storage.engine import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "extensions",
        sa.Column("order_id", sa.String(64), primary_key=True),
        sa.Column("order_digest", sa.String(64), nullable=False),
        sa.Column("order", sa.JSON, nullable=False),
        sa.Column("request", sa.String(64), nullable=False, unique=True),
        sa.Column("grant", sa.String(40), sa.ForeignKey("grants.id"), nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("before", UtcDateTime, nullable=False),
        sa.Column("until", UtcDateTime, nullable=False),
        sa.Column("counted", sa.JSON, nullable=False),
        sa.Column("rules", sa.JSON, nullable=False),
        sa.Column("accepted_at", UtcDateTime, nullable=False),
        sa.Column("recorded", sa.Boolean, nullable=False),
        sa.CheckConstraint("seconds > 0", name="extensions_seconds"),
    )
    op.create_index("ix_extensions_grant", "extensions", ["grant"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("extensions")
