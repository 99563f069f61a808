"""A folder of pictures to tf.Examples."""
