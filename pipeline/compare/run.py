"""Comparison of strategies: trains them side by side, on the same data and from the same seeds."""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from annotated_types import Ge
from rich.console import Console

from components.evaluation.results import ACCURACY
from trainer_module import history
from trainer_module.schedule.strategy import StrategyName
from trainer_module.util import files
from trainer_module.util.checks import check_fields, require

from ..config import RunConfig
from ..evaluation import ROUNDING
from ..metadata import store
from ..metadata.store import Artifact, Records
from ..runners import local, progress
from . import console as comparison_console
from .statistics import Comparison, Trial

FOLDER, STEM = "comparison", "comparison"


@dataclass(frozen=True)
class CompareConfig:
    """Configuration of `plateau compare`."""

    run: RunConfig
    """What all runs have in common."""
    strategies: tuple[StrategyName, ...] = get_args(StrategyName)
    """Strategies to train; the others are measured against the first."""
    seeds: Annotated[int, Ge(1)] = 3
    """Runs of each strategy, with --seed and the numbers after it as their seeds."""

    def __post_init__(self) -> None:
        """Checks that there is something to compare, and that only the strategies differ."""
        check_fields(self)
        require(
            len(self.strategies) >= 2,
            "`strategies` must be at least two",
            self.strategies,
            "Try `strategies=lr_decay batch_increase`.",
        )
        require(
            len(set(self.strategies)) == len(self.strategies),
            "`strategies` must differ",
            self.strategies,
            "Name each once; `seeds` says how often each is trained.",
        )
        plan, run = self.run.schedule.plan, self.run
        for name, value, is_set, why in (
            ("plan", plan, plan is not None, "it replaces the strategy"),
            ("warm_start", run.warm_start, run.warm_start, "all runs begin alike"),
            ("tune", run.tune, run.tune > 0, "all runs share their hyperparameters"),
        ):
            rule = f"`{name}` must be left out of a comparison, since {why}"
            require(not is_set, rule, value, f"Leave out `{name}`.")


def default(preset: RunConfig) -> CompareConfig:
    """Returns the comparison of a preset."""
    return CompareConfig(preset)


def apart(run: RunConfig) -> RunConfig:
    """Returns the run with an output folder of its own, unless one is set."""
    if run.output is not None:
        return run
    return dataclasses.replace(run, output=run.folder.with_name(f"compare-{run.folder.name}"))


class Turn(NamedTuple):
    """One run to come."""

    strategy: str
    seed: int
    config: RunConfig


class Compared(NamedTuple):
    """A finished comparison."""

    comparison: Comparison
    page: Path
    """The page; every number as .json lies beside it."""
    log: Path
    seconds: float
    """Wall time, imports included."""


def turns(config: CompareConfig) -> tuple[Turn, ...]:
    """Returns the runs in the order in which they are trained: seed by seed.

    Each seed begins with another strategy, so that none always meets the machine cold or warm.
    """
    planned = []
    run, strategies = config.run, config.strategies
    for place in range(config.seeds):
        loop = dataclasses.replace(run.loop, seed=run.loop.seed + place)
        shift = place % len(strategies)
        for strategy in (*strategies[shift:], *strategies[:shift]):
            schedule = dataclasses.replace(run.schedule, strategy=strategy)
            turn = dataclasses.replace(run, schedule=schedule, loop=loop)
            planned.append(Turn(strategy, loop.seed, turn))
    return tuple(planned)


def run(config: CompareConfig, console: Console, command: str) -> Compared:
    """Trains what is not trained yet, and writes the report.

    Nothing is pushed. A run that an earlier call finished is read from TFX's cache; one that was
    interrupted resumes.

    Args:
        config: The comparison.
        console: Where progress is printed; `Console(quiet=True)` prints none.
        command: Command that repeats the comparison, for its report.

    Raises:
        UserError: As `local.session`.
        RunFailedError: A component failed; what was finished before is kept.
    """
    began = time.monotonic()
    with local.session(apart(config.run)) as session:
        config = dataclasses.replace(config, run=session.config)
        with progress.shown(console) as printed:
            trials = []
            planned = turns(config)
            for number, turn in enumerate(planned, 1):
                comparison_console.print_turn(
                    console, number, len(planned), turn.strategy, turn.seed
                )
                try:
                    trials.append(_trial(turn, session, printed))
                except Exception as cause:
                    which = f"{turn.strategy} with seed {turn.seed}"
                    where = f"{printed.component} of {which}" if printed.component else which
                    raise session.failed(cause, where) from cause
        names: tuple[str, ...] = config.strategies
        trials.sort(key=lambda trial: (names.index(trial.strategy), trial.seed))
        comparison = Comparison(tuple(trials))
        title = f"{config.run.title}: {len(names)} strategies compared"
        folder = session.output / FOLDER
        page = write(comparison, folder, title=title, command=command, settings=_settings(config))
        return Compared(comparison, page, session.log, time.monotonic() - began)


