"""Helpers without TensorFlow."""
