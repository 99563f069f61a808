import math
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import PlateauConfig, ScheduleConfig, train
from trainer_module.training import throughput
from trainer_module.training.callbacks import Callback

pytestmark = pytest.mark.training

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(400, 5)).astype(np.float32)
# Labels without a pattern: the gradient is noise, which a larger batch lowers.
Y = RANDOM.integers(0, 2, 400)


class Pipeline:
    """Batches whose input pipeline takes time: seconds for each batch and for each example.

    Batches beyond a limit do not fit in memory.
    """

    def __init__(self, each_batch, each_example, labels=Y, limit=math.inf):
        self.each_batch, self.each_example = each_batch, each_example
        self.labels, self.limit = labels, limit
        self.now, self.sizes = 0.0, []

    def clock(self):
        return self.now

    def __call__(self, batch_size, epoch):
        def wait(x):
            if len(x) > self.limit:
                raise MemoryError
            self.sizes.append(len(x))
            self.now += self.each_batch + self.each_example * len(x)
            return x

        def slow(x, y):
            return tf.ensure_shape(tf.numpy_function(wait, [x], x.dtype), x.shape), y

        whole = tf.data.Dataset.from_tensor_slices((X, self.labels)).shuffle(400, seed=epoch)
        return whole.batch(batch_size, drop_remainder=True).map(slow)


def run(pipeline, directory=None, callbacks=(), micro_batch=None, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="tanh")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.1)(x)))
    config = ScheduleConfig(
        plateau=PlateauConfig(patience=1, monitor="val_loss", mode="min"),
        **{"strategy": "auto", "max_epochs": 20} | options,
    )
    history = train(
        model,
        keras.optimizers.SGD(0.1, momentum=0.9),
        pipeline,
        tf.data.Dataset.from_tensor_slices((X[::2], 1 - Y[::2])).batch(100),
        config,
        batch_size=8,
        num_examples=400,
        micro_batch=micro_batch,
        steps_per_call=1,
        directory=directory,
        callbacks=callbacks,
        clock=pipeline.clock,
    )
    return model, history


@pytest.mark.parametrize(
    ("pipeline", "action", "why"),
    [
        (Pipeline(1.0, 0.0), "batch_increase", "4.00 times the examples/s in the larger batch"),
        (Pipeline(0.0, 1.0), "lr_decay", "1.00 times the examples/s in the larger batch"),
        (Pipeline(1.0, 0.0, limit=16), "lr_decay", "the larger batch does not fit in memory"),
    ],
    ids=["each batch costs", "each example costs", "it does not fit in memory"],
)
def test_auto_grows_the_batch_only_where_that_is_faster(pipeline, action, why):
    _, history = run(pipeline, actions=1)
    assert history.decisions[0].action == action
    assert history.decisions[0].reason.endswith(f"({why})")


class Messages(Callback):
    def __init__(self):
        self.texts = []

    def on_message(self, text):
        self.texts.append(text)


def test_the_plan_that_it_names_repeats_a_run():
    """Bit for bit: what was measured left no trace in weights, slots or random states."""
    messages = Messages()
    pipelines = Pipeline(4.0, 0.5), Pipeline(4.0, 0.5)
    model, measured = run(pipelines[0], callbacks=[messages], actions=3)
    _, plan, rest = messages.texts[-1].split('"')
    assert (plan, rest) == ("batch*4, lr/4, lr/4", " repeats these actions")
    other, planned = run(pipelines[1], plan=plan)
    for name in ("metrics", "learning_rate", "batch_size", "action", "updates"):
        values = [[getattr(record, name) for record in h.epochs] for h in (measured, planned)]
        assert values[0] == values[1]
    for value, expected in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert measured.traces == planned.traces
    # At each plateau as many examples in batches of either size, and a batch to warm up.
    more, most = [sum(pipeline.sizes) for pipeline in pipelines], 40
    assert 0 < more[0] - more[1] <= 3 * (2 * throughput.ROUNDS * throughput.BATCHES + 1) * most


def test_a_resumed_run_keeps_its_decisions(tmp_path):
    """Though the machine that resumes it would decide otherwise."""

    class Keep(Callback):
        """Keeps the checkpoints as they are at the first plateau."""

        def on_epoch_end(self, record):
            if record.action == "batch_increase":
                shutil.copytree(tmp_path / "whole", tmp_path / "kept")

    _, whole = run(Pipeline(1.0, 0.0), tmp_path / "whole", [Keep()], actions=1)
    first = whole.decisions[0].epoch
    assert max((tmp_path / "kept").glob("epoch-*")).stem == f"epoch-{first:06}"
    _, resumed = run(Pipeline(0.0, 1.0), tmp_path / "kept", actions=1)
    assert [r.metrics for r in resumed.epochs] == [r.metrics for r in whole.epochs]
    assert [r.batch_size for r in resumed.epochs] == [r.batch_size for r in whole.epochs]


def test_a_batch_that_would_be_cut_gains_nothing():
    _, history = run(Pipeline(1.0, 0.0), micro_batch=16, actions=1)
    assert history.decisions[0].reason.endswith("(1.00 times the examples/s in the larger batch)")


def test_where_noise_does_not_dominate_nothing_is_measured():
    """As where all labels are the same, and all gradients too."""
    pipeline = Pipeline(1.0, 0.0, labels=np.zeros_like(Y))
    _, history = run(pipeline, actions=1)
    assert {record.action for record in history.decisions} == {"lr_decay", "stop"}
    assert set(pipeline.sizes) == {8}
