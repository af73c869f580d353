"""What a grant was asked for, so that whoever ends it sees it in the dialog."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and fill it in from the requests."""
    op.add_column("grants", sa.Column("reason", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE grants SET reason = (SELECT requests.reason FROM requests WHERE requests.id = grants.request)")


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("grants", "reason")
