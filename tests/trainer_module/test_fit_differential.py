"""The loop against `model.fit` in the same process: same weights, same history."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import PlateauConfig, ScheduleConfig, train
from trainer_module.training.callbacks import Callback

pytestmark = pytest.mark.component

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(48, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1)
VALIDATION = slice(36, None)
EPOCHS = 2
ACCURACY = ["accuracy"]
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Weights(Callback):
    """Keeps the weights after each epoch."""

    def __init__(self, model):
        self._model = model
        self.epochs = []

    def on_epoch_end(self, record):
        self.epochs.append(self._model.get_weights())


def batches(data, size=8):
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def rows(data, part):
    return tf.nest.map_structure(lambda values: values[part], data)


def fit(make, optimizer, data=(X, Y), *, loss=LOGITS, metrics=ACCURACY, **options):
    """Weights after `fit`, and its history.

    Eagerly: on so little data Keras's traces would take longer than its training.
    """
    keras.utils.set_random_seed(0)
    model = make()
    fitted = {name: options.pop(name) for name in ("class_weight",) if name in options}
    model.compile(optimizer(), loss, metrics=metrics, run_eagerly=True, **options)
    history = model.fit(
        batches(rows(data, slice(36))),
        epochs=EPOCHS,
        validation_data=batches(rows(data, VALIDATION)),
        verbose=0,
        **fitted,
    )
    return model.get_weights(), history.history


def loop(make, optimizer, data=(X, Y), *, metrics=ACCURACY, **options):
    """Weights after the loop's last epoch, and its history by name as Keras has it."""
    keras.utils.set_random_seed(0)
    model = make()
    kept = Weights(model)
    history = train(
        model,
        optimizer(),
        lambda size, epoch: batches(rows(data, slice(36)), size),
        batches(rows(data, VALIDATION)),
        ScheduleConfig(
            plateau=PlateauConfig(monitor="val_loss", mode="min"), max_epochs=EPOCHS, actions=0
        ),
        num_examples=36,
        batch_size=8,
        callbacks=[kept],
        metrics=metrics,
        **({"steps_per_call": 1} | options),
    )
    assert max(history.traces.values()) == 1
    names = history.epochs[0].metrics
    return kept.epochs[-1], {name: [r.metrics[name] for r in history.epochs] for name in names}


def assert_equal(ours, theirs, rtol=1e-4, atol=1e-6):
    for mine, its in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(
            np.asarray(mine, np.float64), np.asarray(its, np.float64), rtol=rtol, atol=atol
        )
    assert set(theirs[1]) <= set(ours[1])
    for name, values in theirs[1].items():
        np.testing.assert_allclose(ours[1][name], values, rtol=rtol, atol=atol, err_msg=name)


def assert_loop_equals_fit(make, optimizer, data=(X, Y), *, micro_batches=(None,), **options):
    theirs = fit(make, optimizer, data, **options)
    for micro_batch in micro_batches:
        assert_equal(loop(make, optimizer, data, micro_batch=micro_batch, **options), theirs)


def dense():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3, dtype="float32")]
    )


def convolutional(regularizer="l2"):
    inputs = keras.Input((6,))
    x = keras.layers.Reshape((3, 2, 1))(inputs)
    x = keras.layers.Conv2D(4, 2, use_bias=False, kernel_regularizer=regularizer)(x)
    x = keras.layers.BatchNormalization(momentum=0.8)(x)
    x = keras.layers.Dropout(0.2)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))


