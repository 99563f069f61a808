"""The loop against `model.fit` in the same process: same weights, same history."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import PlateauConfig, ScheduleConfig, train

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(48, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1)
VALIDATION = slice(36, None)
EPOCHS = 2
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Weights:
    """Keeps the weights after each epoch."""

    def __init__(self, model):
        self._model = model
        self.epochs = []

    def start(self, history):
        pass

    def batch(self, done, steps):
        pass

    def epoch(self, record):
        self.epochs.append(self._model.get_weights())

    def note(self, text):
        pass

    def close(self, history):
        pass


def batches(data, size=8):
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def rows(data, part):
    return tf.nest.map_structure(lambda values: values[part], data)


def fit(make, optimizer, data=(X, Y), *, loss=LOGITS, metrics=("accuracy",), **options):
    """Weights after `fit`, and its history."""
    keras.utils.set_random_seed(0)
    model = make()
    fitted = {name: options.pop(name) for name in ("class_weight",) if name in options}
    model.compile(optimizer(), loss, metrics=list(metrics), jit_compile=False, **options)
    history = model.fit(
        batches(rows(data, slice(36))),
        epochs=EPOCHS,
        validation_data=batches(rows(data, VALIDATION)),
        verbose=0,
        **fitted,
    )
    return model.get_weights(), history.history


def loop(make, optimizer, data=(X, Y), **options):
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
        writers=[kept],
        **({"steps_per_call": 2} | options),
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


def dense():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3, dtype="float32")]
    )


def convolutional():
    inputs = keras.Input((6,))
    x = keras.layers.Reshape((3, 2, 1))(inputs)
    x = keras.layers.Conv2D(4, 2, use_bias=False)(x)
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer(optimizer):
    assert_equal(loop(convolutional, optimizer), fit(convolutional, optimizer))


@pytest.mark.parametrize(
    ("policy", "rtol"),
    # In half precision the kernels of the loop round elsewhere than Keras's compositions.
    [("mixed_float16", 2e-2), ("mixed_bfloat16", 5e-2)],
    indirect=["policy"],
)
@pytest.mark.parametrize("make", [dense, convolutional])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_every_policy(policy, make, optimizer, rtol):
    optimizer = OPTIMIZERS[optimizer]
    assert_equal(loop(make, optimizer), fit(make, optimizer), rtol=rtol, atol=rtol / 4)


def test_steps_that_overflow_are_skipped():
    def optimizer():
        return scaled(keras.optimizers.Adam(0.01), initial_scale=1e38)

    assert_equal(loop(dense, optimizer), fit(dense, optimizer))


@pytest.mark.parametrize("optimizer", ["factor", "scaled"])
def test_micro_batches_with_a_scaled_loss(optimizer):
    optimizer = OPTIMIZERS[optimizer]
    assert_equal(loop(dense, optimizer, micro_batch=3), fit(dense, optimizer))
