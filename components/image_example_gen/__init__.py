"""TFX component that reads a folder of images into tf.Examples."""
