"""Keras callback of the plateau schedule, and batches whose size it changes."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trainer_module.history import EpochRecord, History, measured
from trainer_module.schedule import forecast, schedule
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.schedule.state import ScheduleState, Stage
from trainer_module.training.checkpoint import Checkpoints, Snapshot
from trainer_module.training.optimizer import first_learning_rate, inner, training_spec
from trainer_module.util.checks import UserError, require


class PlateauCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Decays the learning rate or grows the batch at each plateau of the monitored metric.

    On the same metrics it decides as `trainer_module.train`. The model keeps the weights of the
    best epoch. Example:

        callback = PlateauCallback(config, num_examples=50_000, batch_size=64)
        model.fit(
            batches(dataset, callback), validation_data=validation, epochs=config.max_epochs,
            callbacks=[callback],
        )

    Attributes:
        batch_size: Global batch size of the next epoch, in examples, an int64 variable.
        forecast: Stages that the run will pass through; empty before training.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        *,
        num_examples: int,
        batch_size: int,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Construct the callback.

        Args:
            config: What happens at a plateau, and when to stop.
            num_examples: Training examples in an epoch, N of the update noise.
            batch_size: Global batch size of the first epoch, in examples.
            directory: Folder of checkpoints, for a run that `keras.callbacks.BackupAndRestore`
                resumes. That callback must come after this one in the list.
            clock: Seconds, monotonic.

        Raises:
            UserError: Strategy auto, which needs measurements that `fit` does not make.
        """
        super().__init__()
        require(
            not config.is_measured,
            "`strategy` must need no measurement of noise and throughput, which fit does not make",
            config.strategy,
            "Choose another strategy, or train with trainer_module.train.",
        )
        self.num_examples = num_examples
        with tf.device("CPU"):
            self.batch_size = tf.Variable(batch_size, trainable=False, dtype=tf.int64)
        self.forecast: tuple[Stage, ...] = ()
        self._state: ScheduleState
        self._first: float
        self._started: float
        self._config = config
        self._first_batch_size = batch_size
        self._directory = directory
        self._clock = clock

    @property
    def history(self) -> History:
        """The record of the run so far."""
        return History(
            config=self._description,
            monitor=self._config.plateau.monitor,
            mode=self._config.plateau.mode,
            epochs=tuple(self._records),
            stop_reason=self._records[-1].reason if self._state.stop_reason else "",
        )

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Starts a new run.

        Raises:
            UserError: The optimizer averages weights, and `fit` evaluates those that it trains.
        """
        optimizer = self.model.optimizer
        require(
            not inner(optimizer).use_ema,
            "an optimizer must not average weights, since fit evaluates others than it keeps",
            f"{type(inner(optimizer)).__name__} with use_ema=True",
            "Leave out use_ema, or train with trainer_module.train, which evaluates the averages.",
        )
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self._spec = training_spec(optimizer, self.num_examples)
        self._description = {
            "schedule": asdict(self._config),
            "batch_size": self._first_batch_size,
            "num_examples": self.num_examples,
            "model": [list(v.shape) for v in self.model.variables],
        }
        self._records: list[EpochRecord] = []
        self._best = Snapshot.take(0, self.model, optimizer)
        self._start = self._best if self._config.restore == "weights_reset_slots" else None
        self._checkpoints = (
            Checkpoints(self._directory, json.dumps(self._description)) if self._directory else None
        )
        rate = first_learning_rate(optimizer)
        self._begin(schedule.initial_state(self._config, self._spec, rate, self._first_batch_size))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Sets learning rate and batch size, after resuming if `fit` starts at a later epoch."""
        if self._state.epoch != epoch:
            self._resume(epoch)
        if self._checkpoints and epoch == 0:
            self._checkpoints.discard()
        if self._state.stop_reason:
            self.model.stop_training = True
        self._rate = schedule.next_learning_rate(self._config, self._state)
        self.model.optimizer.learning_rate.assign(self._rate)
        self._updates = int(self.model.optimizer.iterations.numpy())
        self.batch_size.assign(self._state.batch_size)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Ends the epoch after its last full batch."""
        # Left to find the end itself, Keras begins a step without data, in which whatever depends
        # on no data, such as weight decay and the count of iterations, is computed all the same.
        if self._state.stop_reason or batch >= self.num_examples // self._state.batch_size:
            raise StopIteration

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Decides, and carries the decision out."""
        # A run that was resumed after it had stopped.
        if self._state.stop_reason:
            return
        monitor = self._config.plateau.monitor
        values = measured(logs, monitor)
        before, optimizer = self._state, self.model.optimizer
        updates = int(optimizer.iterations.numpy()) - self._updates
        seconds = self._clock() - self._started
        self._state, decision = schedule.step(
            self._config,
            self._spec,
            before,
            metric=values[monitor],
            loss=values["loss"],
            elapsed_seconds=seconds,
        )
        if decision.observation.improved_best:
            self._best = Snapshot.take(decision.epoch, self.model, optimizer)
        self._best.restore(decision.restore, self.model, optimizer, self._start)
        self._records.append(
            EpochRecord.after(
                self._records[-1] if self._records else None,
                self._spec,
                metrics=values,
                learning_rate=self._rate,
                batch_size=before.batch_size,
                updates=updates,
                examples=updates * before.batch_size,
                seconds=seconds,
                action=decision.action,
                reason=decision.reason,
                best=decision.observation.improved_best,
            )
        )
        self.model.stop_training = self.model.stop_training or decision.action == "stop"
        if self._checkpoints:
            latest = Snapshot.take(decision.epoch, self.model, optimizer)
            memory = {
                "first": self._first,
                "schedule": self._state.to_json(),
                "records": [asdict(record) for record in self._records],
            }
            self._checkpoints.save(latest, self._best, memory)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restores the weights of the best epoch."""
        self._best.restore_model(self.model)

    def _begin(self, state: ScheduleState) -> None:
        self._state, self._first = state, state.learning_rate
        self._started = self._clock()
        self.forecast = forecast.stages(
            self._config, self._spec, self._first, self._first_batch_size
        )

    def _resume(self, epoch: int) -> None:
        saved = self._checkpoints.load(epoch) if self._checkpoints else None
        if self._checkpoints is None or saved is None:
            raise UserError(
                f"fit must start at the epoch that the schedule has reached ({self._state.epoch})",
                epoch,
                "Give PlateauCallback a directory and put it before BackupAndRestore, or leave out "
                "initial_epoch.",
            )
        self._checkpoints.discard(epoch)
        latest, self._best, memory = saved
        latest.restore_model(self.model)
        latest.restore_optimizer(self.model.optimizer)
        self._records = [EpochRecord.from_dict(record) for record in memory["records"]]
        state = ScheduleState.from_json(memory["schedule"])
        self._begin(state._replace(learning_rate=memory["first"]))
        self._state = state
        self._started -= self._records[-1].seconds


def batches(dataset: tf.data.Dataset, callback: PlateauCallback) -> tf.data.Dataset:
    """Returns batches for `fit`, of the size that the callback's schedule has reached.

    The batch dimension is None in the element spec, so that another size needs no new trace. A
    last partial batch is dropped, as in `trainer_module.training.data.training_factory`.

    Args:
        dataset: Single examples (x [...], y [...]), or what else `fit` takes.
        callback: The callback that `fit` gets as well.

    Returns:
        Batches (x [B, ...], y [B, ...]).

    Raises:
        UserError: The dataset is known to have another number of examples than the callback.
    """
    count = int(dataset.cardinality().numpy())
    require(
        count in (tf.data.UNKNOWN_CARDINALITY, callback.num_examples),
        f"a dataset of single examples must have num_examples ({callback.num_examples}) elements",
        "infinitely many" if count < 0 else count,
        "Give the dataset before .batch() and .repeat(), and its size to PlateauCallback.",
    )
    # Keras warns of an epoch with fewer batches than the first.
    warnings.filterwarnings("ignore", message="Your input ran out of data")
    size = callback.batch_size
    return tf.data.Dataset.range(1).flat_map(
        lambda _: dataset.batch(size.read_value(), drop_remainder=True)
    )
