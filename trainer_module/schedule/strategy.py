"""Registry of strategies: what each plateau changes, the learning rate or the batch size.

A new strategy is a new entry of STRATEGIES and of StrategyName; flags, console, report and
comparison read them here.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from trainer_module.util.checks import require

Action: TypeAlias = Literal[
    "none", "lr_decay", "batch_increase", "batch_increase_and_lr_decay", "rollback", "stop"
]

ACTIONS: Mapping[str, str] = {
    "none": "",
    "lr_decay": "learning rate decayed",
    "batch_increase": "batch grown",
    "batch_increase_and_lr_decay": "batch grown, learning rate decayed",
    "rollback": "rolled back to the best weights",
    "stop": "stopped",
}
"""Words of each action of the schedule after an epoch."""

CHANGES: Mapping[str, str] = {
    "none": "",
    "lr_decay": "learning rate",
    "batch_increase": "batch",
    "batch_increase_and_lr_decay": "both",
}
"""What each action of a forecast changes."""

FORMER_ACTIONS: Mapping[str, str] = {
    "decay_lr": "lr_decay",
    "grow_batch": "batch_increase",
    "grow_batch_and_decay_lr": "batch_increase_and_lr_decay",
}
"""Names of actions in the files of version 0.1, with the present ones."""

StrategyName: TypeAlias = Literal["lr_decay", "batch_increase", "hybrid", "auto"]


@dataclass(frozen=True)
class Strategy:
    """What a strategy changes at each plateau."""

    grows_batch: Callable[[int], bool]
    """Whether the i-th action, from 0, grows the batch; it decays the learning rate otherwise."""
    words: str
    """What happens at a plateau."""
    colour: str
    """CSS variable of its lines: the quantity that it acts on, as the training report draws it."""
    is_measured: bool = False
    """Whether the simple noise scale and the throughput, where measured, decide instead."""


STRATEGIES: Mapping[str, Strategy] = {
    "lr_decay": Strategy(lambda action: False, "decays the learning rate", "--rate"),
    "batch_increase": Strategy(lambda action: True, "grows the batch", "--batch"),
    # The middle curve of Smith et al. 2018, figure 1.
    "hybrid": Strategy(
        lambda action: action == 0, "grows the batch once, then decays the learning rate", "--noise"
    ),
    "auto": Strategy(
        lambda action: action == 0,
        "grows the batch where noise dominates and a larger batch is faster, else decays the "
        "learning rate",
        "--validation",
        is_measured=True,
    ),
}


class Change(NamedTuple):
    """Change of batch size and learning rate that is wanted at a plateau.

    Attributes:
        batch_factor: Factor of at least 1 by which the batch is to grow.
        rate_divisor: Divisor of at least 1 of the learning rate.
    """

    batch_factor: float = 1.0
    rate_divisor: float = 1.0


class Limits(NamedTuple):
    """Bounds that no change passes.

    Attributes:
        batch_size: Largest global batch, in examples.
        learning_rate: Smallest learning rate.
    """

    batch_size: int
    learning_rate: float


def make_change(grows_batch: bool, factor: float, exponent: int) -> Change:
    """Returns the change that lowers eps^exponent / B by factor, through one of the two alone."""
    return Change(batch_factor=factor) if grows_batch else Change(1.0, factor ** (1 / exponent))


def apply_change(
    change: Change, learning_rate: float, batch_size: int, exponent: int, limits: Limits
) -> tuple[float, int]:
    """Returns learning rate and batch size after a change, both within limits.

    What the cap, or rounding down to a whole number of examples, cuts off the batch's growth goes
    into the learning rate at once (Smith et al. 2018 cap at 5,120 and decay from there), so that
    eps^exponent / B drops as wanted; only the floor of the learning rate can make it drop by less.
    """
    wanted = batch_size * change.batch_factor
    # The slack keeps 100 * 1.15 = 114.999... from losing a whole example to float rounding.
    grown = min(math.floor(wanted * (1 + 1e-15)), max(limits.batch_size, batch_size))
    residual = max(wanted / grown, 1.0) ** (1 / exponent)
    decayed = learning_rate / (change.rate_divisor * residual)
    return max(decayed, min(limits.learning_rate, learning_rate)), grown


_TERM = re.compile(r"(batch\s*\*|lr\s*/)\s*(\S+)", re.IGNORECASE)


def parse_plan(text: str) -> tuple[Change, ...]:
    """Parses a list of actions such as "batch*5, lr/5, batch*2 lr/2".

    Raises:
        UserError: An action is not batch*F, lr/F or both, with a finite F above 1.
    """
    return tuple(_parse_change(action) for action in text.split(","))


def _parse_change(text: str) -> Change:
    terms = _TERM.findall(text)
    factors = {term[0].lower(): _parse_factor(factor) for term, factor in terms}
    require(
        # Each term once, and nothing else.
        len(factors) == len(terms) > 0
        and not _TERM.sub("", text).strip()
        and all(1 < factor < math.inf for factor in factors.values()),
        "each action of `plan` must be batch*F, lr/F or both, F being a number above 1",
        text.strip(),
        "Give an action for each plateau, separated by commas, such as `plan=batch*5, lr/5, lr/5`,"
        " or `plan=batch*2 lr/2` for both at one plateau.",
    )
    return Change(factors.get("b", 1.0), factors.get("l", 1.0))


def _parse_factor(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
