"""A table to tf.Examples, without the rows that have no label."""
