"""The last blessed model, found without ML Metadata."""
