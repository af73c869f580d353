"""What a grant's thread must know: how many denied statements were only mistyped, and since when a resource is down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workflows.storage.engine import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("grants", sa.Column("mistyped", sa.Integer, nullable=False, server_default="0"))
    op.add_column("grants", sa.Column("down_since", UtcDateTime))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("grants", "down_since")
    op.drop_column("grants", "mistyped")
