"""Who has opened the app's home."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workflows.storage.engine import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "homes",
        sa.Column("account", sa.String(40), primary_key=True),
        sa.Column("opened_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("homes")
