"""Training loop: epoch, evaluation, decision, checkpoint."""

import contextlib
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from trainer_module import history
from trainer_module.distributed import strategies
from trainer_module.history import EpochRecord, History
from trainer_module.schedule import forecast, schedule
from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.schedule import NonFiniteError, ScheduleConfig
from trainer_module.schedule.state import Decision, ScheduleState
from trainer_module.training import checkpoint, noise, range_test, throughput
from trainer_module.training.batch import (
    DatasetFactory,
    as_factory,
    check_epoch,
    count_examples,
    distributed,
)
from trainer_module.training.callbacks import Callback, Callbacks, ConsoleProgress
from trainer_module.training.checkpoint import Checkpoints, Snapshot
from trainer_module.training.epoch import EpochTrainer
from trainer_module.training.model import build, check_model, prepare_optimizer
from trainer_module.training.objective import Metrics, Objective
from trainer_module.training.optimizer import averages, describe, first_learning_rate, training_spec
from trainer_module.training.step import Steps
from trainer_module.util.checks import require
from trainer_module.util.preemption import leaving_on_sigterm


def train(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | str,
    training_data: tf.data.Dataset | DatasetFactory,
    validation_data: tf.data.Dataset,
    config: ScheduleConfig,
    *,
    batch_size: int,
    num_examples: int | None = None,
    micro_batch: int | None = None,
    find_learning_rate: bool = False,
    steps_per_call: int = 8,
    loss: Any = None,
    metrics: Metrics | None = None,
    loss_weights: Any = None,
    weighted_metrics: Sequence[Any] | None = None,
    class_weight: Mapping[int, float] | None = None,
    directory: Path | str | None = None,
    description: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: bool | None = None,
    strategy: tf.distribute.Strategy | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Trains until the schedule stops; the model is left with the weights of the best epoch.

    Args:
        model: Any Keras model, from x to what loss and metrics take (logits [B, C] by default).
        optimizer: Optimizer with a plain number as learning rate, the one of the first epoch, or
            its name; `model.optimizer` for a compiled model.
        training_data: Batches (x, y) or (x, y, sample_weight), tensors [B, ...] or structures of
            them, which reach the model as they are; one epoch, which is put into batches of another
            size as the schedule grows it. Or a function (batch_size, epoch) -> batches of that
            epoch, whose order may depend on the epoch.
        validation_data: Batches of the same kind, the same at each evaluation.
        config: What happens at a plateau, and when to stop. Without metrics, the default monitor
            is val_loss.
        batch_size: Global batch size of the first epoch, in examples.
        num_examples: Training examples in an epoch, N of the update noise; compared with what an
            epoch gives. If not given, they are counted in a pass over the first epoch's batches.
        micro_batch: Largest batch a replica computes at once; bigger ones accumulate gradients.
        find_learning_rate: Whether a range test of about a hundred updates finds the first learning
            rate, in place of the optimizer's.
        steps_per_call: Steps run by one call of the traced function.
        loss: What `compile` takes, or a function (y, output) -> loss of each example [B, ...]; the
            mean over the batch is minimised. If not given, loss and metrics are those the model was
            compiled with; for other models, softmax cross-entropy of class indices and accuracy.
        metrics: What `compile` takes; or functions (y, output) -> value of each example [B, ...]
            and Keras metrics by name. The history calls them by these names for training and
            val_NAME for validation.
        loss_weights: As in `compile`.
        weighted_metrics: As in `compile`.
        class_weight: As in `fit`.
        directory: Folder of checkpoints; if it holds some of this run, it is resumed. Of several
            workers only the chief uses it.
        description: What else defines the run, as JSON: kept in the history, and a resumed run
            must have the same.
        callbacks: Notified after each epoch; with several workers, those of the chief.
        verbose: Whether to print each epoch and each decision, with a progress bar in a terminal;
            None prints in a terminal and in a notebook only. Of several workers the chief prints.
        strategy: Strategy in whose scope model and optimizer were made; the model's if not given.
        clock: Seconds, monotonic.

    Returns:
        The record of the run.

    Raises:
        ValueError: The model is of Keras 2, the monitor is no metric of this run, batch or learning
            rate are out of bounds, the data has another number of examples, or the checkpoints are
            another run's.
        schedule.NonFiniteError: Loss or metric is NaN or infinite and the schedule says raise.
        preemption.Preempted: SIGTERM arrived; the last finished epoch is in `directory`.
    """
    check_epoch(validation_data, "validation_data")
    check_model(model, validation_data.element_spec[0])
    strategy = strategy or model.distribute_strategy
    make_dataset = as_factory(training_data, class_weight)
    is_counted = num_examples is None
    if num_examples is None:
        num_examples = count_examples(make_dataset(batch_size, 1))
    with strategy.scope():
        objective = Objective.of_model(
            model,
            loss,
            metrics=metrics,
            loss_weights=loss_weights,
            weighted_metrics=weighted_metrics,
        )
        build(model, objective, validation_data)
        optimizer = prepare_optimizer(optimizer, model)
    if not objective.has_metrics and config.plateau.monitor == PlateauConfig().monitor:
        config = replace(config, plateau=replace(config.plateau, monitor="val_loss", mode="min"))
    is_chief = strategy.extended.should_checkpoint
    evaluation = distributed(validation_data, strategy)
    steps = Steps(
        model,
        optimizer,
        evaluation.element_spec,
        objective=objective,
        steps_per_call=steps_per_call,
        strategy=strategy,
    )
    # Other workers may see other files, or none.
    folder = Path(directory) if directory and is_chief else None
    callbacks = [*_progress(verbose, config), *callbacks] if is_chief else []
    description = {
        **({"loss_weights": objective.loss_weights} if objective.loss_weights else {}),
        **({"class_weight": dict(class_weight)} if class_weight else {}),
        **(description or {}),
    }
    if find_learning_rate:
        first_learning_rate(optimizer)
        test = range_test.find(
            steps, make_dataset, batch_size, micro_batch, directory=folder, clock=clock
        )
        optimizer.learning_rate.assign(test.learning_rate)
        description[history.RANGE_TEST] = asdict(test)
        Callbacks(callbacks).notify(
            "on_message",
            f"learning rate {test.learning_rate:g}, found by a range test of {len(test.rates)} "
            f"updates in {test.seconds:.1f} s",
        )
    loop = TrainingLoop(
        steps,
        make_dataset,
        evaluation,
        config,
        num_examples=num_examples,
        check_num_examples=not is_counted,
        batch_size=batch_size,
        micro_batch=micro_batch,
        callbacks=callbacks,
        clock=clock,
        description=description,
    )
    loop.resume(folder)
    return loop.train()


def _progress(verbose: bool | None, config: ScheduleConfig) -> list[Callback]:
    console = Console()
    if verbose is None:
        verbose = console.is_terminal or console.is_jupyter
    return [ConsoleProgress(console, config.max_epochs, config.time_budget)] if verbose else []


class TrainingLoop:
    """A run: what is trained, and everything that changes from epoch to epoch."""

    def __init__(
        self,
        steps: Steps,
        make_dataset: DatasetFactory,
        evaluation: Any,
        config: ScheduleConfig,
        *,
        num_examples: int,
        check_num_examples: bool,
        batch_size: int,
        micro_batch: int | None,
        callbacks: Sequence[Callback],
        clock: Callable[[], float],
        description: Mapping[str, Any],
    ) -> None:
        """Takes what `train` has prepared; `evaluation` is of `batch.distributed`."""
        self._steps, self._evaluation = steps, evaluation
        self._model, self._optimizer = model, optimizer = steps.model, steps.optimizer
        self._strategy = steps.strategy
        names = [f"{prefix}{name}" for prefix in ("", "val_") for name in steps.metric_names]
        require(
            config.plateau.monitor in names,
            f"`monitor` must be one of {', '.join(names)}",
            config.plateau.monitor,
            'Try `monitor="val_loss"`, `mode="min"`.',
        )
        replicas = int(steps.strategy.num_replicas_in_sync)
        require(
            batch_size >= replicas,
            f"`batch_size` must be at least one example for each of the {replicas} replicas",
            batch_size,
            f"Try `batch_size={replicas}`.",
        )
        self._make_dataset = make_dataset
        self._config = config
        self._callbacks = Callbacks(callbacks)
        self._clock = clock
        self._spec = training_spec(optimizer, num_examples)
        self._state = schedule.initial_state(
            config, self._spec, first_learning_rate(optimizer), batch_size
        )
        self._forecast = forecast.stages(config, self._spec, self._state.learning_rate, batch_size)
        self._trainer = EpochTrainer(
            steps,
            self._callbacks,
            micro_batch=micro_batch,
            num_examples=num_examples if check_num_examples else None,
        )
        self._records: list[EpochRecord] = []
        self._best = Snapshot.take(0, model, optimizer)
        # Another one costs memory, so it is kept only where it may be asked for.
        self._first = self._best if config.restore == "weights_reset_slots" else None
        self._checkpoints: Checkpoints | None = None
        self._description = {
            "schedule": asdict(config),
            "batch_size": batch_size,
            "micro_batch": micro_batch,
            "num_examples": num_examples,
            "replicas": replicas,
            "optimizer": describe(optimizer),
            # Shapes, not names: Keras numbers names by how many models the process has made.
            "model": [list(v.shape) for v in model.variables],
            **description,
        }

    def train(self) -> History:
        """Trains until the schedule stops; the model is left with the weights of the best epoch."""
        self._start = self._clock() - (self._records[-1].seconds if self._records else 0.0)
        self._callbacks.notify("on_train_begin", self.history())
        with leaving_on_sigterm():
            while self._state.stop_reason is None:
                try:
                    record = self.run_epoch()
                except NonFiniteError as error:
                    self._best.restore_model(self._model)
                    remedy = f"{error.remedy}{self._restart_advice()}"
                    raise NonFiniteError(error.rule, error.value, remedy) from error
                # Only after the decision, so that a resumed run does not decide again.
                self.save_checkpoint()
                self._callbacks.notify("on_epoch_end", record)
        self.compare_with_forecast()
        self._best.restore_model(self._model)
        self._callbacks.notify("on_train_end", self.history())
        return self.history()

    def run_epoch(self) -> EpochRecord:
        """Trains for an epoch, evaluates, decides, and carries the decision out."""
        before = self._state
        rate = schedule.next_learning_rate(self._config, before)
        self._optimizer.learning_rate.assign(rate)
        batches = self._make_dataset(before.batch_size, before.epoch + 1)
        epoch = self._trainer.train(batches, before.batch_size)
        self._steps.average_statistics()
        with self._averaged_weights():
            metrics = {**epoch.metrics, **self.evaluate()}
            seconds = self._clock() - self._start
            decision = self.decide(metrics, seconds)
            if decision.observation.improved_best:
                self._best = Snapshot.take(decision.epoch, self._model, self._optimizer)
        self._best.restore(decision.restore, self._model, self._optimizer, self._first)
        record = EpochRecord.after(
            self._records[-1] if self._records else None,
            self._spec,
            metrics=metrics,
            learning_rate=rate,
            batch_size=before.batch_size,
            simple_noise_scale=self._trainer.noise.b_simple,
            updates=epoch.updates,
            examples=epoch.examples,
            seconds=seconds,
            action=decision.action,
            reason=decision.reason,
            best=decision.observation.improved_best,
        )
        self._records.append(record)
        self._check_traces()
        return record

    def evaluate(self) -> dict[str, float]:
        """Returns loss and metrics of the validation data, named val_*."""
        metrics = self._steps.evaluate(self._evaluation)
        return {f"val_{name}": value for name, value in metrics.items()}

    def decide(self, metrics: Mapping[str, float], seconds: float) -> Decision:
        """Moves the schedule on by an epoch, and returns what it decides.

        Args:
            metrics: Values of training and validation by name.
            seconds: Seconds since the start of the run.

        Raises:
            schedule.NonFiniteError: A value is NaN or infinite, and the schedule says raise.
        """
        step = functools.partial(
            schedule.step,
            self._config,
            self._spec,
            self._state,
            metric=metrics[self._config.plateau.monitor],
            loss=metrics["loss"],
            elapsed_seconds=seconds,
            simple_noise_scale=self._trainer.noise.b_simple,
        )
        after, decision = step()
        if self._config.is_measured and after.batch_size > self._state.batch_size:
            gain = throughput.gain(
                self._steps,
                self._make_dataset,
                self._state.batch_size,
                after.batch_size,
                num_examples=self._spec.num_examples,
                micro_batch=self._trainer.micro_batch,
                clock=self._clock,
            )
            after, decision = step(throughput_gain=gain)
        self._state = after
        return decision

    def save_checkpoint(self) -> None:
        """Writes everything that `resume` needs, on the chief."""
        if self._checkpoints:
            self._checkpoints.save(*self._saved_state())

    def resume(self, directory: Path | None) -> None:
        """Takes the state of the newest checkpoint of this run, if there is one, on all workers.

        Args:
            directory: Folder of checkpoints; None for none.
        """
        # What is to be done after a NaN is left out: a run that ended by one may resume otherwise.
        # So are the replicas: the schedule does not depend on their number.
        fields = {k: v for k, v in self._description["schedule"].items() if k != "on_nonfinite"}
        fingerprint = json.dumps({**self._description, "replicas": None, "schedule": fields})
        saved = None
        if directory:
            self._checkpoints = Checkpoints(directory, fingerprint)
            saved = self._checkpoints.load()
        if strategies.has_several_workers(self._strategy):
            saved = checkpoint.from_chief(
                *(saved or self._saved_state()), fingerprint, self._strategy
            )
        if saved is None:
            return
        latest, self._best, state = saved
        latest.restore_model(self._model)
        latest.restore_optimizer(self._optimizer)
        self._state = ScheduleState.from_json(state["schedule"])
        self._trainer.noise = noise.NoiseState(*state["noise"])
        self._trainer.micro_batch = state["micro_batch"]
        self._records = [EpochRecord.from_dict(record) for record in state["records"]]

    def history(self) -> History:
        """Returns the record of the run so far."""
        return History(
            config=self._description,
            monitor=self._config.plateau.monitor,
            mode=self._config.plateau.mode,
            epochs=tuple(self._records),
            stop_reason=self._records[-1].reason if self._state.stop_reason else "",
            traces=self._steps.traces(),
        )

    def compare_with_forecast(self) -> None:
        """Notifies the callbacks of each action that was not as forecast.

        Actions that measurements chose were not forecast: the plan that repeats them is named.
        """
        if self._config.is_measured:
            actions = [record.action for record in self._records]
            plan = forecast.repeating_plan(self._config, self._spec.optimizer, actions)
            if plan:
                self._callbacks.notify("on_message", f'the plan "{plan}" repeats these actions')
            return
        changes = [
            (record.epoch, record.action, after.learning_rate, after.batch_size)
            for record, after in itertools.pairwise(self._records)
        ]
        for difference in forecast.verify(self._forecast, changes):
            self._callbacks.notify("on_message", f"not as forecast: {difference}")

    def _restart_advice(self) -> str:
        if not self._checkpoints:
            return ""
        folder = self._checkpoints.directory
        return f" A lower learning rate starts a new run: empty {folder} first."

    def _saved_state(self) -> tuple[Snapshot, Snapshot, dict[str, Any]]:
        latest = Snapshot.take(self._state.epoch, self._model, self._optimizer)
        state = {
            "schedule": self._state.to_json(),
            "noise": list(self._trainer.noise),
            "micro_batch": self._trainer.micro_batch,
            "records": [asdict(record) for record in self._records],
        }
        return latest, self._best, state

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Within the context the model has the averages of its weights, as `fit` leaves it."""
        if not averages(self._optimizer):
            yield
            return
        variables = self._model.trainable_variables
        trained = [np.array(v) for v in variables]
        self._optimizer.finalize_variable_values(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, trained, strict=True):
                variable.assign(value)

    def _check_traces(self) -> None:
        traces = self._steps.traces()
        if max(traces.values()) > 1:
            raise RuntimeError(f"a graph must be traced once in a run, got {traces}: a bug")