@pytest.fixture
def policy(request):
    """Keras's dtype policy within the test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def scaled(inner, **options):
    return keras.optimizers.LossScaleOptimizer(inner, **options)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov_clipped": lambda: keras.optimizers.SGD(
        0.1, momentum=0.9, nesterov=True, global_clipnorm=0.5
    ),
    "factor": lambda: keras.optimizers.SGD(0.1, momentum=0.9, loss_scale_factor=64.0),
    "scaled": lambda: scaled(keras.optimizers.SGD(0.1, momentum=0.9), dynamic_growth_steps=3),
    "accumulating": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "lamb": lambda: keras.optimizers.Lamb(0.01),
    "lion": lambda: keras.optimizers.Lion(0.001),
}


# The others train the losses below.
@pytest.mark.parametrize(
    "optimizer", ["nesterov_clipped", "scaled", "accumulating", "adamw", "adafactor"]
)
def test_every_optimizer(optimizer):
    optimizer = OPTIMIZERS[optimizer]
    ours = loop(convolutional, optimizer, steps_per_call=2)
    assert_equal(ours, fit(convolutional, optimizer))


@pytest.mark.parametrize(
    ("policy", "optimizer", "rtol"),
    # In half precision the kernels of the loop round elsewhere than Keras's compositions.
    [
        ("mixed_float16", "momentum", 2e-2),
        ("mixed_bfloat16", "adam", 5e-2),
        ("bfloat16", "momentum", 1e-1),
    ],
    indirect=["policy"],
)
def test_every_policy(policy, optimizer, rtol):
    optimizer = OPTIMIZERS[optimizer]

    def make():
        # Keras itself cannot add a penalty in bfloat16 to a loss in float32.
        return convolutional(regularizer=None)

    assert_equal(loop(make, optimizer), fit(make, optimizer), rtol=rtol, atol=rtol / 4)


def test_steps_that_overflow_are_skipped():
    def optimizer():
        return scaled(keras.optimizers.Adam(0.01), initial_scale=1e38)

    assert_loop_equals_fit(dense, optimizer)


@pytest.mark.parametrize("optimizer", ["factor", "scaled"])
def test_micro_batches_with_a_scaled_loss(optimizer):
    assert_loop_equals_fit(dense, OPTIMIZERS[optimizer], micro_batches=[3])


MOMENTUM = OPTIMIZERS["momentum"]
ONE_HOT = np.eye(3, dtype=np.float32)[Y]
BINARY = (X[:, 0] > 0).astype(np.float32)
WEIGHTS = RANDOM.uniform(0.5, 2, 48).astype(np.float32)
WORDS = np.where(np.arange(48)[:, None] % 5 < np.arange(4), 0, RANDOM.integers(1, 9, (48, 4)))


def model(units, activation=None):
    def make():
        layers = [keras.layers.Dense(5, "tanh"), keras.layers.Dense(units, activation)]
        return keras.Sequential([keras.Input((6,)), *layers])

    return make


def tagger():
    """[B, 4] words to [B, 4, 3] logits; word 0 is masked."""
    inputs = keras.Input((4,), dtype="int64")
    x = keras.layers.Embedding(9, 5, mask_zero=True)(inputs)
    return keras.Model(
        inputs, keras.layers.Dense(3)(keras.layers.LSTM(4, return_sequences=True)(x))
    )


def own_loss(y, output):
    return tf.square(output[:, 0] - tf.cast(y, tf.float32))


LOSSES = {
    "sparse": (model(3), Y, LOGITS, "sgd"),
    "column": (model(3), Y[:, None], LOGITS, "momentum"),
    "probabilities": (model(3, "softmax"), Y, "sparse_categorical_crossentropy", "rmsprop"),
    "one_hot": (model(3, "softmax"), ONE_HOT, keras.losses.CategoricalCrossentropy(), "adagrad"),
    "smoothed": (
        model(3),
        ONE_HOT,
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        "momentum",
    ),
    "binary": (model(1, "sigmoid"), BINARY, "bce", "lamb"),
    "by_shape": (model(3, "softmax"), Y, "crossentropy", "momentum"),
    "regression": (model(1), BINARY, "mse", "lion"),
    "class": (model(1), BINARY[:, None], keras.losses.Huber(0.3), "factor"),
    "function": (model(2), X[:, :2], keras.losses.mean_absolute_error, "adam"),
    "many": (model(2), X[:, :2], keras.losses.MeanSquaredError(), "momentum"),
    "dice": (model(1, "sigmoid"), BINARY[:, None], keras.losses.Dice(), "momentum"),
    "tagger": (tagger, WORDS % 3, LOGITS, "momentum"),
}


def data_of(y, name):
    return (WORDS if name == "tagger" else X), y


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss(name):
    make, y, loss, optimizer = LOSSES[name]
    micro_batches = [None, 3] if name in ("column", "smoothed", "by_shape", "many") else [None]
    assert_loop_equals_fit(
        make, OPTIMIZERS[optimizer], data_of(y, name), loss=loss, micro_batches=micro_batches
    )


@pytest.mark.parametrize("name", ["dice", "tagger"])
def test_a_loss_that_is_no_mean_over_examples_is_refused_on_micro_batches(name):
    make, y, loss, _ = LOSSES[name]
    with pytest.raises(ValueError, match="must be computed on whole batches"):
        loop(make, MOMENTUM, loss=loss, data=data_of(y, name), metrics=[], micro_batch=3)


def test_losses_that_fit_does_not_take():
    """One's own, the default one, and one without a reduction, which is the mean."""
    mean = fit(model(1), MOMENTUM, (X, BINARY), loss="mse", metrics=[])
    assert_equal(loop(model(1), MOMENTUM, (X, BINARY), loss=own_loss, metrics={}), mean)
    expected = fit(dense, MOMENTUM)
    for y in (Y[:, None], Y.astype(np.uint8)):
        assert_equal(loop(dense, MOMENTUM, (X, y), metrics=None), expected)
    whole = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    assert_equal(loop(dense, MOMENTUM, loss=whole), expected)


