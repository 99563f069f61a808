"""Linear and square-root scaling rules: how learning rate and batch size set the update noise.

Smith & Le (ICLR 2018, arXiv:1710.06451) and Smith et al. (ICLR 2018, arXiv:1711.00489): SGD with
learning rate eps, batch size B, N examples and momentum m updates the weights with a noise of scale

    g = eps / (1 - m) * (N / B - 1)  ~  eps N / (B (1 - m))   where B << N.

They call g the noise scale; here it is the *update noise*, since the *simple noise scale* B_simple
of McCandlish et al. 2018 is another quantity, a batch size that is measured (training/noise.py).

A learning rate k times smaller and a batch k times larger lower g alike. As in the published
schedules, the batch grows by exactly k (64 -> 256) and shares of a drop are worked out with the
leading term eps / B; the exact g is what is recorded, and falls by slightly more than k when the
batch grows (for N = 50,000 and k = 4 the exact answer to 2,048 is 7,296, not 8,192).

An adaptive optimizer divides the gradient by its own size, so that its noise goes as eps^2 / B:
Malladi et al. (NeurIPS 2022, arXiv:2205.10287) derive for RMSprop and Adam that a batch k times
larger asks for a learning rate sqrt(k) times larger. Seesaw (Meterez et al. 2025,
arXiv:2510.14717) keeps the loss of a learning rate cut by k with a cut by sqrt(k) and a batch k
times larger, so there too k in batch stands for sqrt(k) in learning rate.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from annotated_types import Ge, Interval

from trainer_module.util.checks import check_fields

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


@dataclass(frozen=True)
class TrainingSpec:
    """What the schedule must know of the training that it steers."""

    num_examples: Annotated[int, Ge(1)]
    """Training examples N in an epoch."""
    optimizer: str
    """Class of the optimizer (sgd, adam, adamw, ...), in any case."""
    momentum: Annotated[float, Interval(ge=0, lt=1)]
    """Momentum m of SGD; of no effect with an adaptive optimizer."""
    max_batch_size: Annotated[int | None, Ge(1)] = None
    """Largest global batch that fits in memory, if known."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        check_fields(self)


class ScalingRule(NamedTuple):
    """How learning rate trades against batch size.

    Attributes:
        exponent: p in the noise eps^p / B: k in batch stands for k^(1/p) in learning rate.
        text: One sentence saying which rule was taken, and why.
    """

    exponent: int
    text: str


def scaling_rule(optimizer: str) -> ScalingRule:
    """Returns the rule for an optimizer; SGD's, and the text says so, for an unknown one."""
    name = optimizer.lower()
    if name in _ADAPTIVE:
        return ScalingRule(
            2,
            f"{optimizer}: noise goes as learning rate squared over batch, so learning rate"
            " / sqrt(k) equals batch * k (Malladi et al. 2022; Seesaw, arXiv:2510.14717).",
        )
    reason = "" if name == "sgd" else "not known to be adaptive, so treated as SGD: "
    return ScalingRule(
        1,
        f"{optimizer}: {reason}noise goes as learning rate over batch, so learning rate / k equals"
        " batch * k (Smith et al. 2018).",
    )


def update_noise(learning_rate: float, batch_size: int, spec: TrainingSpec) -> float:
    """Returns the update noise g, 0 where the batch is the whole training split.

    Args:
        learning_rate: eps, positive.
        batch_size: Global batch size B, in examples.
        spec: N, optimizer and momentum.

    Returns:
        eps / (1 - m) * (N / B - 1) for SGD (Smith & Le 2018); eps^2 (N / B - 1) for an adaptive
        optimizer. Comparable along a run, not across the two.
    """
    p = scaling_rule(spec.optimizer).exponent
    momentum = spec.momentum if p == 1 else 0.0
    return learning_rate**p / (1 - momentum) * max(spec.num_examples / batch_size - 1, 0.0)
