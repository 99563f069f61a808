"""Stops the run where the data breaks the schema."""
