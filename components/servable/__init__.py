"""Loads a model in a fresh process, sends it requests, and blesses it if it can be served."""
