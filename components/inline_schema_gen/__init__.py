"""TFX component that writes a schema which travels inside the pipeline."""
