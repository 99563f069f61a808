"""Faster kernels for the computations of Keras layers and optimizers."""
