"""Loss and metrics of a batch, computed by Keras's own objects.

What `compile` takes is accepted: names, Keras losses and metrics, and structures of them for models
with several outputs. A function of the user's own, `(y, output) -> values`, gets both as they are
and returns a value for each example: [B], or [B, ...], of which the mean is taken.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

# What `compile` itself makes of its arguments; Keras has no public name for it.
from keras.src.trainers.compile_utils import CompileLoss, CompileMetrics, get_loss

from trainer_module.training.batch import size_of
from trainer_module.util.checks import UserError, require

PerExample = Callable[[Any, Any], tf.Tensor]
Metrics = Mapping[str, Any] | Sequence[Any]

_SIZES = (24, 40)
"""Batch sizes that a function is tried with: only the first dimension of its values may follow."""

_WHOLE_BATCHES = "Leave out micro_batch; set batch_size and max_batch_size to what fits in memory."


def cross_entropy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of each example in nats.

    Args:
        y: Class indices [B] or [B, 1].
        logits: Float [B, C].
    """
    labels = _indices(y, logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def accuracy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns 1 for each example whose largest logit is the label's, else 0; as `cross_entropy`."""
    labels = _indices(y, logits)
    return tf.cast(
        tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels), tf.float32
    )


class Objective:
    """The loss that is minimised and the metrics that are recorded beside it."""

    def __init__(
        self,
        loss: Any = None,
        metrics: Metrics | None = None,
        *,
        loss_weights: Any = None,
        weighted_metrics: Sequence[Any] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> None:
        """Takes what `compile` takes.

        Args:
            loss: A loss, or a structure of losses for several outputs; if not given, the
                cross-entropy of class indices, with their accuracy as metric.
            metrics: What `compile` takes; or functions of one's own by name.
            loss_weights: Weight of each loss.
            weighted_metrics: Metrics that take the sample weights too.
            output_names: Names of the model's outputs.
        """
        if metrics is None:
            metrics = {"accuracy": accuracy} if loss is None else {}
        loss = cross_entropy if loss is None else loss
        self.loss_weights = loss_weights
        self._parts: list[_Part] = []
        self._loss = _Losses(
            keras.tree.map_structure(self._output_loss, loss),
            loss_weights,
            output_names=output_names,
        )
        # `compile` takes a mapping too, by outputs.
        is_keras = isinstance(metrics, Sequence) or bool(
            metrics and set(metrics) <= set(output_names or ())
        )
        self.functions: Mapping[str, PerExample] = {} if is_keras else dict(metrics)
        for name, function in self.functions.items():
            is_own = callable(function) and not _is_of_keras(function)
            require(
                is_own and not isinstance(function, keras.metrics.Metric),
                f"metric {name} must be a function (y, output) -> [B, ...]",
                function,
                "Pass Keras metrics in a list as in `compile`, such as "
                f'metrics=["{name}"] or metrics=[keras.metrics.AUC(name="{name}")].',
            )
        self._metrics: Any = None
        if weighted_metrics or (is_keras and metrics):
            self._metrics = CompileMetrics(
                metrics if is_keras else None, weighted_metrics, output_names=output_names
            )

    @classmethod
    def of_model(cls, model: keras.Model, loss: Any, **arguments: Any) -> "Objective":
        """Returns the objective of the arguments; without a loss, that of the compiled model."""
        if loss is None and model.compiled and model._compile_loss is not None:
            loss, metrics = model._compile_loss._user_loss, model._compile_metrics
            compiled = {
                "loss_weights": model._compile_loss._user_loss_weights,
                "metrics": metrics and metrics._user_metrics,
                "weighted_metrics": metrics and metrics._user_weighted_metrics,
            }
            own = {name: value for name, value in arguments.items() if value is not None}
            arguments = {**compiled, **own}
        return cls(loss, output_names=getattr(model, "output_names", None), **arguments)

    @property
    def has_metrics(self) -> bool:
        """Returns True if there are metrics beside the loss."""
        return bool(self.functions or self._metrics)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the `sums`, once the loss has been traced."""
        losses = self._loss.names if len(self._loss.names) > 1 else ()
        return (*losses, *self.functions)

    def build(self, y: Any, output: Any) -> None:
        """Makes the variables of the metrics, which replicas cannot make while they are traced."""
        if self._metrics:
            self._metrics.build(y, output)

    def loss(self, y: Any, output: Any, weights: Any = None, *, piece: bool = False) -> tf.Tensor:
        """Returns the loss of a batch as Keras reduces it, without regularization: float32.

        Raises:
            UserError: It is no mean over examples, and this is a piece: one of several
                micro-batches, whose mean must be that of the batch.
        """
        self._parts.clear()
        value = self._loss(y, output, weights)
        for part in self._parts if piece else ():
            require(
                not part.needs_whole_batch,
                "a loss that is no mean over examples (masked, divided by the sum of weights,"
                " one value for the batch) must be computed on whole batches",
                f"{part.name} on micro-batches",
                _WHOLE_BATCHES,
            )
        # Keras divides by the number of replicas, for gradients that are added up.
        return _times_replicas(value)

    def sums(self, y: Any, output: Any, size: tf.Tensor) -> list[tf.Tensor]:
        """Returns sums over the `size` examples that `loss` has just seen, as `names` lists them.

        They are of the loss of each of several outputs, and of each of `functions`.
        """
        several = len(self._loss.names) > 1
        sums = [_times_replicas(part.value) * size for part in self._parts if several]
        for name, function in self.functions.items():
            values = tf.cast(per_example(function, y, output, f"metric {name}"), tf.float32)
            if values.shape.rank > 1:
                values = tf.reduce_mean(values, axis=range(1, values.shape.rank))
            sums.append(tf.reduce_sum(values))
        return sums

    def update(self, y: Any, output: Any, weights: Any = None) -> None:
        """Updates the Keras metrics."""
        if self._metrics:
            self._metrics.update_state(y, output, weights)

    def reset(self) -> None:
        """Resets the Keras metrics, before an epoch."""
        if self._metrics:
            self._metrics.reset_state()

    def results(self) -> dict[str, float]:
        """Returns the values of the Keras metrics, by name."""
        values = self._metrics.result() if self._metrics else {}
        for name, value in values.items():
            require(
                np.size(value) == 1,
                f"metric {name} must be one number",
                np.shape(value),
                "Have it average over classes.",
            )
        return {name: float(np.reshape(value, ())) for name, value in values.items()}

    def _output_loss(self, loss: Any) -> Any:
        if loss is None:
            return None
        require(
            getattr(loss, "reduction", None) != "sum",
            "a loss must be a mean over examples, for the schedule changes the batch size",
            f"{getattr(loss, 'name', loss)} with reduction 'sum'",
            "Leave out reduction.",
        )
        return _OutputLoss(loss, self._parts)


class _Part(NamedTuple):
    """The loss of one output: its mean over a batch, float32, before its weight."""

    name: str
    value: tf.Tensor
    needs_whole_batch: bool


class _Losses(CompileLoss):  # type: ignore[misc]
    """The losses of all outputs, without Keras's trackers: they weigh batches, not examples."""

    @property
    def metrics(self) -> list[None]:
        return [None] * len(self._flat_losses or ())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{part.name}_loss" for part in self._flat_losses or ())


class _OutputLoss(keras.losses.Loss):  # type: ignore[misc]
    """The loss of one output, which appends a `_Part` as it is called."""

    def __init__(self, loss: Any, parts: list[_Part]) -> None:
        reduction = getattr(loss, "reduction", None)
        reduction = "mean" if reduction in (None, "none") else reduction
        name = str(getattr(loss, "name", getattr(loss, "__name__", loss)))
        # Not every name of a function, such as <lambda>, can stand in a graph.
        super().__init__(name if name.isidentifier() else "loss", reduction)
        self._inner = loss
        self._parts = parts

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        loss = self._inner
        if isinstance(loss, str) or _is_of_keras(loss):
            # Names such as "crossentropy" stand for a loss that depends on the shapes.
            loss = get_loss(loss, y_true, y_pred)
        _warn_of_probabilities(loss, y_pred)
        mask = getattr(y_pred, "_keras_mask", None)
        needs_whole_batch = mask is not None
        if isinstance(loss, keras.losses.Loss):
            by_weights = self.reduction == "mean_with_sample_weight" and sample_weight is not None
            needs_whole_batch |= by_weights or _is_one_value(loss, y_true, y_pred)
            value = loss(y_true, y_pred, sample_weight)
            if value.shape.rank != 0:
                value = super().__call__(value, value)
        else:
            values = per_example(loss, y_true, y_pred, "loss")
            if mask is not None:
                values._keras_mask = mask
            value = super().__call__(values, values, sample_weight)
        self._parts.append(_Part(self.name, value, needs_whole_batch))
        return value

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the values as they are: the base class weighs and reduces them."""
        return y_pred


def per_example(function: PerExample, y: Any, output: Any, name: str) -> tf.Tensor:
    """Calls a function of the user's own and checks, while tracing, that it returns [B, ...].

    Raises:
        UserError: It returns one value for the batch, or a value for each pair of examples.
    """
    if function in (cross_entropy, accuracy):
        return function(y, output)
    rule = f"{name} must return a value for each example, of shape [B] or [B, ...]"
    remedy = (
        "Give y and output one shape, say by output[:, 0], return the values without their mean, "
        "or pass a Keras loss or metric."
    )
    arguments = f"from y {_shapes(y)} and output {_shapes(output)}"
    try:
        shapes = [_shape_at(size, function, y, output) for size in _SIZES]
        values = tf.convert_to_tensor(function(y, output))
    except (ValueError, TypeError) as error:
        raise UserError(rule, f"an error {arguments}: {error}", remedy) from error
    known = [(size, shape) for size, shape in zip(_SIZES, shapes, strict=True) if shape]
    is_pairs = len({tuple(shape[1:]) for _, shape in known}) > 1
    kind = "a value for each pair of examples, [B, B]," if is_pairs else f"shape {_shapes(values)}"
    require(
        bool(values.shape.rank)
        and not is_pairs
        and all(shape[0] in (size, None) for size, shape in known),
        rule,
        f"{kind} {arguments}",
        remedy,
    )
    if not known or known[0][1][0] is None:
        size = tf.cast(size_of(output), tf.int32)
        check = tf.debugging.assert_equal(tf.shape(values)[0], size, f"{rule}, {arguments}")
        with tf.control_dependencies([check]):
            values = tf.identity(values)
    return values


def _shape_at(size: int, function: PerExample, y: Any, output: Any) -> list[int | None] | None:
    """Returns the shape of the values for a batch of `size` examples; None if it is unknown."""
    leaves = tf.nest.flatten((y, output))
    if not all(isinstance(leaf, tf.Tensor) for leaf in leaves):
        return None
    specs = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([size, *leaf.shape[1:]], leaf.dtype), (y, output)
    )
    traced = tf.function(lambda y, output: function(y, output), autograph=False)
    shape = traced.get_concrete_function(*specs).output_shapes
    return None if shape.rank is None else shape.as_list()


def _is_one_value(loss: keras.losses.Loss, y: Any, output: Any) -> bool:
    """Returns whether a loss is one value for the batch, as Dice's; its operations are pruned."""
    # A copy of a Keras loss may lack arguments that its config leaves out.
    reduction, loss.reduction = loss.reduction, None
    try:
        return bool(loss(y, output).shape.rank == 0)
    finally:
        loss.reduction = reduction


def _times_replicas(value: tf.Tensor) -> tf.Tensor:
    replicas = int(tf.distribute.get_strategy().num_replicas_in_sync)
    return value * replicas if replicas > 1 else value


def _is_of_keras(function: Any) -> bool:
    return not isinstance(function, keras.losses.Loss) and str(
        getattr(function, "__module__", "")
    ).startswith("keras.")


def _indices(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns class indices [B] (or [B, ...]) of labels that may be a column or floats."""
    remedy = (
        "Pass loss= and metrics= as to `compile`, such as"
        ' loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"].'
    )
    shapes = f"y {_shapes(y)} and output {_shapes(logits)}"
    rule = "the default loss and accuracy take class indices [B] and logits [B, C], C at least 2"
    require(not tf.nest.is_nested(y) and not tf.nest.is_nested(logits), rule, shapes, remedy)
    if y.shape.rank == logits.shape.rank and y.shape[-1] == 1:
        y = tf.squeeze(y, -1)
    require(y.shape.rank == logits.shape.rank - 1 and logits.shape[-1] != 1, rule, shapes, remedy)
    return y if y.dtype in (tf.int32, tf.int64) else tf.cast(y, tf.int64)


def _warn_of_probabilities(loss: Any, output: Any) -> None:
    """Warns where a loss takes logits and the model ends in softmax or sigmoid."""
    takes_logits = loss is cross_entropy or getattr(loss, "_fn_kwargs", {}).get("from_logits")
    op = getattr(output, "op", None) if takes_logits else None
    while op is not None and op.type in ("Cast", "Identity"):
        op = op.inputs[0].op
    if op is not None and op.type in ("Softmax", "Sigmoid"):
        warnings.warn(
            f"the loss takes logits, but the model ends in {op.type.lower()}. "
            "Take that activation out, or pass a loss that takes probabilities.",
            stacklevel=2,
        )


def _shapes(values: Any) -> str:
    def shape(leaf: tf.Tensor) -> list[int | None] | None:
        return None if leaf.shape.rank is None else leaf.shape.as_list()

    return str(tf.nest.map_structure(shape, values))
