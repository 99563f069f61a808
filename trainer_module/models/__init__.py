"""Keras models by name."""
