"""Why a grant was ended, in the words of whoever ended it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("grants", sa.Column("ended_because", sa.Text))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("grants", "ended_because")
