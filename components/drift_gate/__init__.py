"""Measures how far new data has moved from the data of the last blessed model."""
