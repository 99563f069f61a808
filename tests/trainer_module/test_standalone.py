"""The loop in the hands of somebody who knows Keras, and has nothing else of TFX."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import PlateauConfig, ScheduleConfig, train

pytestmark = pytest.mark.training

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")
ONE_EPOCH = ScheduleConfig(max_epochs=1)
LOSS = PlateauConfig(monitor="val_loss", mode="min")


def data(x=X, y=Y, *, drop_remainder=False):
    def make_dataset(batch_size, epoch):
        dataset = tf.data.Dataset.from_tensor_slices((x, y))
        return dataset.batch(batch_size, drop_remainder=drop_remainder)

    return make_dataset


def model_of(units=2, activation=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation)])


PROGRAM = """
import sys

BLOCKED = {"apache_beam", "pydantic", "tensorflow_transform", "tfx", "tfx_bsl", "pyarrow"}


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not installed here")


sys.meta_path.insert(0, Blocked())
import os

from trainer_module import PlateauCallback, PlateauConfig, ScheduleConfig, batches, train

assert "TF_USE_LEGACY_KERAS" not in os.environ
import tensorflow as tf

assert tf.keras.__version__.startswith("3."), tf.keras.__version__
x = tf.random.normal([64, 4])
data = tf.data.Dataset.from_tensor_slices((x, tf.reduce_sum(x, 1)))
model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
schedule = ScheduleConfig(max_epochs=2)
history = train(
    model, "sgd", lambda size, epoch: data.batch(size), data.batch(64), schedule, batch_size=8,
    loss="mse",
)
assert history.monitor == "val_loss", history.monitor
"""


def test_tensorflow_keras_and_numpy_are_enough():
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_keras_2_model_is_named_with_the_remedy():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(4,))])
    arguments = (data(), data()(60, 0), ONE_EPOCH)
    with pytest.raises(ValueError, match=r"Keras 2 \(tf_keras\).*TF_USE_LEGACY_KERAS=0"):
        train(model, "sgd", *arguments, batch_size=8)
    optimizer = tf_keras.optimizers.Adam()
    with pytest.raises(ValueError, match=r"^optimizer must be .*Adam of Keras 2"):
        train(model_of(), optimizer, *arguments, batch_size=8)


COMPILE = {
    "binary": (
        model_of(1, "sigmoid").get_config(),
        Y,
        {
            "loss": "binary_crossentropy",
            "metrics": ["accuracy", lambda: keras.metrics.AUC(name="auc")],
        },
    ),
    "logit": (
        model_of(1).get_config(),
        Y,
        {"loss": lambda: keras.losses.BinaryCrossentropy(from_logits=True)},
    ),
    "sparse": (
        model_of(2).get_config(),
        Y,
        {
            "loss": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["sparse_categorical_accuracy"],
        },
    ),
    "regression": (model_of(1).get_config(), X[:, 1], {"loss": "mse", "metrics": ["mae"]}),
}


def instances(options):
    """The arguments of `compile`, each object made anew."""
    made = {
        name: [m() if callable(m) else m for m in value] if name == "metrics" else value
        for name, value in options.items()
    }
    return {name: value() if callable(value) else value for name, value in made.items()}


@pytest.mark.parametrize(
    ("kind", "how", "column"),
    [
        ("binary", "compile", False),
        ("logit", "compile", True),
        ("sparse", "compile", False),
        ("binary", "arguments", True),
        ("regression", "arguments", False),
        ("binary", "strategy", True),
    ],
)
def test_loss_and_metrics_are_those_of_fit(kind, how, column):
    """Whether they are given to `compile` or to `train`, labels a column or not."""
    config, labels, options = COMPILE[kind]
    y = labels[:, None] if column else labels

    def made():
        keras.utils.set_random_seed(0)
        return keras.Sequential.from_config(config)

    fitted = made()
    fitted.compile("sgd", run_eagerly=True, **instances(options))
    expected = fitted.fit(
        data(y=y)(8, 0), validation_data=data(y=y)(60, 0), epochs=1, verbose=0
    ).history
    arguments = {"batch_size": 8, "num_examples": len(X), "steps_per_call": 4}
    schedule = ScheduleConfig(max_epochs=1, plateau=LOSS)
    if how == "arguments":
        model, optimizer = made(), "sgd"
        arguments |= instances(options)
    else:
        one = tf.distribute.MirroredStrategy(["CPU:0"])
        strategy = one if how == "strategy" else tf.distribute.get_strategy()
        with strategy.scope():
            model = made()
            model.compile("sgd", **instances(options))
        optimizer = model.optimizer
    history = train(model, optimizer, data(y=y), data(y=y)(60, 0), schedule, **arguments)
    found = history.epochs[0].metrics
    assert set(found) == set(expected)
    for name, (value,) in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    for ours, its in zip(model.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-5, atol=1e-6)


def test_without_metrics_the_monitor_is_the_validation_loss():
    history = train(
        model_of(1), "sgd", data(y=X[:, 0]), data(y=X[:, 0])(60, 0), ScheduleConfig(max_epochs=3),
        batch_size=8, loss="mse", steps_per_call=1,
    )  # fmt: skip
    assert (history.monitor, history.mode) == ("val_loss", "min")
    values = [record.metrics["val_loss"] for record in history.epochs]
    assert history.best.metrics["val_loss"] == min(values)


@pytest.mark.parametrize("name", ["val_mae", "val_mean_squared_error", "val_rmse", "loss"])
def test_an_error_may_not_be_maximised(name):
    with pytest.raises(ValueError, match=r"`mode` must be min .*Add `mode=min`"):
        PlateauConfig(monitor=name)


@pytest.mark.parametrize(
    ("drop_remainder", "counted"), [(False, 120), (True, 112)], ids=["whole", "dropped"]
)
def test_examples_are_counted(drop_remainder, counted):
    make_dataset = data(drop_remainder=drop_remainder)
    plan = ScheduleConfig(plan="batch*3", plateau=PlateauConfig(patience=1), max_epochs=8)
    arguments = {"batch_size": 16, "steps_per_call": 1}
    history = train(model_of(), "sgd", make_dataset, data()(60, 0), plan, **arguments)
    assert history.config["num_examples"] == counted
    assert history.epochs[0].examples == counted


@pytest.mark.parametrize("num_examples", [105, 1000])
def test_another_number_of_examples_is_refused(num_examples):
    message = rf"num_examples must be .*got '{num_examples}, of which training_data gave 120"
    with pytest.raises(ValueError, match=message):
        train(
            model_of(), "sgd", data(), data()(60, 0), ONE_EPOCH,
            batch_size=16, num_examples=num_examples, steps_per_call=1,
        )  # fmt: skip


@pytest.mark.parametrize(
    "repeated",
    [
        lambda dataset: dataset.repeat(),
        lambda dataset: dataset.repeat().map(lambda x, y: (x, y)).prefetch(1),
        lambda dataset: dataset.filter(lambda x, y: True).repeat(),
    ],
)
@pytest.mark.parametrize("num_examples", [None, 120])
def test_a_dataset_without_end_is_refused(repeated, num_examples):
    with pytest.raises(ValueError, match=r"training_data must give one epoch.*repeat\(\)"):
        train(
            model_of(), "sgd", lambda size, epoch: repeated(data()(size, epoch)), data()(60, 0),
            ONE_EPOCH, batch_size=8, num_examples=num_examples,
        )  # fmt: skip


def test_errors_name_arguments_not_flags():
    """Every bad value of the public configs, and of `train`."""
    bad = [
        *(lambda n=n: PlateauConfig(**{n: -1}) for n in ("patience", "min_delta", "cooldown")),
        lambda: PlateauConfig(mode="up"),
        lambda: PlateauConfig(monitor=""),
        lambda: PlateauConfig(smoothing="ema", compatibility="keras"),
        lambda: ScheduleConfig(factor=1),
        lambda: ScheduleConfig(max_epochs=0),
        lambda: ScheduleConfig(plan="lr*2"),
        lambda: ScheduleConfig(warmup_epochs=500),
        lambda: train(
            model_of(), "sgd", data(), data()(60, 0),
            ScheduleConfig(plateau=PlateauConfig(monitor="val_f1")), batch_size=8,
        ),
        lambda: train(model_of(), "sgd", data(), data()(60, 0), ONE_EPOCH, batch_size=500),
    ]  # fmt: skip
    for call in bad:
        with pytest.raises(ValueError) as error:
            call()
        assert "--" not in str(error.value)


@pytest.mark.parametrize("extra", [False, True])
def test_named_inputs_are_not_matched_by_their_order(extra):
    """Keras only warns of an input that the model does not have, and takes it for another one."""
    inputs = {name: keras.Input((1,), name=name) for name in ("b", "c")}
    hidden = keras.layers.Concatenate()(list(inputs.values()))
    output = keras.layers.Dense(2)(hidden)
    columns = {name: X[:, i : i + 1] for i, name in enumerate("abc") if extra or name != "a"}
    arguments = ("sgd", data(columns), data(columns)(60, 0), ONE_EPOCH)
    by_name, by_key = keras.Model(list(inputs.values()), output), keras.Model(inputs, output)
    options = {"batch_size": 8, "steps_per_call": 1}
    train(by_name, *arguments, **options)
    if extra:
        with pytest.raises(ValueError, match=r"must get those, b, c, got \['a', 'b', 'c'\]"):
            train(by_key, *arguments, **options)
    else:
        train(by_key, *arguments, **options)