def test_keras_metrics_by_name_and_as_objects():
    metrics = ["accuracy", keras.metrics.AUC(name="auc"), "mae"]
    options = {"loss": "binary_crossentropy", "data": (X, BINARY)}
    make = model(1, "sigmoid")
    assert_loop_equals_fit(make, MOMENTUM, metrics=metrics, micro_batches=[None, 3], **options)
    with pytest.raises(ValueError, match="metric auc must be a function"):
        loop(make, MOMENTUM, metrics={"auc": keras.metrics.AUC()}, **options)


def test_sample_weights_and_weighted_metrics():
    assert_loop_equals_fit(
        dense,
        MOMENTUM,
        (X, Y, WEIGHTS),
        micro_batches=[None, 3],
        loss=LOGITS,
        weighted_metrics=["accuracy"],
    )


@pytest.mark.parametrize("y", [Y, ONE_HOT])
def test_class_weights(y):
    loss = LOGITS if y is Y else keras.losses.CategoricalCrossentropy(from_logits=True)
    options = {"loss": loss, "class_weight": {0: 1.0, 1: 3.0, 2: 0.5}}
    assert_loop_equals_fit(dense, MOMENTUM, (X, y), **options)


REFUSED = {
    "a scalar": (model(1), BINARY, lambda y, out: tf.reduce_mean(own_loss(y, out)), r"shape \[\]"),
    "pairs": (model(1), BINARY, lambda y, out: tf.square(y - out), r"each pair of examples"),
    "a sum": (model(1), BINARY, keras.losses.MeanSquaredError("sum"), "reduction 'sum'"),
    "one-hot labels": (model(3), ONE_HOT, None, "class indices"),
    "one logit": (model(1), BINARY, None, "class indices"),
    "other shapes": (model(3), X[:, :2], lambda y, out: y - out, "an error from y"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_without_a_value_for_each_example_is_refused_before_training(name):
    make, y, loss, message = REFUSED[name]
    options = {"metrics": {}} if loss is None else {"metrics": {}, "loss": loss}
    with pytest.raises(ValueError, match=message):
        loop(make, MOMENTUM, (X, y), **options)


def test_a_metric_for_each_pair_is_refused():
    metrics = {"error": lambda y, out: tf.abs(y - out)}
    with pytest.raises(ValueError, match="metric error must return a value for each example"):
        loop(model(1), MOMENTUM, (X, BINARY), loss="mse", metrics=metrics)


@pytest.mark.parametrize("loss", [None, LOGITS])
@pytest.mark.filterwarnings("error::UserWarning")
def test_logits_that_are_probabilities_are_warned_of_before_training(loss):
    with pytest.raises(UserWarning, match="model ends in softmax"):
        loop(model(3, "softmax"), MOMENTUM, **({"loss": loss} if loss else {}))


def words():
    inputs = keras.Input((4,), dtype="int64")
    x = keras.layers.Flatten()(keras.layers.Embedding(9, 5)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def unconnected():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, "tanh")(inputs)
    aside = keras.layers.Dense(2)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x) + 0 * keras.ops.stop_gradient(aside[:, :1]))


@pytest.mark.parametrize(
    ("optimizer", "micro_batches"),
    # Keras squares each of the slices of a sparse gradient, and accumulation adds them up before.
    [("adam", [None]), ("momentum", [None, 3, 1])],
)
def test_sparse_gradients(optimizer, micro_batches):
    assert_loop_equals_fit(words, OPTIMIZERS[optimizer], (WORDS, Y), micro_batches=micro_batches)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_weights_that_the_loss_does_not_depend_on():
    assert_loop_equals_fit(unconnected, OPTIMIZERS["adamw"], micro_batches=[None, 3])


class Adding(keras.layers.Layer):
    """Adds the mean of its inputs to the loss."""

    def call(self, x):
        self.add_loss(0.1 * tf.reduce_mean(tf.square(x)))
        return x


def penalized(*, activity=None, adding=False):
    def make():
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(
            5, "tanh", kernel_regularizer="l2", activity_regularizer=activity
        )
        x = hidden(inputs)
        x = Adding()(x) if adding else keras.layers.ActivityRegularization(l1=0.01)(x)
        return keras.Model(inputs, keras.layers.Dense(3, bias_regularizer="l1")(x))

    return make


def test_regularization_counts_once_a_batch_and_shows_in_the_loss():
    make = penalized(activity="l2")
    theirs = fit(make, MOMENTUM)
    for micro_batch in (None, 3):
        ours = loop(make, MOMENTUM, micro_batch=micro_batch)
        assert_equal(ours, theirs)
        bare = ours[1]["data_loss"], ours[1]["val_data_loss"]
        assert (np.array(bare) < (ours[1]["loss"], ours[1]["val_loss"])).all()


