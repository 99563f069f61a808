"""The plan: how each stall's drop of the noise scale is split between learning rate and batch."""

import math
import re
from typing import NamedTuple

from trainer_module.schedule.scaling import UpdateRule
from trainer_module.util.checks import require

_REMEDY = (
    'Give one action for each stall, separated by commas, such as plan="batch*5, lr/5, lr/5",'
    ' or plan="batch*2 lr/2" to do both at one stall.'
)
_TERM = re.compile(r"(batch)\s*\*\s*(\S+)|(lr)\s*/\s*(\S+)", re.IGNORECASE)


class Split(NamedTuple):
    """What one stall asks for.

    Attributes:
        batch: Factor of at least 1 by which the batch is to grow.
        learning_rate: Divisor of at least 1 of the learning rate.
    """

    batch: float = 1.0
    learning_rate: float = 1.0


class Limits(NamedTuple):
    """Bounds that no action passes.

    Attributes:
        batch_size: Largest global batch, in examples.
        learning_rate: Smallest learning rate.
    """

    batch_size: int
    learning_rate: float


def parse_plan(text: str) -> tuple[Split, ...]:
    """Parse a list of actions such as "batch*5, lr/5, batch*2 lr/2".

    Raises:
        ValueError: An empty plan or stall, a term that is neither batch*F nor lr/F, a factor not
            finite or not above 1, or the same term twice at one stall.
    """
    require(bool(text.strip()), "plan must hold at least one action", text, _REMEDY)
    return tuple(_parse_stall(stall) for stall in text.split(","))


def strategy_plan(
    strategy: str, factor: float, actions: int, rule: UpdateRule
) -> tuple[Split, ...]:
    """The plan of a strategy, one split for each of its actions.

    hybrid is the middle curve of Smith et al. 2018, figure 1: one increase of the batch, then
    decay of the learning rate. auto, which chooses by measurement, has it to fall back on.
    """
    batch, decay = Split(batch=factor), decay_split(factor, rule)
    return {
        "lr_decay": (decay,) * actions,
        "batch_increase": (batch,) * actions,
        "hybrid": (batch, *(decay,) * actions)[:actions],
        "auto": (batch, *(decay,) * actions)[:actions],
    }[strategy]


def decay_split(factor: float, rule: UpdateRule) -> Split:
    """The split that lowers the noise by factor through the learning rate alone."""
    return Split(learning_rate=factor ** (1 / rule.exponent))


def apply_split(
    split: Split, learning_rate: float, batch_size: int, rule: UpdateRule, limits: Limits
) -> tuple[float, int]:
    """Learning rate and batch size after an action, both within limits.

    What the cap, or rounding down to a whole number of examples, cuts off the batch's growth goes
    into the learning rate at once (Smith et al. 2018 cap at 5,120 and decay from there), so that
    eps^p / B drops as asked; only the floor of the learning rate can make it drop by less.
    """
    wanted = batch_size * split.batch
    # The slack keeps 100 * 1.15 = 114.999... from losing a whole example to float rounding.
    grown = min(math.floor(wanted * (1 + 1e-15)), max(limits.batch_size, batch_size))
    residual = max(wanted / grown, 1.0) ** (1 / rule.exponent)
    decayed = learning_rate / (split.learning_rate * residual)
    return max(decayed, min(limits.learning_rate, learning_rate)), grown


def _parse_stall(text: str) -> Split:
    asked: dict[str, float] = {}
    rest = text.strip()
    require(bool(rest), "each stall of the plan must have an action", text, _REMEDY)
    while rest:
        term = _TERM.match(rest)
        require(term is not None, "an action must be batch*F, lr/F or both", rest, _REMEDY)
        assert term is not None
        name = (term[1] or term[3]).lower()
        require(name not in asked, f"{name} may appear once at each stall", text.strip(), _REMEDY)
        asked[name] = _parse_factor(term[2] or term[4], term[0])
        rest = rest[term.end() :].lstrip()
    return Split(asked.get("batch", 1.0), asked.get("lr", 1.0))


def _parse_factor(text: str, term: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    require(
        1 < factor < math.inf, "the factor of an action must be a number above 1", term, _REMEDY
    )
    return factor
