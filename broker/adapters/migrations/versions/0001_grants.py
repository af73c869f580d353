"""Grants and tickets; the database repeats the grant's state table, so that a bug cannot move a grant wrongly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from workflows.storage.engine import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_LEGAL = (
    "old.state = new.state "
    "or (old.state = 'opening' and new.state in ('active', 'refused')) "
    "or (old.state = 'active' and new.state in ('ended', 'expired', 'revoked'))"
)


def upgrade() -> None:
    """Make the tables."""
    _make_grants()
    _make_tickets()
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("tickets")
    op.drop_table("grants")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("drop function if exists airlock_grant_guard()")


def _make_grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("order_id", sa.String(64), nullable=False, unique=True),
        sa.Column("order_digest", sa.String(64), nullable=False),
        sa.Column("order", sa.JSON, nullable=False),
        sa.Column("person", sa.String(32), nullable=False),
        sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("boot_id", sa.String(40), nullable=False),
        sa.Column("boot_deadline", sa.Float, nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("over_by", sa.String(64)),
        sa.Column("over_reason", sa.Text),
        sa.Column("closed_at", UtcDateTime),
        sa.Column("verified", sa.Boolean),
        sa.CheckConstraint(
            "state in ('opening', 'active', 'ended', 'expired', 'revoked', 'refused')", name="grants_state"
        ),
        sa.CheckConstraint("closed_at is null or state not in ('opening', 'active')", name="grants_closed"),
    )
    op.create_index("ix_grants_state", "grants", ["state"])
    live = sa.text("state <> 'refused'")
    op.create_index("grants_request", "grants", ["request"], unique=True, sqlite_where=live, postgresql_where=live)


def _make_tickets() -> None:
    op.create_table(
        "tickets",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("grant", sa.String(40), sa.ForeignKey("grants.id"), nullable=False),
        sa.Column("user", sa.String(64), nullable=False, unique=True),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("iterations", sa.Integer, nullable=False),
        sa.Column("stored_key", sa.LargeBinary, nullable=False),
        sa.Column("server_key", sa.LargeBinary, nullable=False),
        sa.Column("minted_at", UtcDateTime, nullable=False),
        sa.Column("minted_by", sa.String(64), nullable=False),
        sa.Column("used_at", UtcDateTime),
        sa.Column("voided_at", UtcDateTime),
    )
    op.create_index("ix_tickets_grant", "tickets", ["grant"])


def _guard_sqlite() -> None:
    op.execute(
        f"create trigger grants_state_guard before update on grants when not ({_LEGAL}) "
        "begin select raise(abort, 'a grant cannot move so'); end"
    )
    op.execute(
        "create trigger grants_birth_guard before insert on grants when new.state <> 'opening' "
        "begin select raise(abort, 'a grant begins as opening'); end"
    )


def _guard_postgresql() -> None:
    op.execute(
        "create function airlock_grant_guard() returns trigger language plpgsql as $$ begin "
        "if tg_op = 'INSERT' then "
        "if new.state <> 'opening' then raise exception 'a grant begins as opening'; end if; "
        f"elsif not ({_LEGAL}) then raise exception 'a grant cannot move so'; end if; "
        "return new; end $$"
    )
    op.execute(
        "create trigger grants_guard before insert or update on grants "
        "for each row execute function airlock_grant_guard()"
    )
