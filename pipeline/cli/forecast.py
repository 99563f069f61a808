"""What the schedule would do at each plateau, known before training."""

from dataclasses import dataclass

from trainer_module.schedule.scaling import scaling_rule
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.schedule.state import Stage
from trainer_module.schedule.strategy import STRATEGIES
from trainer_module.util.checks import require

from ..config import RunConfig
from ..data.dataset import TrainingSize, training_size


@dataclass(frozen=True)
class PlanConfig:
    """What `plateau plan` needs to know.

    Attributes:
        run: The run to foretell.
        examples: Number of training examples to assume; if not given, those of the data.
    """

    run: RunConfig
    examples: int | None = None

    def __post_init__(self) -> None:
        """Check ranges, and that the batch fits the examples."""
        if self.examples is not None:
            require(
                self.examples >= 1,
                "examples must be at least 1",
                self.examples,
                "Try --examples 50000.",
            )
            self.run.forecast(self.examples)


@dataclass(frozen=True)
class Plan:
    """A forecast and what it rests on.

    Attributes:
        name: Name of the preset.
        stages: From the start, and from each plateau, to the next.
        rule: How learning rate trades against batch size, a sentence.
        stop: What ends the run, a sentence.
        size: Training examples it assumes.
        notes: What else bears on it, sentences.
    """

    name: str
    stages: tuple[Stage, ...]
    rule: str
    stop: str
    size: TrainingSize
    notes: tuple[str, ...] = ()


def make_plan(config: PlanConfig) -> Plan:
    """Foretell what the schedule does.

    Raises:
        ValueError: Data that cannot be found or counted, or a batch larger than it.
    """
    run = config.run
    if config.examples is None:
        size = training_size(run)
    else:
        size = TrainingSize(config.examples, config.examples, "--examples")
    stages = run.forecast(size.count)
    notes = []
    strategy = STRATEGIES[run.schedule.strategy]
    if strategy.is_measured and run.schedule.plan is None:
        notes.append(f"Without a measurement: strategy {run.schedule.strategy} {strategy.words}.")
    last = stages[-1].index + 1
    if last <= run.schedule.num_actions:
        notes.append(
            f"Plateau {last} can change nothing: learning rate and batch are at their limits."
        )
    if run.schedule.warmup_epochs:
        notes.append(
            f"The learning rate rises linearly from the start to epoch "
            f"{run.schedule.warmup_epochs + 1}; no plateau is looked for before."
        )
    return Plan(
        name=run.name,
        stages=stages,
        rule=scaling_rule(run.optimization.optimizer).text,
        stop=_stop(run.schedule, last),
        size=size,
        notes=tuple(notes),
    )


def _stop(schedule: ScheduleConfig, plateau: int) -> str:
    """The stop rule in words."""
    watched = schedule.plateau
    span = "an epoch" if watched.patience == 1 else f"{watched.patience} epochs in a row"
    budget = "" if schedule.time_budget is None else f" or {schedule.time_budget:g} s of training"
    return (
        f"A plateau is {span} without a better {watched.monitor}; plateau {plateau} stops the run, "
        f"and so do {schedule.max_epochs} epochs{budget}."
    )
