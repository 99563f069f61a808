"""Configuration, wiring, evaluation, runners and command line."""
