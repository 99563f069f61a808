"""The plateau schedule: pure decisions on learning rate and batch size."""
