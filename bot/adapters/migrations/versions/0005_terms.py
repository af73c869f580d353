"""What each reviewer approved and what that leaves of a request; requests that move the end of a grant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workflows.storage.engine import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("requests", sa.Column("narrowed", sa.JSON))
    op.add_column("requests", sa.Column("extends", sa.String(64)))
    op.add_column("requests", sa.Column("until", UtcDateTime))
    op.create_index("ix_requests_extends", "requests", ["extends"])
    op.add_column("reviews", sa.Column("terms", sa.JSON))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("reviews", "terms")
    op.drop_index("ix_requests_extends", "requests")
    for column in ("until", "extends", "narrowed"):
        op.drop_column("requests", column)
