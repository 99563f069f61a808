"""Serving signatures of a trained model."""
