"""Custom TFX components, a folder each: component (spec), executor (unpack, call, pack), logic."""
