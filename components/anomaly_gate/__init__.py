"""TFX component that stops the run where the data breaks its schema."""
