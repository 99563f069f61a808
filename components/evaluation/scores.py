"""Scores of a classifier as probabilities."""

import numpy as np
from numpy.typing import NDArray


def are_probabilities(scores: NDArray[np.float64]) -> bool:
    """Returns whether rows sum to one, or single scores lie between 0 and 1."""
    if scores.shape[1] == 1:
        return bool(scores.min() >= 0 and scores.max() <= 1)
    return bool(scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-2))


def probabilities(scores: NDArray[np.float64], from_logits: bool) -> NDArray[np.float64]:
    """Returns the probability of each class, [N, C], or of both classes of a single score, [N, 1].

    Args:
        scores: Probabilities or logits.
        from_logits: Whether the scores are logits, of which the softmax is taken.
    """
    if scores.shape[1] == 1:
        first = np.zeros_like(scores) if from_logits else 1 - scores
        scores = np.concatenate([first, scores], axis=1)
    if not from_logits:
        return scores
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalized: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalized
