"""Approved shapes: the rule that each makes until its grant ends, with its evidence; a hold gives one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workflows.storage.engine import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "shapes",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("grant", sa.String(40), sa.ForeignKey("grants.id"), nullable=False),
        sa.Column("hold", sa.String(64), nullable=False, unique=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("redacted", sa.Text, nullable=False),
        sa.Column("values", sa.JSON, nullable=False),
        sa.Column("rules", sa.JSON, nullable=False),
        sa.Column("counted", sa.JSON, nullable=False),
        sa.Column("most", sa.Integer),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("approved_at", UtcDateTime, nullable=False),
        sa.Column("withdrawn_at", UtcDateTime),
        sa.Column("withdrawn_by", sa.String(64)),
    )
    op.create_index("ix_shapes_grant", "shapes", ["grant"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("shapes")
