"""How learning rate and batch size together set the noise of the updates.  Pure.

Smith & Le (ICLR 2018, arXiv:1710.06451) and Smith et al. (ICLR 2018, arXiv:1711.00489): SGD with
learning rate eps, batch size B, N examples and momentum m has the noise scale

    g = eps / (1 - m) * (N / B - 1)  ~  eps N / (B (1 - m))   where B << N.

So a learning rate k times smaller and a batch k times larger lower the noise alike. As in the
published schedules, the batch grows by exactly k (64 -> 256) and shares of a drop are worked out
with the leading term eps / B; the exact g is what is recorded, and falls by slightly more than k
when the batch grows (for N = 50,000 and k = 4 the exact answer to 2,048 is 7,296, not 8,192).

An adaptive optimizer divides the gradient by its own size, so that its noise goes as eps^2 / B:
Malladi et al. (NeurIPS 2022, arXiv:2205.10287) derive for RMSprop and Adam that a batch k times
larger asks for a learning rate sqrt(k) times larger. Seesaw (Meterez et al. 2025,
arXiv:2510.14717) keeps the loss of a learning rate cut by k with a cut by sqrt(k) and a batch k
times larger, so there too k in batch stands for sqrt(k) in learning rate.
"""

import math
from typing import NamedTuple

from trainer_module.util.checks import require

_ADAPTIVE = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "lamb",
    "nadam",
    "rmsprop",
)


class Problem(NamedTuple):
    """What the schedule must know of the training it steers.

    Attributes:
        num_examples: Training examples N in an epoch.
        optimizer: Class of the optimizer (sgd, adam, adamw, ...), in any case.
        momentum: Momentum m of SGD in [0, 1); of no effect with an adaptive optimizer.
        max_batch_size: Largest global batch that fits in memory, if known.
    """

    num_examples: int
    optimizer: str
    momentum: float
    max_batch_size: int | None = None


class UpdateRule(NamedTuple):
    """How learning rate trades against batch size.

    Attributes:
        name: linear or square_root.
        exponent: p in the noise eps^p / B: k in batch stands for k^(1/p) in learning rate.
        text: One sentence saying which rule was taken, and why.
    """

    name: str
    exponent: int
    text: str


def update_rule(optimizer: str) -> UpdateRule:
    """The rule for an optimizer; SGD's, and the text says so, for one it does not know."""
    name = optimizer.lower()
    if name in _ADAPTIVE:
        return UpdateRule(
            "square_root",
            2,
            f"{optimizer}: noise goes as learning rate squared over batch, so learning rate"
            " / sqrt(k) equals batch * k (Malladi et al. 2022; Seesaw, arXiv:2510.14717).",
        )
    if name == "sgd":
        return UpdateRule(
            "linear",
            1,
            f"{optimizer}: noise goes as learning rate over batch, so learning rate / k equals"
            " batch * k (Smith et al. 2018).",
        )
    return UpdateRule(
        "linear",
        1,
        f"{optimizer}: not known to be adaptive, so treated as SGD: learning rate / k equals"
        " batch * k (Smith et al. 2018).",
    )


def check_problem(problem: Problem) -> None:
    """Raise ValueError where a field of problem is out of range."""
    require(
        problem.num_examples >= 1,
        "num_examples must be at least 1",
        problem.num_examples,
        "Check that the training split holds examples.",
    )
    require(
        0 <= problem.momentum < 1,
        "momentum must be in [0, 1)",
        problem.momentum,
        "Try momentum=0.9.",
    )
    require(
        problem.max_batch_size is None or problem.max_batch_size >= 1,
        "the largest batch that fits in memory must be at least 1",
        problem.max_batch_size,
        "Take a smaller model or smaller pictures.",
    )


def noise_scale(learning_rate: float, batch_size: int, problem: Problem) -> float:
    """Scale of the gradient noise, 0 where the batch is the whole training split.

    Args:
        learning_rate: eps, positive.
        batch_size: Global batch size B, in examples.
        problem: N, optimizer and momentum.

    Returns:
        eps / (1 - m) * (N / B - 1) for SGD (Smith & Le 2018); eps^2 (N / B - 1) for an adaptive
        optimizer. Comparable along a run, not across the two.
    """
    rule = update_rule(problem.optimizer)
    momentum = problem.momentum if rule.name == "linear" else 0.0
    share = max(problem.num_examples / batch_size - 1, 0.0)
    return math.pow(learning_rate, rule.exponent) / (1 - momentum) * share
