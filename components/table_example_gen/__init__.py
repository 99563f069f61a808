"""TFX component that reads a table into tf.Examples, without rows that have no label."""
