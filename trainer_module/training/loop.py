"""The outer loop: epoch, evaluate, decide, apply, record, save."""

import contextlib
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

# What `fit` itself makes of class weights; Keras has no public name for it.
from keras.src.trainers.data_adapters.tf_dataset_adapter import make_class_weight_map_fn
from rich.console import Console

from trainer_module.distributed import strategies
from trainer_module.history import EpochRecord, History, Writer, Writers
from trainer_module.schedule import schedule
from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.scaling import TrainingSpec
from trainer_module.schedule.schedule import NonFiniteError, ScheduleConfig
from trainer_module.schedule.state import ScheduleState
from trainer_module.training import noise
from trainer_module.training.batch import DatasetFactory, check_batches, distributed, size_of
from trainer_module.training.checkpoint import Checkpoints, Snapshot, from_bytes, to_bytes
from trainer_module.training.objective import Asked, Metrics, Objective, compiled
from trainer_module.training.optimizer import averages, describe, first_learning_rate, inner, kind
from trainer_module.training.progress import ProgressWriter
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
    steps_per_call: int = 8,
    loss: Any = None,
    metrics: Metrics | None = None,
    loss_weights: Any = None,
    weighted_metrics: Sequence[Any] | None = None,
    class_weight: Mapping[int, float] | None = None,
    directory: Path | str | None = None,
    description: Mapping[str, Any] | None = None,
    writers: Sequence[Writer] = (),
    verbose: bool | None = None,
    strategy: tf.distribute.Strategy | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Train until the schedule says stop; the model is left with the weights of the best epoch.

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
        directory: Folder of checkpoints; if it holds some of this run, training goes on from them.
            Of several workers only the chief uses it.
        description: What else defines the run, as JSON: kept in the history, and a resumed run
            must have the same.
        writers: Notified after each epoch; with several workers, those of the chief.
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
    _check_keras(model, keras.Model, "model")
    _check_model(model)
    strategy = strategy or model.distribute_strategy
    make_dataset = _factory(training_data)
    _check_epoch(validation_data, "validation_data")
    _check_inputs(model, validation_data.element_spec[0])
    is_counted = num_examples is None
    if num_examples is None:
        num_examples = _count(make_dataset(batch_size, 1))
    own = {
        "metrics": metrics,
        "loss_weights": loss_weights,
        "weighted_metrics": weighted_metrics,
    }
    asked = compiled(model) if loss is None else Asked(loss)
    asked = asked._replace(**{name: value for name, value in own.items() if value is not None})
    config = _monitored(config, asked)
    with strategy.scope():
        if isinstance(optimizer, str):
            optimizer = keras.optimizers.get(optimizer)
        _check_keras(optimizer, keras.optimizers.Optimizer, "optimizer")
        objective = asked.objective(getattr(model, "output_names", None))
        _build(model, objective, validation_data)
    optimizer = _loss_scaled(model, optimizer)
    evaluation = distributed(validation_data, strategy)
    steps = Steps(
        model,
        optimizer,
        evaluation.element_spec,
        objective=objective,
        steps_per_call=steps_per_call,
        strategy=strategy,
    )
    momentum = float(getattr(inner(optimizer), "momentum", 0.0))
    spec = TrainingSpec(num_examples, kind(optimizer), momentum)
    run = _Run(model, optimizer, config, steps, spec, strategy, batch_size, micro_batch, is_counted)
    run.description = {
        "schedule": asdict(config),
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "num_examples": num_examples,
        "replicas": strategy.num_replicas_in_sync,
        "optimizer": describe(optimizer),
        # Shapes, not names: Keras numbers names by how many models the process has made.
        "model": [list(v.shape) for v in model.variables],
        **({"loss_weights": asked.loss_weights} if asked.loss_weights else {}),
        **({"class_weight": dict(class_weight)} if class_weight else {}),
        **(description or {}),
    }
    if class_weight:
        make_dataset = _weighted(make_dataset, class_weight)
    chief = strategy.extended.should_checkpoint
    # The schedule does not depend on the number of replicas: another one may resume.
    fingerprint = _fingerprint({**run.description, "replicas": None})
    # Other workers may see other files, or none.
    checkpoints = Checkpoints(Path(directory), fingerprint) if directory and chief else None
    saved = checkpoints.load() if checkpoints else None
    if strategies.has_several_workers(strategy):
        saved = _from_chief(saved or run.memory(), fingerprint, strategy)
    run.resume(saved)
    told = Writers([*_progress(verbose, config), *writers] if chief else ())
    told.start(run.history())
    started = clock() - run.seconds
    with leaving_on_sigterm():
        while not run.stopped:
            try:
                record = run.epoch(make_dataset, evaluation, told, lambda: clock() - started)
            except NonFiniteError as error:
                run.best.restore_model(model)
                if directory is None:
                    raise
                raise NonFiniteError(
                    f"{error} A lower learning rate starts anew: empty {directory} first."
                ) from error
            if checkpoints:
                checkpoints.save(*run.memory())
            told.epoch(record)
    for difference in run.differences():
        told.note(f"not as forecast: {difference}")
    run.best.restore_model(model)
    told.close(run.history())
    return run.history()


