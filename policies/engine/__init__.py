"""The pure policy engine: files in, decisions with reasons out."""
