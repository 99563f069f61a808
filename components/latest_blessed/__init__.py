"""TFX component that finds the last blessed model without ML Metadata."""
