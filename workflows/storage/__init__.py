"""Database plumbing that both processes use."""
