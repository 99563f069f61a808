"""Trains the strategies side by side, on the same data and from the same seeds."""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from components.evaluation.results import ACCURACY
from trainer_module import history
from trainer_module.schedule.strategy import StrategyName
from trainer_module.util import files
from trainer_module.util.checks import require

from ..config import RunConfig
from ..evaluation import ROUNDING
from ..metadata import store
from ..metadata.store import Artifact, Records
from ..runners import local, progress
from . import console as comparison_console
from . import text as comparison_text
from .statistics import Comparison, Trial

FOLDER, STEM = "comparison", "comparison"


@dataclass(frozen=True)
class CompareConfig:
    """What `plateau compare` needs to know.

    Attributes:
        run: What all runs have in common.
        strategies: Strategies to train; the others are measured against the first.
        seeds: Runs of each strategy, with --seed and the numbers after it as their seeds.
    """

    run: RunConfig
    strategies: tuple[StrategyName, ...] = (
        "lr_decay",
        "batch_increase",
        "hybrid",
    )
    seeds: int = 3

    def __post_init__(self) -> None:
        """Check that there is something to compare, and that only the strategies differ."""
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
            "Name each once; --seeds says how often each is trained.",
        )
        require(self.seeds >= 1, "`seeds` must be at least 1", self.seeds, "Try `seeds=3`.")
        require(
            self.run.schedule.plan is None,
            "`plan` must be left out of a comparison, since it goes before any strategy",
            self.run.schedule.plan,
            "Compare with `strategies`.",
        )
        require(
            not self.run.warm_start,
            "`warm_start` must be left out of a comparison, whose runs begin alike",
            self.run.warm_start,
            "Leave out `warm_start`.",
        )
        require(
            self.run.tune == 0,
            "`tune` must be left out of a comparison, whose runs share their numbers",
            self.run.tune,
            "Search with `plateau run --tune` first, and compare with what it found.",
        )


def default(preset: RunConfig) -> CompareConfig:
    """The comparison of a preset."""
    return CompareConfig(preset)


def apart(run: RunConfig) -> RunConfig:
    """The run with an output folder apart from that of ordinary ones, unless one is given."""
    if run.output is not None:
        return run
    return dataclasses.replace(run, output=run.folder.with_name(f"compare-{run.folder.name}"))


