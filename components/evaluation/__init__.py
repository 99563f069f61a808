"""Evaluation results, metrics and confidence intervals."""
