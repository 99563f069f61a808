"""Data sets: where they are, and checks before a run."""