class Turn(NamedTuple):
    """One run to come.

    Attributes:
        strategy: Its strategy.
        seed: Its seed.
        config: The run.
    """

    strategy: str
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        comparison: The runs.
        page: The page about them; the same as .md and .json lie beside it.
        log: The log file.
        seconds: Wall time of the command, imports included.
    """

    comparison: Comparison
    page: Path
    log: Path
    seconds: float


def turns(config: CompareConfig) -> tuple[Turn, ...]:
    """The runs in the order in which they are trained: seed by seed.

    Each seed begins with another strategy, so that none always meets the machine cold or warm.
    """
    found = []
    run = config.run
    for place in range(config.seeds):
        seed = run.loop.seed + place
        shift = place % len(config.strategies)
        for strategy in (*config.strategies[shift:], *config.strategies[:shift]):
            schedule = dataclasses.replace(run.schedule, strategy=strategy)
            loop = dataclasses.replace(run.loop, seed=seed)
            found.append(
                Turn(strategy, seed, dataclasses.replace(run, schedule=schedule, loop=loop))
            )
    return tuple(found)


def run(config: CompareConfig, console: Console, command: str) -> Compared:
    """Train what is not trained yet, and write the report.

    Nothing is pushed. A run that was finished by an earlier call is found in TFX's cache; one that
    was ended goes on where it was.

    Args:
        config: The comparison.
        console: Where progress is printed.
        command: Command that repeats the comparison, for its report.

    Raises:
        ValueError: As `local.session`.
        disk.DiskFullError: As `local.session`.
        run_lock.OutputBusyError: As `local.session`.
        local.RunFailedError: A component failed; what was finished before is kept.
    """
    began = time.monotonic()
    with local.session(apart(config.run)) as here:
        config = dataclasses.replace(config, run=here.config)
        with progress.shown(console) as shown:
            trials = []
            todo = turns(config)
            for number, turn in enumerate(todo, 1):
                comparison_console.print_turn(console, number, len(todo), turn.strategy, turn.seed)
                try:
                    trials.append(_trial(turn, here, shown))
                except Exception as cause:
                    which = f"{turn.strategy} with seed {turn.seed}"
                    where = f"{shown.component} of {which}" if shown.component else which
                    raise here.failed(cause, where) from cause
        names: tuple[str, ...] = config.strategies
        trials.sort(key=lambda trial: (names.index(trial.strategy), trial.seed))
        comparison = Comparison(tuple(trials))
        page = write(comparison, config, command, here.output / FOLDER)
        return Compared(comparison, page, here.log, time.monotonic() - began)


def write(comparison: Comparison, config: CompareConfig, command: str, folder: Path) -> Path:
    """Write page, Markdown and JSON, each whole or not at all.

    Returns:
        The page.
    """
    from . import page as comparison_page

    title = f"{config.run.name}: {len(comparison.strategies)} strategies compared"
    settings = _settings(config)
    content = comparison_page.Page(
        title=title,
        written=datetime.now().astimezone(),
        comparison=comparison,
        command=command,
        config=settings,
        cores=os.cpu_count() or 1,
    )
    record = {"command": command, "config": settings, **comparison.to_dict()}
    texts = {
        ".html": comparison_page.page(content),
        ".md": comparison_text.markdown(comparison, title, command),
        ".json": json.dumps(record, indent=1) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        with files.whole(folder / f"{STEM}{suffix}") as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return folder / f"{STEM}.html"


def outcome(records: Records, run_id: str) -> tuple[Artifact, Artifact | None]:
    """What a run trained, and what an Evaluator found out about it, in this or an earlier run.

    The Evaluator compares with the last blessed model, which is another one each time, so the
    cache does not serve it; but what it found out about this model stays true.

    Args:
        records: ML Metadata.
        run_id: The pipeline run's id.

    Returns:
        The training history, and the evaluation of the model or None.
    """
    (trainer,) = (e for e in records.run(run_id).executions if e.component == "Trainer")
    made = dict(trainer.outputs)
    found = None
    for execution in records.executions.values():
        if execution.component == "Evaluator" and execution.state in ("complete", "cached"):
            evaluations = dict(execution.outputs)
            if ("model", made["model"]) in execution.inputs and "evaluation" in evaluations:
                found = evaluations["evaluation"]
    return made["training_history"], found


def _trial(turn: Turn, here: local.Session, shown: progress.Progress) -> Trial:
    """Train, or find in the cache, and evaluate what has not been evaluated."""
    from components.evaluation import results

    run_id = _run_to("Trainer", turn.config, here)
    trained, evaluated = outcome(store.read(here.store), run_id)
    # What is the same for every run has been told of once.
    shown.only = frozenset({"Evaluator"})
    if evaluated is None:
        run_id = _run_to("Evaluator", turn.config, here)
        trained, evaluated = outcome(store.read(here.store), run_id)
    shown.only = frozenset({"Trainer"})
    assert evaluated is not None
    found = results.read(evaluated.uri, turn.config.classes, rounding=ROUNDING)
    return Trial(
        strategy=turn.strategy,
        seed=turn.seed,
        history=history.read(Path(trained.uri) / history.FILE_NAME),
        test_accuracy=found.candidate[ACCURACY],
        run=run_id,
    )


def _run_to(node: str, config: RunConfig, here: local.Session) -> str:
    # Of a node that neither runs nor needs one that does, TFX would want what an earlier run made.
    nodes = (node, "LatestBlessedModel")
    return local.execute(config, here.data, here.output, to_nodes=nodes)


def _settings(config: CompareConfig) -> dict[str, Any]:
    """The comparison as JSON values, without what its runs do not share."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for section, name in (("schedule", "strategy"), ("schedule", "plan"), ("loop", "seed")):
        del found["run"][section][name]
    first = config.run.loop.seed
    return {
        **found["run"],
        "strategies": found["strategies"],
        "seeds": list(range(first, first + config.seeds)),
    }