def test_a_loss_that_layers_add():
    make = penalized(adding=True)
    assert_loop_equals_fit(make, MOMENTUM)
    with pytest.raises(ValueError, match="what layers add to the loss must be computed on whole"):
        loop(make, MOMENTUM, micro_batch=3)


def test_averages_of_the_weights_are_what_is_evaluated_and_kept():
    def optimizer():
        return keras.optimizers.Adam(
            0.01, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=4
        )

    weights, _ = fit(convolutional, optimizer)
    made = []

    def make():
        made.append(convolutional())
        return made[-1]

    _, history = loop(make, optimizer)
    # The monitor is better after each epoch, so that the last is kept.
    assert history["val_loss"] == sorted(history["val_loss"], reverse=True)
    for mine, its in zip(made[0].get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-6)
    made[0].compile(loss=LOGITS)
    evaluated = made[0].evaluate(batches(rows((X, Y), VALIDATION)), verbose=0)
    np.testing.assert_allclose(history["val_loss"][-1], evaluated, rtol=1e-4)


class Own(keras.Model):
    """A model whose graph Keras does not know."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(5, "tanh")
        self.last = keras.layers.Dense(3)

    def call(self, x):
        return self.last(self.hidden(x))


def two_inputs(names):
    def make():
        a, b = keras.Input((6,), name="a"), keras.Input((4,), dtype="int64", name="b")
        b_embedded = keras.layers.Flatten()(keras.layers.Embedding(9, 2)(b))
        x = keras.layers.Concatenate()([a, b_embedded])
        return keras.Model({"a": a, "b": b} if names else [a, b], keras.layers.Dense(3)(x))

    return make


def hashed():
    inputs = keras.Input((1,), dtype="int64")
    x = keras.layers.Embedding(50, 4)(keras.layers.Hashing(50)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def looked_up():
    inputs = keras.Input((1,), dtype="string")
    x = keras.layers.StringLookup(vocabulary=list("abcd"), output_mode="one_hot")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def two_outputs():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, "tanh")(inputs)
    kind = keras.layers.Dense(3, name="kind")(x)
    return keras.Model(inputs, {"kind": kind, "size": keras.layers.Dense(1, name="size")(x)})


def image():
    inputs = keras.Input((3, 2, 1))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs / 255)))


KINDS = {
    "own_class": (Own, (X, Y)),
    "unbuilt": (lambda: keras.Sequential([keras.layers.Dense(3)]), (X, Y)),
    "dict": (two_inputs(True), ({"a": X, "b": WORDS}, Y)),
    "tuple": (two_inputs(False), ((X, WORDS), Y)),
    "large_ids": (hashed, (2**24 + np.arange(48)[:, None], Y)),
    "strings": (looked_up, (np.array(list("abcdefgh") * 6)[:, None], Y)),
    "uint8": (image, (RANDOM.integers(0, 256, (48, 3, 2, 1), np.uint8), Y)),
    "float64": (dense, (X.astype(np.float64), Y.astype(np.float32))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input(kind):
    make, data = KINDS[kind]
    micro_batches = [None, 3] if kind in ("dict", "large_ids", "strings") else [None]
    assert_loop_equals_fit(make, MOMENTUM, data, loss=LOGITS, micro_batches=micro_batches)


def test_several_outputs():
    options = {
        "data": (X, {"kind": Y, "size": BINARY}),
        "loss": {"kind": LOGITS, "size": "mse"},
        "loss_weights": {"kind": 1.0, "size": 0.3},
        "metrics": {"kind": ["accuracy"], "size": ["mae"]},
    }
    theirs = fit(two_outputs, MOMENTUM, **options)
    names = set(theirs[1])
    # For each output Keras takes the mean over batches, of which the last is smaller here.
    for split in ("", "val_"):
        del theirs[1][f"{split}kind_loss"], theirs[1][f"{split}size_loss"]
    for micro_batch in (None, 3):
        ours = loop(two_outputs, MOMENTUM, micro_batch=micro_batch, **options)
        assert set(ours[1]) == names
        for split in ("", "val_"):
            kind, size = (np.array(ours[1][f"{split}{name}_loss"]) for name in ("kind", "size"))
            np.testing.assert_allclose(kind + 0.3 * size, ours[1][f"{split}loss"], rtol=1e-5)
        assert_equal(ours, theirs)


class Training(keras.Model):
    def train_step(self, data):
        return {"loss": 0.0}


def test_a_model_with_a_step_of_its_own_is_refused():
    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="Training with its own train_step"):
        loop(lambda: Training(inputs, keras.layers.Dense(3)(inputs)), MOMENTUM)
