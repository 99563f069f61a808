"""Training on several devices and workers."""
