"""The broker's migrations (Alembic), run at every start and by the release step."""
