"""Search for hyperparameters with KerasTuner; a trial is a run of the loop."""

from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus
from rich.console import Console

from trainer_module.config import TrainConfig
from trainer_module.schedule.schedule import NonFiniteError

Train = Callable[[Mapping[str, Any]], float]
"""From hyperparameters by name to the best value of the monitor."""


def space(config: TrainConfig, num_examples: int) -> keras_tuner.HyperParameters:
    """Returns the search space around a config, whose own values are the defaults.

    Args:
        config: Config to start from.
        num_examples: Training examples; the first batch stays below a tenth of them, the cap that
            growth is bounded by.

    Returns:
        learning_rate, a tenth to ten times; batch_size, half to four times; patience and
        width_multiplier, half to twice.
    """
    rate, width = config.optimization.known_rate, config.network.width_multiplier
    batch_size, patience = config.loop.batch_size, config.schedule.plateau.patience
    largest = max(batch_size, num_examples // 10)
    searched = keras_tuner.HyperParameters()
    searched.Float("learning_rate", rate / 10, rate * 10, sampling="log", default=rate)
    searched.Choice(
        "batch_size",
        sorted({min(max(int(batch_size * k), 1), largest) for k in (0.5, 1, 2, 4)}),
        default=batch_size,
    )
    searched.Choice(
        "patience", sorted({max(patience // 2, 1), patience, 2 * patience}), default=patience
    )
    searched.Choice(
        "width_multiplier",
        sorted({max(width / 2, 0.05), width, min(width * 2, 16.0)}),
        default=width,
    )
    return searched


class _FromDefaults(keras_tuner.oracles.RandomSearchOracle):  # type: ignore[misc]
    """Random search that tries the defaults first, so that the best trial is no worse."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if not self.start_order:
            values = {p.name: p.default for p in self.hyperparameters.space}
            self._tried_so_far.add(self._compute_values_hash(values))
            return {"status": TrialStatus.RUNNING, "values": values}
        space: dict[str, Any] = super().populate_space(trial_id)
        return space


class LoopTuner(keras_tuner.Tuner):  # type: ignore[misc]
    """Random search over `space`, resumed from its directory; the first trial is the config's own.

    It prints a line for each trial.
    """

    def __init__(
        self, config: TrainConfig, num_examples: int, train: Train, *, trials: int, directory: str
    ) -> None:
        """Prepares the search.

        Args:
            config: Config to start from; its monitor is the objective, its seed the search's.
            num_examples: Training examples.
            train: Runs one trial.
            trials: Trials in all.
            directory: Folder of the search.
        """
        plateau = config.schedule.plateau
        self._monitor = plateau.monitor
        self._train = train
        self._trials = trials
        self._console = Console(highlight=False, soft_wrap=True)
        super().__init__(
            oracle=_FromDefaults(
                objective=keras_tuner.Objective(plateau.monitor, plateau.mode),
                max_trials=trials,
                seed=config.loop.seed,
                hyperparameters=space(config, num_examples),
                tune_new_entries=False,
                # One that diverges says something about learning rates, nothing about the search.
                max_consecutive_failed_trials=trials,
            ),
            directory=directory,
            project_name="search",
            overwrite=False,
        )

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains with the trial's hyperparameters."""
        values = trial.hyperparameters.values
        values_text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        number = len(self.oracle.end_order) + 1
        start = f"    trial {number:>2}/{self._trials}  {values_text}"
        try:
            value_reached = self._train(values)
        except NonFiniteError as error:
            self._console.print(f"{start}  failed: {error}")
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        self._console.print(f"{start}  {self._monitor} {value_reached:.4f}")
        return {self._monitor: value_reached}

    def search_space_summary(self, extended: bool = False) -> None:
        """Prints nothing: each trial is printed as it ends."""

    def results_summary(self, num_trials: int = 10) -> None:
        """Prints nothing: each trial has been printed."""
