"""A seeded fault matrix over the real processes, and the bars that must hold under it: `make chaos`."""
