"""The terminal pane: psql, and nothing else, for a line that the app sent to a person."""
