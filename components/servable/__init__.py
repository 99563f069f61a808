"""Servable: component that sends requests to a model and blesses it if it can be served."""
