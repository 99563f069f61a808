"""train_step and eval_step as graphs, each traced once for the whole run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer_module import fused, view

PerExample = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def cross_entropy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Sparse categorical cross-entropy in nats: int64 [B], float [B, C] -> float32 [B]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, tf.cast(logits, tf.float32))


def accuracy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Whether the largest logit is the label's: int64 [B], float [B, C] -> float32 [B]."""
    return tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=y.dtype), y), tf.float32)


class Call(NamedTuple):
    """What one call of a training function did; reading a tensor of it waits for the device.

    Attributes:
        steps: Elements of the dataset trained on.
        sums: float32 [1 + metrics + 1]: of the loss, of each metric, of examples.
        squared_norms: float32 [3] where the noise was measured: examples in the batch of one
            replica, the mean squared length of the gradients of its halves, and that of the
            batch's; under a strategy, means over the replicas.
    """

    steps: int
    sums: tf.Tensor
    squared_norms: tf.Tensor | None


class Steps:
    """The computations of the loop as traced functions.

    The learning rate is a variable and the batch dimension is None, so neither a decayed
    learning rate nor a grown batch traces anything anew.

    Attributes:
        metric_names: "loss", then the metrics, in the order of the sums.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        element_spec: Sequence[tf.TensorSpec],
        *,
        loss: PerExample = cross_entropy,
        metrics: Mapping[str, PerExample] | None = None,
        steps_per_call: int = 8,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Define the functions; each is traced when it is first called.

        Args:
            model: Model from [B, ...] to the output that loss and metrics take.
            optimizer: Built on the model's trainable variables.
            element_spec: Spec of the elements of `batch.distributed` without micro-batches:
                (x [None, ...], y [None, ...]), or with several replicas (x, y, total, last).
            loss: (y, output) -> loss of each example [B].
            metrics: (y, output) -> value of each example [B], by name; accuracy if not given.
            steps_per_call: Steps unrolled in one call.
            strategy: Strategy under which model and optimizer were made.
        """
        metrics = {"accuracy": accuracy} if metrics is None else metrics
        self.metric_names = ("loss", *metrics)
        self._model = model
        self._view = view.of(model)
        # On a GPU the kernel's gradient in inference mode is not deterministic.
        self._probed = model if tf.config.list_physical_devices("GPU") else self._view
        self._optimizer = optimizer
        self._functions = (loss, *metrics.values())
        self._steps_per_call = steps_per_call
        self._strategy = strategy or tf.distribute.get_strategy()
        self._accumulators: list[tf.Variable] = []
        spec = tuple(element_spec)
        cut = spec[:2] + (spec[2:] or (tf.TensorSpec((), tf.float32), tf.TensorSpec((), tf.bool)))
        update, norms = self._body(self._update, spec), self._body(self._squared_norms, spec[:2])
        self._train_step = self._traced(update, spec)
        self._accumulate_step = self._traced(self._body(self._accumulate, cut), cut)
        self._eval_step = self._traced(self._body(self._evaluate, spec[:2]), spec[:2])
        self._noise_step = self._traced(norms, spec[:2], tf.distribute.ReduceOp.MEAN)

        def unrolled(iterator: Any, probed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            first = next(iterator)
            measured = tf.cond(
                probed,
                lambda: self._reduced(norms, first[:2], tf.distribute.ReduceOp.MEAN),
                lambda: tf.zeros(3),
            )
            sums = [self._reduced(update, first)]
            sums += [self._reduced(update, next(iterator)) for _ in range(1, steps_per_call)]
            return tf.add_n(sums), measured

        self._train_steps = tf.function(unrolled, autograph=False)
        self._apply_step = tf.function(
            lambda: self._strategy.run(self._apply), input_signature=(), autograph=False
        )

    def train_epoch(
        self,
        dataset: Any,
        *,
        probes: int = 0,
        batches: int | None = None,
        micro: bool = False,
    ) -> Iterator[Call]:
        """Train on every element of a dataset.

        Args:
            dataset: Elements of the spec given at construction (per replica under a strategy), or
                an iterator over the rest of them.
            probes: Calls, the first ones, that also measure the noise of the gradient, on their
                first element before it is trained on. That changes nothing else: the model runs
                in inference mode, so that neither averages nor random states move.
            batches: How many the dataset has, if known; several are then run by one call.
            micro: Whether the elements are micro-batches, (x, y, total, last).

        Yields:
            What was done, call by call.
        """
        iterator = iter(dataset)
        in_calls = not micro and self._steps_per_call > 1
        several = (batches or 0) // self._steps_per_call if in_calls else 0
        if micro:
            self._accumulators = self._accumulators or self._zeros()
            # An epoch that was broken off may have left half a batch in them.
            self._clear()
        for call in range(several):
            probed = call < probes
            sums, norms = self._train_steps(iterator, tf.constant(probed))
            yield Call(self._steps_per_call, sums, norms if probed else None)
        step = self._accumulate_step if micro else self._train_step
        for call, element in enumerate(iterator, several):
            norms = self._noise_step(*element[:2]) if call < probes else None
            yield Call(1, step(*element), norms)
            if micro and self._strategy.experimental_local_results(element[-1])[0]:
                self._apply_step()

    def evaluate(self, dataset: Any) -> dict[str, float]:
        """Mean loss and metrics over a dataset, each example weighing the same."""
        return self.means([self._eval_step(*element[:2]) for element in dataset])

    def means(self, sums: Sequence[tf.Tensor]) -> dict[str, float]:
        """Means over all examples of the sums that calls returned, by metric name."""
        total = np.sum([np.asarray(value, np.float64) for value in sums], axis=0)
        return {
            name: float(value / total[-1])
            for name, value in zip(self.metric_names, total, strict=False)
        }

    def traces(self) -> dict[str, int]:
        """How often each function has been traced so far."""
        functions = {
            "train_step": self._train_step,
            "train_steps": self._train_steps,
            "accumulate_step": self._accumulate_step,
            "apply_step": self._apply_step,
            "noise_step": self._noise_step,
            "eval_step": self._eval_step,
        }
        return {
            name: function.experimental_get_tracing_count() for name, function in functions.items()
        }

    def _body(
        self, body: Callable[..., tf.Tensor], spec: Sequence[Any]
    ) -> Callable[..., tf.Tensor]:
        """The computation of a replica.

        On one device it is a function of its own, so that unrolling it costs one trace; a strategy
        cannot look into such a function.
        """
        with self._strategy.scope():
            if tf.distribute.has_strategy():
                return body
        function: Callable[..., tf.Tensor] = tf.function(
            body, input_signature=spec, autograph=False
        )
        return function

    def _traced(
        self,
        body: Callable[..., tf.Tensor],
        spec: Sequence[Any],
        how: tf.distribute.ReduceOp = tf.distribute.ReduceOp.SUM,
    ) -> Any:
        """A function of an element: what `body` returns, reduced over the replicas."""

        def run(*element: Any) -> tf.Tensor:
            return self._reduced(body, element, how)

        # AutoGraph would convert Keras's own source for nothing: seconds at start-up.
        return tf.function(run, input_signature=spec, autograph=False)

    def _reduced(
        self,
        body: Callable[..., tf.Tensor],
        element: Any,
        how: tf.distribute.ReduceOp = tf.distribute.ReduceOp.SUM,
    ) -> tf.Tensor:
        return self._strategy.reduce(how, self._strategy.run(body, args=element), axis=None)

    def _zeros(self) -> list[tf.Variable]:
        """A place for each replica to add up its own gradients."""
        with self._strategy.scope():
            return [
                tf.Variable(
                    tf.zeros(v.shape, v.dtype),
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
                for v in self._model.trainable_variables
            ]

    def _update(
        self,
        x: tf.Tensor,
        y: tf.Tensor,
        total: tf.Tensor | None = None,
        last: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del last  # Every piece is a replica's whole share here.
        sums, gradients = self._gradients(x, y, total)
        fused.apply(self._optimizer, self._model.trainable_variables, gradients)
        return sums

    def _accumulate(
        self, x: tf.Tensor, y: tf.Tensor, total: tf.Tensor, last: tf.Tensor
    ) -> tf.Tensor:
        del last  # Whoever calls applies the gradients after it.
        sums, gradients = self._gradients(x, y, total)
        for accumulator, gradient in zip(self._accumulators, gradients, strict=True):
            accumulator.assign_add(gradient)
        return sums

    def _apply(self) -> None:
        gradients = [tf.identity(accumulator) for accumulator in self._accumulators]
        fused.apply(self._optimizer, self._model.trainable_variables, gradients)
        with tf.control_dependencies(gradients):
            self._clear()

    def _clear(self) -> None:
        for accumulator in self._accumulators:
            accumulator.assign(tf.zeros(accumulator.shape, accumulator.dtype))

    def _squared_norms(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        half = tf.shape(y)[0] // 2
        first = self._gradient(x[:half], y[:half])
        second = self._gradient(x[half : 2 * half], y[half : 2 * half])
        halves = (_squared_length(first) + _squared_length(second)) / 2
        whole = _squared_length([(a + b) / 2 for a, b in zip(first, second, strict=True)])
        return tf.stack([tf.cast(2 * half, tf.float32), halves, whole])

    def _gradient(self, x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        """Gradient of the mean loss, in inference mode."""
        with tf.GradientTape() as tape:
            output = self._probed(tf.cast(x, tf.float32), training=False)
            loss = tf.reduce_mean(self._functions[0](y, output))
            scale = self._optimizer.scale_loss(tf.ones_like(loss))
            loss = self._optimizer.scale_loss(loss)
        return [gradient / scale for gradient in self._of_weights(tape, loss)]

    def _evaluate(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        output = self._view(tf.cast(x, tf.float32), training=False)
        return self._sums(y, output)[0]

    def _gradients(
        self, x: tf.Tensor, y: tf.Tensor, total: tf.Tensor | None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Sums over the piece, and its share of the gradient of the mean loss of the batch.

        Without `total`, the piece is the whole batch.
        """
        total = tf.cast(tf.shape(y)[0], tf.float32) if total is None else total
        with tf.GradientTape() as tape:
            output = self._view(tf.cast(x, tf.float32), training=True)
            sums, loss = self._sums(y, output)
            loss = loss / total
            if self._view.losses:
                share = tf.cast(tf.shape(y)[0], tf.float32) / total
                loss += share * tf.add_n(self._view.losses)
            # `apply` divides the gradients by the same scale.
            loss = self._optimizer.scale_loss(loss)
        return sums, self._of_weights(tape, loss)

    def _of_weights(self, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor]:
        """The gradient by each weight; zero by one that the loss does not depend on."""
        gradients: list[tf.Tensor] = tape.gradient(
            loss,
            [v.value for v in self._model.trainable_variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return gradients

    def _sums(self, y: tf.Tensor, output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = [tf.reduce_sum(function(y, output)) for function in self._functions]
        count = tf.cast(tf.shape(y)[0], tf.float32)
        return tf.stack([*values, count]), values[0]


def _squared_length(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(tf.square(tf.cast(t, tf.float32))) for t in tensors])
