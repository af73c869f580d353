"""Runs migrations on the connection that the store hands over; there is no other way to run them."""

from __future__ import annotations

from alembic import context

from bot.adapters.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
