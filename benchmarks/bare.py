"""A bare loop: the least code that trains, as the bound for any loop that also does more."""

from collections.abc import Iterable

import keras
import tensorflow as tf

from trainer_module.kernels import view


class BareLoop:
    """SGD with momentum and sums for loss and accuracy, written out by hand.

    No schedule, history or checkpoint, no Keras optimizer and no metric objects. It has the kernels
    that our loop has, one for batch normalisation and one for an update.
    """

    def __init__(
        self,
        model: keras.Model,
        learning_rate: float,
        momentum: float,
        *,
        steps_per_call: int | None,
    ) -> None:
        """Define the functions.

        Args:
            model: Model from float32 [B, ...] to logits [B, C].
            learning_rate: Learning rate.
            momentum: Momentum.
            steps_per_call: Steps unrolled in one call; None runs a whole epoch in one graph.
        """
        self._model = view.of(model)
        self._rate, self._momentum = learning_rate, momentum
        self._weights = [v.value for v in model.trainable_variables]
        self._velocities = [tf.Variable(tf.zeros_like(w), trainable=False) for w in self._weights]
        self._steps_per_call = steps_per_call
        self._calls = tf.function(self._unrolled, autograph=False)
        self._rest = tf.function(self._step, autograph=False, reduce_retracing=True)
        self._epoch = tf.function(self._whole)
        self._eval = tf.function(self._count, autograph=False, reduce_retracing=True)

    def train_epoch(self, dataset: tf.data.Dataset) -> tf.Tensor:
        """Train on every batch (x [B, ...], y [B]); sums of loss, hits and examples [3]."""
        if self._steps_per_call is None:
            return self._epoch(dataset)
        iterator = iter(dataset)
        calls = int(dataset.cardinality().numpy()) // self._steps_per_call
        sums = [self._calls(iterator) for _ in range(calls)]
        sums += [self._rest(x, y) for x, y in iterator]
        return tf.add_n(sums)

    def evaluate(self, dataset: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
        """Sums of loss, hits and examples [3] over a dataset."""
        return tf.add_n([self._eval(x, y) for x, y in dataset])

    def _whole(self, dataset: tf.data.Dataset) -> tf.Tensor:
        sums = tf.zeros(3)
        for x, y in dataset:
            sums += tf.autograph.experimental.do_not_convert(self._step)(x, y)
        return sums

    def _unrolled(self, iterator: tf.data.Iterator) -> tf.Tensor:
        return tf.add_n([self._step(*next(iterator)) for _ in range(self._steps_per_call or 1)])

    def _step(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            sums = self._sums(self._model(tf.cast(x, tf.float32), training=True), y)
            loss = sums[0] / sums[2]
        gradients = tape.gradient(loss, self._weights)
        for weight, velocity, gradient in zip(
            self._weights, self._velocities, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=weight.handle,
                accum=velocity.handle,
                lr=self._rate,
                grad=gradient,
                momentum=self._momentum,
            )
        return sums

    def _count(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return self._sums(self._model(tf.cast(x, tf.float32), training=False), y)

    def _sums(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, tf.cast(logits, tf.float32))
        hits = tf.cast(tf.equal(tf.argmax(logits, axis=-1), y), tf.float32)
        return tf.stack([tf.reduce_sum(loss), tf.reduce_sum(hits), tf.cast(tf.size(y), tf.float32)])
