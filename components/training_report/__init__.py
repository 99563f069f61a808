"""A page for people about a training run."""
