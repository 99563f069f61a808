"""Forecast of what the schedule will do at each plateau, before training."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated

from annotated_types import Ge
from rich.console import Group, RenderableType
from rich.text import Text

from trainer_module.schedule.scaling import scaling_rule
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.schedule.state import Stage
from trainer_module.schedule.strategy import CHANGES, STRATEGIES
from trainer_module.util.checks import check_fields

from ..config import RunConfig
from ..data.dataset import TrainingSize, training_size
from .console import table


@dataclass(frozen=True)
class PlanConfig:
    """Configuration of `plateau plan`."""

    run: RunConfig
    examples: Annotated[int | None, Ge(1)] = None
    """Number of training examples to assume; if not given, those of the data."""

    def __post_init__(self) -> None:
        """Checks ranges, and that the batch fits the examples."""
        check_fields(self)
        if self.examples is not None:
            self.run.forecast(self.examples)


@dataclass(frozen=True)
class Plan:
    """Forecast of a schedule, with sentences about it."""

    name: str
    stages: tuple[Stage, ...]
    """From the start, and from each plateau, to the next."""
    size: TrainingSize
    sentences: tuple[str, ...]


def make_plan(config: PlanConfig) -> Plan:
    """Returns what the schedule will do."""
    run, schedule = config.run, config.run.schedule
    if config.examples is None:
        size = training_size(run)
    else:
        size = TrainingSize(config.examples, config.examples, "--examples")
    stages = run.forecast(size.count)
    last = stages[-1].index + 1
    sentences = [
        _stop(schedule, last),
        scaling_rule(run.optimization.optimizer).text,
        f"Assumes {size} training examples ({size.source}).",
    ]
    if schedule.is_measured:
        words = STRATEGIES[schedule.strategy].words
        sentences.append(
            f"Strategy {schedule.strategy} {words}. The table shows what it does unmeasured."
        )
    if last <= schedule.num_actions:
        sentences.append(
            f"Plateau {last} can change nothing: learning rate and batch are at their limits."
        )
    if schedule.warmup_epochs:
        sentences.append(
            f"The learning rate rises linearly from the start to epoch "
            f"{schedule.warmup_epochs + 1}; plateaus count from then on."
        )
    if run.optimization.learning_rate == "auto":
        first = stages[bool(schedule.warmup_epochs)]
        stages = tuple(
            replace(
                stage,
                learning_rate=stage.learning_rate / first.learning_rate,
                update_noise=stage.update_noise / first.update_noise,
            )
            for stage in stages
        )
        sentences.append(
            "Learning rate and update noise are relative to the first, which a range test finds."
        )
    return Plan(run.title, stages, size, tuple(sentences))


def show(plan: Plan) -> RenderableType:
    """Returns a forecast as a table, with its sentences."""
    numbers = "learning rate", "batch", "steps/epoch", "update noise"
    listing = table(f"Plan of {plan.name}", "from", "changes", *numbers, numbers=numbers, gap=0)
    for row, stage in enumerate(plan.stages):
        listing.add_row(
            f"plateau {stage.index}" if stage.index else "end of warm-up" if row else "start",
            CHANGES[stage.action],
            # Six digits without an exponent, so that rates compare at a glance.
            f"{Decimal(f'{stage.learning_rate:.6g}'):f}",
            f"{stage.batch_size:,}",
            f"{stage.steps_per_epoch:,}",
            f"{stage.update_noise:.4g}",
        )
    return Group(listing, *map(Text, plan.sentences))


def _stop(schedule: ScheduleConfig, last: int) -> str:
    watched = schedule.plateau
    span = "an epoch" if watched.patience == 1 else f"{watched.patience} epochs in a row"
    budget = "" if schedule.time_budget is None else f" or {schedule.time_budget:g} s of training"
    return (
        f"A plateau is {span} without a better {watched.monitor}; plateau {last} stops the run, "
        f"and so do {schedule.max_epochs} epochs{budget}."
    )
