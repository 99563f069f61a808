"""Training and evaluation steps as graphs, each traced once for the whole run."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer_module.kernels import momentum, view
from trainer_module.training import probe
from trainer_module.training.batch import check_not_empty, size_of
from trainer_module.training.objective import Objective
from trainer_module.util.checks import require

LOSS, DATA_LOSS = "loss", "data_loss"
"""The loss that Keras shows, and the same without what regularization and `add_loss` add to it."""

_TRACED = (
    "train_step",
    "train_steps",
    "accumulate_step",
    "apply_step",
    "noise_step",
    "eval_step",
)


class Call(NamedTuple):
    """What one call of a training function did; reading a tensor of it waits for the device."""

    steps: int
    """Elements of the dataset trained on."""

    batches: int
    """Batches completed."""

    sums: tf.Tensor
    """float32 [2 + names + 1]: sums of the loss, of the loss of the data alone, of what the
    objective sums, and of examples."""

    squared_norms: tf.Tensor | None
    """float32 [4] where the noise was measured, a `noise.Measurement`."""


class Steps:
    """The computations of the loop as traced functions.

    The learning rate is a variable and the batch dimension is None, so neither a decayed
    learning rate nor a grown batch is a reason for another trace.

    Attributes:
        model: Model that is trained.
        optimizer: Its optimizer.
        strategy: Strategy under which both were made.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        element_spec: Sequence[Any],
        *,
        objective: Objective | None = None,
        steps_per_call: int = 8,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Defines the functions; each is traced when it is first called.

        Args:
            model: Model from x to the output that loss and metrics take.
            optimizer: Built on the model's trainable variables.
            element_spec: Spec of the elements that are evaluated, of `batch.distributed`: (x, y) or
                (x, y, sample_weight), with several replicas followed by (total, last). What is
                trained on may have another, the same in every epoch.
            objective: Loss and metrics; those of a classifier if not given.
            steps_per_call: Steps unrolled in one call.
            strategy: Strategy under which model and optimizer were made.
        """
        self.model = model
        self._view = view.of(model)
        self.optimizer = optimizer
        self._objective = objective or Objective()
        # On a GPU the kernel's gradient in inference mode is not deterministic.
        probed = model if tf.config.list_physical_devices("GPU") else self._view
        self._probe = probe.Probe(probed, model.trainable_variables, optimizer, self._objective)
        self._penalized = False
        self._steps_per_call = steps_per_call
        self.strategy = strategy or tf.distribute.get_strategy()
        self._accumulators: list[tf.Variable] = []
        self._connected: list[bool] = []
        self._training_spec: Any = None
        self._statistics = [
            v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating
        ]
        self._functions: dict[str, Any] = {}
        self._define("eval_step", self._evaluate, tuple(element_spec))
        self._define("apply_step", self._apply, (), mean=True)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of what is recorded, "loss" first; the evaluation is traced to know them."""
        self._functions["eval_step"].get_concrete_function()
        return (*self._summed(), *self._objective.results())

    def train_epoch(
        self,
        dataset: Any,
        *,
        probes: int = 0,
        batches: int | None = None,
        micro: bool = False,
    ) -> Iterator[Call]:
        """Trains on every element of a dataset.

        Args:
            dataset: Elements of `batch.distributed`.
            probes: Elements, the first ones, whose gradients are measured together before they are
                trained on. That changes nothing else: the model runs in inference mode, so that
                no averages move, and random states are put back.
            batches: How many the dataset has, if known; several are then run by one call.
            micro: Whether the elements are micro-batches, which end in (total, last). Each batch is
                then measured by its micro-batches, as they are trained on.

        Yields:
            What was done, call by call.

        Raises:
            UserError: The elements have another spec than those of the first epoch.
        """
        self._define_training(tuple(dataset.element_spec), micro=micro)
        self._objective.reset()
        iterator = iter(dataset)
        if micro:
            yield from self._accumulated(iterator)
            return
        train_step, steps = self._functions["train_step"], self._steps_per_call
        probed = list(itertools.islice(iterator, probes))
        norms = self._measure(probed) if probed else None
        for element in probed:
            yield Call(1, 1, train_step(*element), norms)
            norms = None
        calls = ((batches or 0) - len(probed)) // steps if steps > 1 else 0
        for _ in range(calls):
            yield Call(steps, steps, self._functions["train_steps"](iterator), None)
        for element in iterator:
            yield Call(1, 1, train_step(*element), None)

    def gradients_fit(self, dataset: Any, *, micro: bool) -> bool:
        """Returns True if the gradients of the first element fit in the memory of this worker.

        No other worker is waited for. Weights stay; moving statistics and random states move.

        Args:
            dataset: Elements of `batch.distributed` for several replicas, (..., total, last).
            micro: Whether the elements are micro-batches.
        """
        spec = tuple(dataset.element_spec)
        self._define_training(spec, micro=micro)
        name = "try_piece" if micro else "try_whole"
        if name not in self._functions:

            def run(*element: Any) -> Any:
                lengths = self.strategy.run(self._length, args=element, kwargs={"piece": micro})
                return self.strategy.experimental_local_results(lengths)

            self._functions[name] = tf.function(run, input_signature=spec, autograph=False)
        try:
            for element in itertools.islice(dataset, 1):
                for length in self._functions[name](*element):
                    length.numpy()
        except tf.errors.ResourceExhaustedError:
            return False
        return True

    def average_statistics(self) -> None:
        """Sets moving statistics to their means over the replicas, which saw other examples."""
        if self._statistics and self.strategy.num_replicas_in_sync > 1:
            if "average_step" not in self._functions:
                self._functions["average_step"] = tf.function(
                    lambda: self.strategy.run(self._average), input_signature=(), autograph=False
                )
            self._functions["average_step"]()

    def evaluate(self, dataset: Any) -> dict[str, float]:
        """Returns loss and metrics over a dataset, each example weighing the same."""
        self._objective.reset()
        sums = [self._functions["eval_step"](*element) for element in dataset]
        check_not_empty(bool(sums), "validation_data")
        return self.means(sums)

    def means(self, sums: Sequence[tf.Tensor]) -> dict[str, float]:
        """Returns the means of what calls summed over all examples, and Keras metrics, by name."""
        total = np.sum([np.asarray(value, np.float64) for value in sums], axis=0)
        values = dict(zip((LOSS, DATA_LOSS, *self._objective.names), total, strict=False))
        means = {name: float(values[name] / total[-1]) for name in self._summed()}
        return means | self._objective.results()

    def traces(self) -> dict[str, int]:
        """Returns how often each function has been traced so far."""
        functions = {name: self._functions.get(name) for name in _TRACED}
        return {k: f.experimental_get_tracing_count() if f else 0 for k, f in functions.items()}

    def _summed(self) -> tuple[str, ...]:
        """Returns the names of what is recorded as a mean of sums."""
        losses = (LOSS, DATA_LOSS) if self._penalized else (LOSS,)
        return (*losses, *self._objective.names)

    def _define_training(self, spec: tuple[Any, ...], *, micro: bool) -> None:
        """Defines the functions of training for elements of a spec, if there are none yet."""
        batch = _batch(spec)
        self._training_spec = self._training_spec or batch
        require(
            batch == self._training_spec,
            "training_data must give elements of the same types and shapes in every epoch",
            {"now": batch, "first": self._training_spec},
            "Cast and pad them alike.",
        )
        if micro:
            self._define("accumulate_step", self._accumulate, spec)
        else:
            self._define("train_step", self._update, spec)
        self._define("noise_step", self._probe.measure, batch, mean=True)
        if "train_steps" not in self._functions:
            update = self._replica_function(self._update, spec)
            self._functions["train_steps"] = tf.function(
                lambda iterator: tf.add_n(
                    [self._reduced(update, next(iterator)) for _ in range(self._steps_per_call)]
                ),
                autograph=False,
            )

    def _define(
        self, name: str, body: Callable[..., tf.Tensor], spec: Sequence[Any], *, mean: bool = False
    ) -> None:
        """Defines a function of an element, if there is none yet: a sum or mean over replicas."""
        if name in self._functions:
            return
        on_replica = self._replica_function(body, spec)

        def run(*element: Any) -> tf.Tensor:
            return self._reduced(on_replica, element, mean=mean)

        # AutoGraph would convert Keras's own source for nothing: seconds at start-up.
        self._functions[name] = tf.function(run, input_signature=spec, autograph=False)

    def _replica_function(self, body: Callable[..., tf.Tensor], spec: Sequence[Any]) -> Any:
        """Returns the computation of a replica.

        On one device it is a function of its own, so that unrolling it costs one trace; a strategy
        cannot look into such a function.
        """
        with self.strategy.scope():
            if tf.distribute.has_strategy():
                return body
        return tf.function(body, input_signature=spec, autograph=False)

    def _reduced(self, body: Any, element: Any, *, mean: bool = False) -> tf.Tensor:
        how = tf.distribute.ReduceOp.MEAN if mean else tf.distribute.ReduceOp.SUM
        return self.strategy.reduce(how, self.strategy.run(body, args=element), axis=None)

    def _accumulated(self, iterator: Any) -> Iterator[Call]:
        """Trains on micro-batches, with an update after the last one of each batch."""
        self._accumulators = self._accumulators or self._zeros()
        # An epoch that was broken off may have left half a batch in them.
        self._clear()
        for element in iterator:
            sums = self._functions["accumulate_step"](*element)
            last = bool(self.strategy.experimental_local_results(element[-1])[0])
            yield Call(1, int(last), sums, self._functions["apply_step"]() if last else None)

    def _measure(self, elements: Sequence[Any]) -> tf.Tensor:
        """Measures the noise of the gradient over some elements: `Call.squared_norms`."""
        step = self._functions["noise_step"]
        mean = sum(step(*_batch(element)) for element in elements) / len(elements)
        return probe.of_halves(mean, len(elements) * self.strategy.num_replicas_in_sync)

    def _zeros(self) -> list[tf.Variable]:
        """Returns variables in which each replica sums its gradients, and `probe.piece` of each."""
        with self.strategy.scope():
            return [
                tf.Variable(
                    zeros,
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
                for zeros in (
                    *(tf.zeros(v.shape, v.dtype) for v in self.model.trainable_variables),
                    tf.zeros(5),
                )
            ]

    def _update(self, *element: Any) -> tf.Tensor:
        # Every piece is a replica's whole share here.
        total = element[-2] if len(element) > len(_batch(element)) else None
        sums, gradients = self._gradients(_batch(element), total)
        momentum.apply(self.optimizer, self.model.trainable_variables, gradients)
        return sums

    def _accumulate(self, *element: Any) -> tf.Tensor:
        # Whoever calls applies the gradients after the last piece.
        batch, total = _batch(element), element[-2]
        sums, gradients = self._gradients(batch, total, piece=True)
        self._connected = [gradient is not None for gradient in gradients]
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        *accumulators, pieces = self._accumulators
        connected = itertools.compress(accumulators, self._connected)
        for accumulator, gradient in zip(connected, dense, strict=True):
            accumulator.assign_add(gradient)
        size = tf.cast(size_of(batch), tf.float32)
        pieces.assign_add(probe.piece(dense, size, self.optimizer.scale_loss(size / total)))
        return sums

    def _length(self, *element: Any, piece: bool) -> tf.Tensor:
        """Returns a number that takes all gradients of an element to compute."""
        _, gradients = self._gradients(_batch(element), element[-2], piece=piece)
        parts = tf.nest.flatten(gradients, expand_composites=True)
        return probe.squared_length([part for part in parts if part is not None])

    def _apply(self) -> tf.Tensor:
        """Applies the gradients of a batch, and measures its noise by its pieces."""
        *gradients, pieces = [tf.identity(accumulator) for accumulator in self._accumulators]
        # A weight that the loss does not depend on is left alone, as in Keras.
        connected = [
            gradient if is_connected else None
            for gradient, is_connected in zip(gradients, self._connected, strict=True)
        ]
        momentum.apply(self.optimizer, self.model.trainable_variables, connected)
        with tf.control_dependencies([*gradients, pieces]):
            self._clear()
        return probe.of_pieces(pieces, gradients)

    def _average(self) -> None:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        own = [tf.convert_to_tensor(v.value) for v in self._statistics]
        first = [tf.where(is_first, value, tf.zeros_like(value)) for value in own]
        first = context.all_reduce(tf.distribute.ReduceOp.SUM, first)
        # Differences: those of weights that are frozen are zero, where a mean of three would round.
        apart = [value - reference for value, reference in zip(own, first, strict=True)]
        apart = context.all_reduce(tf.distribute.ReduceOp.MEAN, apart)
        for v, reference, difference in zip(self._statistics, first, apart, strict=True):
            v.assign(reference + difference)

    def _clear(self) -> None:
        for accumulator in self._accumulators:
            accumulator.assign(tf.zeros(accumulator.shape, accumulator.dtype))

    def _evaluate(self, *element: Any) -> tf.Tensor:
        batch = _batch(element)
        output = self._view(batch[0], training=False)
        return self._sums(batch, output, self._mean_loss(batch, output), self._penalty())

    def _gradients(
        self, batch: Any, total: tf.Tensor | None, *, piece: bool = False
    ) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        """Returns sums over the piece, and its share of the gradient of the loss of the batch.

        Without `total`, the piece is the whole batch.
        """
        with tf.GradientTape() as tape:
            output = self._view(batch[0], training=True)
            data_loss = self._mean_loss(batch, output, piece=piece)
            penalty = self._penalty(piece=piece)
            # Without penalties and pieces, no operation is added to the step.
            loss = data_loss if penalty is None else data_loss + penalty
            if total is not None:
                loss *= tf.cast(size_of(batch), tf.float32) / total
            # `apply` divides the gradients by the same scale.
            loss = self.optimizer.scale_loss(loss)
        return self._sums(batch, output, data_loss, penalty), self._of_weights(tape, loss)

    def _mean_loss(self, batch: Any, output: Any, *, piece: bool = False) -> tf.Tensor:
        _, y, *weights = batch
        return self._objective.loss(y, output, *weights, piece=piece)

    def _penalty(self, *, piece: bool = False) -> tf.Tensor | None:
        """Returns what layers and regularizers added to the loss in the call before.

        Args:
            piece: Whether the call was of one of several micro-batches.

        Returns:
            A scalar; None if nothing is added.
        """
        losses = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in self._view.losses]
        if not losses:
            return None
        self._penalized = True
        weights = sum(v.regularizer is not None for v in self._view.trainable_weights)
        require(
            not piece or len(losses) == weights or _are_means_over_examples(self._view),
            "what layers add to the loss must be computed on whole batches, unless it comes from"
            " activity regularizers of Keras 3.14 or newer",
            f"micro-batches, and Keras {keras.__version__}",
            "Leave out micro_batch; set batch_size and max_batch_size to what fits in memory.",
        )
        return tf.add_n(losses)

    def _of_weights(self, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor | None]:
        """Returns the gradient by each weight; None by one that the loss does not depend on."""
        gradients: list[tf.Tensor | None] = tape.gradient(
            loss, [v.value for v in self.model.trainable_variables]
        )
        return gradients

    def _sums(
        self, batch: Any, output: Any, data_loss: tf.Tensor, penalty: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns the sums of a call, and updates Keras's metrics."""
        _, y, *weights = batch
        size = tf.cast(size_of(batch), tf.float32)
        data = loss = data_loss * size
        if penalty is not None:
            loss = data + penalty * size
        self._objective.update(y, output, *weights)
        return tf.stack([loss, data, *self._objective.sums(y, output, size), size])


def _batch(element: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns (x, y) or (x, y, sample_weight) of an element that may end in (total, last)."""
    return element[:-2] if len(element) > 3 else element


def _are_means_over_examples(model: keras.Model) -> bool:
    """Returns whether all that layers add to the loss are means over the examples of a batch.

    Keras divides the sums of activity regularizers by the batch size since 3.14. What `add_loss`
    adds may be a sum or a mean.
    """
    kinds = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    return tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 14) and all(
        isinstance(layer.activity_regularizer, kinds)
        and type(layer).__module__.startswith("keras.")
        for layer in model._flatten_layers()
        if layer._get_own_losses()
    )
