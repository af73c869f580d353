"""Why a grant's newest connection was refused, from where, and when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workflows.storage.engine import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("grants", sa.Column("refusal", sa.Text, nullable=False, server_default=""))
    op.add_column("grants", sa.Column("refused_at", UtcDateTime))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("grants", "refused_at")
    op.drop_column("grants", "refusal")
