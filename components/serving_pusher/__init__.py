"""TFX's Pusher for a folder that TensorFlow Serving watches."""
