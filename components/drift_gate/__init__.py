"""TFX component that measures data drift and skew, and stops the run beyond a threshold."""