def write(
    comparison: Comparison, folder: Path, *, title: str, command: str, settings: dict[str, Any]
) -> Path:
    """Writes a comparison as page and JSON, each atomically.

    Args:
        comparison: Runs of any strategies, of a pipeline or not.
        folder: Where to write.
        title: Heading.
        command: Command that repeats the comparison.
        settings: What all runs have in common, as JSON values.

    Returns:
        The page.
    """
    # Plotly is imported only where a page is made.
    from . import page

    content = page.Page(
        title=title,
        written=datetime.now().astimezone(),
        comparison=comparison,
        command=command,
        config=settings,
        cores=os.cpu_count() or 1,
    )
    record = {"command": command, "config": settings, **comparison.to_dict()}
    texts = {
        ".html": page.page(content),
        ".json": json.dumps(record, indent=1) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        with files.atomic(folder / f"{STEM}{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / f"{STEM}.html"


def outcome(records: Records, run_id: str) -> tuple[Artifact, Artifact | None]:
    """Returns the training history of a run, and an evaluation of its model or None.

    The Evaluator compares with the last blessed model, which is another one each time, so the
    cache does not serve it; but the evaluation of this model by an earlier run stays true.

    Args:
        records: ML Metadata.
        run_id: The pipeline run's id.
    """
    (trainer,) = (e for e in records.run(run_id).executions if e.component == "Trainer")
    trained = dict(trainer.outputs)
    evaluation = None
    for execution in records.executions.values():
        if execution.component == "Evaluator" and execution.state in ("complete", "cached"):
            evaluations = dict(execution.outputs)
            if ("model", trained["model"]) in execution.inputs and "evaluation" in evaluations:
                evaluation = evaluations["evaluation"]
    return trained["training_history"], evaluation


def _trial(turn: Turn, session: local.Session, printed: progress.Progress) -> Trial:
    """Trains, or reads from the cache, and evaluates what has not been evaluated."""
    from components.evaluation import results

    run_id = _run_to("Trainer", turn.config, session)
    trained, evaluation = outcome(store.read(session.store), run_id)
    # What is the same for every run is printed once.
    printed.only = frozenset({"Evaluator"})
    if evaluation is None:
        run_id = _run_to("Evaluator", turn.config, session)
        trained, evaluation = outcome(store.read(session.store), run_id)
    printed.only = frozenset({"Trainer"})
    assert evaluation is not None
    evaluated = results.read(evaluation.uri, turn.config.classes, rounding=ROUNDING)
    return Trial(
        strategy=turn.strategy,
        seed=turn.seed,
        history=history.read(Path(trained.uri) / history.FILE_NAME),
        test_score=evaluated.candidate[evaluated.headline or ACCURACY],
        run=run_id,
    )


def _run_to(node: str, config: RunConfig, session: local.Session) -> str:
    # Of a node that neither runs nor needs one that does, TFX would want what an earlier run made.
    nodes = (node, "LatestBlessedModel")
    return local.execute(config, session.data, session.output, to_nodes=nodes)


def _settings(config: CompareConfig) -> dict[str, Any]:
    """Returns the comparison as JSON values, without what its runs do not share."""
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config.run), default=str))
    for section, name in (("schedule", "strategy"), ("schedule", "plan"), ("loop", "seed")):
        del settings[section][name]
    first = config.run.loop.seed
    seeds = list(range(first, first + config.seeds))
    return {**settings, "strategies": list(config.strategies), "seeds": seeds}
