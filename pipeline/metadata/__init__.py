"""ML Metadata as plain values: runs, lineage and pushed versions."""