def _progress(verbose: bool | None, config: ScheduleConfig) -> list[Writer]:
    console = Console()
    if verbose is None:
        verbose = console.is_terminal or console.is_jupyter
    return [ProgressWriter(console, config.max_epochs)] if verbose else []


class _Run:
    """A run in progress: what is trained, and everything that changes from epoch to epoch."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        config: ScheduleConfig,
        steps: Steps,
        spec: TrainingSpec,
        strategy: tf.distribute.Strategy,
        batch_size: int,
        micro_batch: int | None,
        is_counted: bool,
    ) -> None:
        names = [f"{prefix}{name}" for prefix in ("", "val_") for name in steps.metric_names]
        require(
            config.plateau.monitor in names,
            f"monitor must be one of {', '.join(names)}",
            config.plateau.monitor,
            'Try monitor="val_loss", mode="min".',
        )
        rate = first_learning_rate(optimizer)
        replicas = strategy.num_replicas_in_sync
        require(
            batch_size >= replicas,
            f"batch_size must be at least one example for each of the {replicas} replicas",
            batch_size,
            f"Try batch_size={replicas}.",
        )
        if not optimizer.built:
            with strategy.scope():
                optimizer.build(model.trainable_variables)
        self._model = model
        self._optimizer = optimizer
        self._config = config
        self._steps = steps
        self._spec = spec
        self._strategy = strategy
        self._micro_batch = micro_batch
        self._is_counted = is_counted
        self._fitting_batch = 0
        self._noise = noise.NoiseState()
        self._records: list[EpochRecord] = []
        self.state = schedule.initial_state(config, spec, rate, batch_size)
        self._forecast = schedule.forecast(
            config, spec, self.state.learning_rate, self.state.batch_size
        )
        self.best = Snapshot.take(0, model, optimizer)
        # Another one costs memory, so it is kept only where it may be asked for.
        self._start = self.best if config.restore == "weights_reset_slots" else None
        self.description: Mapping[str, Any] = {}

    @property
    def stopped(self) -> bool:
        return self.state.stop_reason is not None

    @property
    def seconds(self) -> float:
        return self._records[-1].seconds if self._records else 0.0

    def resume(self, saved: tuple[Snapshot, Snapshot, dict[str, Any]] | None) -> None:
        if saved:
            latest, self.best, memory = saved
            latest.restore_model(self._model)
            latest.restore_optimizer(self._optimizer)
            self.state = ScheduleState.from_json(memory["schedule"])
            self._noise = noise.NoiseState(*memory["noise"])
            self._micro_batch = memory["micro_batch"]
            self._records = [EpochRecord.from_dict(record) for record in memory["records"]]

    def memory(self) -> tuple[Snapshot, Snapshot, dict[str, Any]]:
        """What `resume` takes to go on as if nothing had happened."""
        latest = Snapshot.take(self.state.epoch, self._model, self._optimizer)
        memory = {
            "schedule": self.state.to_json(),
            "noise": list(self._noise),
            "micro_batch": self._micro_batch,
            "records": [asdict(record) for record in self._records],
        }
        return latest, self.best, memory

    def history(self) -> History:
        return History(
            config=self.description,
            monitor=self._config.plateau.monitor,
            mode=self._config.plateau.mode,
            epochs=tuple(self._records),
            stop_reason=self._records[-1].reason if self.stopped else "",
            traces=self._steps.traces(),
        )

    def differences(self) -> tuple[str, ...]:
        """Where the schedule did something else than was forecast."""
        changes = [
            (record.epoch, record.action, after.learning_rate, after.batch_size)
            for record, after in itertools.pairwise(self._records)
        ]
        return schedule.verify(self._forecast, changes)

    def epoch(
        self,
        make_dataset: DatasetFactory,
        evaluation: Any,
        told: Writers,
        elapsed: Callable[[], float],
    ) -> EpochRecord:
        """Train for an epoch, evaluate, decide, and carry the decision out."""
        before = self.state
        rate = schedule.next_learning_rate(self._config, before)
        self._optimizer.learning_rate.assign(rate)
        batches = make_dataset(before.batch_size, before.epoch + 1)
        _check_epoch(batches, "training_data")
        values, examples, updates = self._train_within_memory(batches, told)
        self._steps.average_statistics()
        with self._averaged():
            evaluated = self._steps.evaluate(evaluation)
            values |= {f"val_{name}": value for name, value in evaluated.items()}
            seconds = elapsed()
            self.state, decision = schedule.step(
                self._config,
                self._spec,
                before,
                metric=values[self._config.plateau.monitor],
                loss=values["loss"],
                elapsed_seconds=seconds,
                simple_noise_scale=self._noise.b_simple,
            )
            if decision.observation.improved_best:
                self.best = Snapshot.take(decision.epoch, self._model, self._optimizer)
        self.best.restore(decision.restore, self._model, self._optimizer, self._start)
        record = EpochRecord.after(
            self._records[-1] if self._records else None,
            self._spec,
            metrics=values,
            learning_rate=rate,
            batch_size=before.batch_size,
            simple_noise_scale=self._noise.b_simple,
            updates=updates,
            examples=examples,
            seconds=seconds,
            action=decision.action,
            reason=decision.reason,
            best=decision.observation.improved_best,
        )
        self._records.append(record)
        self._check_traces()
        return record

    def _train_within_memory(
        self, batches: tf.data.Dataset, told: Writers
    ) -> tuple[dict[str, float], int, int]:
        """Trains for an epoch, on micro-batches if a new batch size does not fit in memory."""
        batch_size = self.state.batch_size
        if batch_size == self._fitting_batch:
            return self._train(batches, told)
        start, noise_before = Snapshot.take(0, self._model, self._optimizer), self._noise
        fits = True
        try:
            # Retried outside of an `except`, where the error would keep the tensors of the step.
            while (result := self._try(batches, told, start)) is None:
                fits = False
                self._halve_micro_batch(told)
                start.restore_model(self._model)
                start.restore_optimizer(self._optimizer)
                self._noise = noise_before
        except ValueError as error:
            if fits:
                raise
            raise ValueError(f"batch {batch_size} does not fit in memory, and {error}") from error
        self._fitting_batch = batch_size
        return result

    def _try(
        self, batches: tf.data.Dataset, told: Writers, start: Snapshot
    ) -> tuple[dict[str, float], int, int] | None:
        """Trains for an epoch from `start`; None if that does not fit in a worker's memory."""
        if not strategies.has_several_workers(self._strategy):
            try:
                return self._train(batches, told)
            except tf.errors.ResourceExhaustedError:
                return None
        # A step that fails on one worker breaks the connection of all: each first tries alone.
        micro_batch = self._micro_batch_of(self.state.batch_size)
        elements = distributed(batches, self._strategy, micro_batch)
        fits = self._steps.gradients_fit(elements, micro=micro_batch is not None)
        if strategies.any_worker(not fits, self._strategy):
            return None
        # The trial moved averages and random states.
        start.restore_model(self._model)
        return self._train(batches, told)

    def _halve_micro_batch(self, told: Writers) -> None:
        """Halves what a replica computes at once of a batch that does not fit in memory.

        Raises:
            ValueError: It is one example.
        """
        batch_size = self.state.batch_size
        share = -(-batch_size // self._strategy.num_replicas_in_sync)
        size = self._micro_batch_of(batch_size) or share
        if size == 1:
            raise ValueError(
                "a micro-batch of one example must fit, got out of memory. "
                "Make the model or its inputs smaller."
            )
        self._micro_batch = size // 2
        told.note(
            f"batch {batch_size} does not fit in memory: "
            f"accumulating gradients over micro-batches of {self._micro_batch}"
        )

    def _train(self, batches: tf.data.Dataset, told: Writers) -> tuple[dict[str, float], int, int]:
        """Mean loss and metrics over the examples of an epoch, how many there were, updates."""
        micro_batch = self._micro_batch_of(self.state.batch_size)
        elements = distributed(batches, self._strategy, micro_batch)
        count = int(batches.cardinality().numpy())
        known = count if count >= 0 and micro_batch is None else None
        self._noise, probes = noise.due(self._noise, count if count > 0 else noise.EVERY)
        before = int(self._optimizer.iterations.numpy())
        done, whole, sums, norms = 0, 0, [], []
        for call in self._steps.train_epoch(
            elements, probes=probes, batches=known, micro=micro_batch is not None
        ):
            done += call.steps
            whole += call.batches
            sums.append(call.sums)
            if len(sums) == 1 and self._fitting_batch != self.state.batch_size:
                self._check_batch_size(whole, round(float(call.sums[-1])))
            if call.squared_norms is not None:
                norms.append(call.squared_norms)
            told.batch(done, known)
        require(
            bool(sums),
            "training_data must give at least one batch an epoch",
            count,
            "Check that it does not drop a split smaller than the batch.",
        )
        measurements = [noise.Measurement(*map(float, values)) for values in norms]
        self._noise = noise.measured(self._noise, measurements)
        updates = int(self._optimizer.iterations.numpy()) - before
        examples = round(sum(float(value[-1]) for value in sums))
        self._check_batch_size(whole, examples)
        self._check_num_examples(examples)
        return self._steps.means(sums), examples, updates

    def _check_batch_size(self, batches: int, examples: int) -> None:
        """Raises ValueError unless batches, but for the last, had the size that was asked for."""
        size = self.state.batch_size
        require(
            (batches - 1) * size < examples <= max(batches, 1) * size,
            "training_data must give batches of the batch_size that it is called with, of which"
            " only the last may be smaller",
            f"{examples} examples in {batches} batches of {size}",
            "Call .batch(batch_size) in it.",
        )

    def _check_num_examples(self, examples: int) -> None:
        """Raises ValueError unless an epoch had num_examples, but for a last batch dropped."""
        num_examples = self._spec.num_examples
        require(
            self._is_counted or num_examples - self.state.batch_size < examples <= num_examples,
            "num_examples must be the number of training examples in an epoch",
            f"{num_examples}, of which training_data gave {examples}"
            f" in batches of {self.state.batch_size}",
            "Leave out num_examples to have them counted.",
        )

    def _micro_batch_of(self, batch_size: int) -> int | None:
        """The micro-batch to cut a batch into; None if a replica computes it whole."""
        share = -(-batch_size // self._strategy.num_replicas_in_sync)
        small = self._micro_batch is not None and share > self._micro_batch
        return self._micro_batch if small else None

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
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


def _check_keras(value: Any, kind: type, name: str) -> None:
    """Raises ValueError where an object is not of Keras 3."""
    is_legacy = any(base.__module__.startswith("tf_keras.") for base in type(value).__mro__)
    require(
        isinstance(value, kind),
        f"{name} must be one of Keras 3",
        f"{type(value).__name__} of Keras 2 (tf_keras)" if is_legacy else value,
        "Make it with `import keras`. For a Keras 3 `tf.keras`, set the environment variable"
        " TF_USE_LEGACY_KERAS=0 before TensorFlow is imported.",
    )


def _monitored(config: ScheduleConfig, asked: Asked) -> ScheduleConfig:
    """Returns the schedule, with val_loss in place of the default monitor without metrics."""
    has_metrics = asked.loss is None or asked.metrics or asked.weighted_metrics
    if has_metrics or config.plateau.monitor != PlateauConfig().monitor:
        return config
    return replace(config, plateau=replace(config.plateau, monitor="val_loss", mode="min"))


def _factory(data: tf.data.Dataset | DatasetFactory) -> DatasetFactory:
    """Returns a function that makes an epoch's batches."""
    if isinstance(data, tf.data.Dataset):
        _check_epoch(data, "training_data")
        return lambda batch_size, epoch: data.rebatch(batch_size)
    require(
        callable(data),
        "training_data must be a tf.data.Dataset of batches, or a function"
        " (batch_size, epoch) -> such a dataset",
        type(data),
        "Try tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).",
    )
    return data


def _count(dataset: tf.data.Dataset) -> int:
    """Returns the number of examples in an epoch's batches."""
    _check_epoch(dataset, "training_data")
    plain = tf.autograph.experimental.do_not_convert
    add = plain(lambda total, *batch: total + tf.cast(size_of(batch), tf.int64))
    return int(dataset.reduce(tf.constant(0, tf.int64), add))


def _check_model(model: keras.Model) -> None:
    """Raises ValueError where a model's class trains otherwise than Keras's own."""
    own = [
        name
        for name in ("train_step", "test_step", "compute_loss", "compute_metrics")
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    require(
        not own,
        "a model must be trained by its loss, for the loop has a step of its own",
        f"{type(model).__name__} with its own {', '.join(own)}",
        "Pass what it computes as loss= and metrics=, or add_loss in its layers.",
    )


def _check_inputs(model: keras.Model, x: Any) -> None:
    """Raises ValueError where Keras would match inputs with other names by their order."""
    inputs = getattr(model, "_inputs_struct", None)
    if isinstance(inputs, dict) and isinstance(x, dict):
        require(
            set(x) == set(inputs),
            f"a model with a dict of inputs must get those, {', '.join(sorted(inputs))}",
            sorted(x),
            "Map the dataset to these, or make the model of a list of named inputs, of which Keras"
            " takes those that it needs by name.",
        )


def _build(model: keras.Model, objective: Objective, validation: tf.data.Dataset) -> None:
    """Makes what weights and metrics are not there yet, by a look at a batch, as `fit` does."""
    needed = not model.built or tf.distribute.has_strategy()
    for x, y, *_ in validation.take(int(needed)):
        objective.build(y, model(x))
    require(
        bool(model.trainable_variables),
        "a model must have trainable weights",
        model.name,
        "Set trainable on the layers to train.",
    )


def _loss_scaled(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> keras.optimizers.Optimizer:
    """Wraps the optimizer of a model in mixed float16 for loss scaling, as `compile` does."""
    wrapper = keras.optimizers.LossScaleOptimizer
    if model.dtype_policy.name != "mixed_float16" or isinstance(optimizer, wrapper):
        return optimizer
    return wrapper(optimizer)


def _check_epoch(dataset: tf.data.Dataset, name: str) -> None:
    """Raises ValueError unless a dataset holds batches: at least one, and not without end."""
    check_batches(dataset)
    count = int(dataset.cardinality().numpy())
    require(
        count != tf.data.INFINITE_CARDINALITY,
        f"{name} must give one epoch, which ends",
        "an infinite dataset",
        "Leave out repeat(), with num_epochs=1 in TensorFlowDatasetOptions of TFX, and check that "
        "the module you changed is the one that is imported.",
    )
    require(
        count != 0,
        f"{name} must give at least one batch an epoch",
        count,
        "Check that it does not drop a split smaller than the batch.",
    )


def _weighted(make_dataset: DatasetFactory, class_weight: Mapping[int, float]) -> DatasetFactory:
    """Adds sample weights to the batches of a factory, by class, as `fit` does."""
    weigh = tf.autograph.experimental.do_not_convert(make_class_weight_map_fn(class_weight))

    def weighted(batch_size: int, epoch: int) -> tf.data.Dataset:
        return make_dataset(batch_size, epoch).map(weigh)

    return weighted


def _fingerprint(description: Mapping[str, Any]) -> str:
    """Returns what two runs share if one may resume from the other's checkpoints.

    What is to be done after a NaN is left out: a run that ended by one may go on otherwise.
    """
    steering = {k: v for k, v in description["schedule"].items() if k != "on_nonfinite"}
    return json.dumps({**description, "schedule": steering})


def _from_chief(
    memory: tuple[Snapshot, Snapshot, dict[str, Any]],
    fingerprint: str,
    strategy: tf.distribute.Strategy,
) -> tuple[Snapshot, Snapshot, dict[str, Any]]:
    """The chief's memory on all workers."""
    latest, best, state = memory
    sent = to_bytes(latest, best, {**state, "fingerprint": fingerprint})
    latest, best, state = from_bytes(strategies.from_chief(sent, strategy))
    require(
        state.pop("fingerprint") == fingerprint,
        "all workers must train the same model with the same configuration as the chief",
        fingerprint,
        "Give all of them the same arguments.",
    )
    return latest, best, state
