"""What is measured, and how: ratios of contestants that take turns within one run."""
