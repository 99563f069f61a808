"""A small training program, run in processes of its own by the tests.

Usage: program.py OUT [--checkpoints DIR] [--strategy single|mirrored|workers|both]
    [--slow SECONDS] [--limit EXAMPLES] [--measure GROWTH] [+ OUT ...]

Runs after the first follow in the same process.
"""

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from trainer_module.util import environment

environment.prepare()

import keras
import numpy as np
import tensorflow as tf
from two_devices import recorded

from trainer_module import PlateauConfig, ScheduleConfig, train
from trainer_module.config import ImageFeatures
from trainer_module.training.callbacks import Callback
from trainer_module.training.data import Split, evaluation_dataset, training_factory

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (264, 8, 8, 1), np.uint8)
Y = (X[:, :4].mean((1, 2, 3)) > X[:, 4:].mean((1, 2, 3))).astype(np.int64)


class Say(Callback):
    """Prints epochs as they end, so that the tests know when to strike."""

    def on_train_begin(self, history):
        print("start", len(history.epochs), flush=True)

    def on_epoch_end(self, record):
        print("epoch", record.epoch, record.batch_size, flush=True)

    def on_message(self, text):
        print("note", text, flush=True)

    def on_train_end(self, history):
        print("close", history.stop_reason, flush=True)


class Limited(keras.layers.Layer):
    """Asks for more memory than any machine has, beyond a batch size in training."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def call(self, x, training=False):
        if not training:
            return x
        size = tf.where(tf.shape(x)[0] > self.limit, tf.constant(2**46, tf.int64), 1)
        return x + tf.reduce_sum(tf.random.uniform([size])) * 0.0


def build(batch_norm, limit=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    if limit:
        x = Limited(limit)(x)
    if batch_norm:
        x = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization()(x))
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def clock(growth):
    """Real seconds, or ones each of which is longer than the one before by a factor."""
    if growth is None:
        return time.monotonic
    return itertools.accumulate(growth**i for i in itertools.count()).__next__


def evaluated(trained):
    """Loss of the weights that a model was left with, as Keras computes it on one device."""
    model = build(any("normalization" in layer.name for layer in trained.layers))
    model.set_weights([np.asarray(w) for w in trained.get_weights()])
    output = model(X[200:].astype(np.float32), training=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(Y[200:], output))


def parse(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--strategy", default="single")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--limit", type=int)
    # Rate and actions are chosen by measurement, with a clock whose seconds grow by this factor.
    parser.add_argument("--measure", type=float)
    return parser.parse_args(words)


def main():
    runs = [
        parse(list(words)) for more, words in itertools.groupby(sys.argv[1:], "+".__ne__) if more
    ]
    tf.config.experimental.enable_op_determinism()
    if runs[0].strategy == "workers":
        # It can be made but once, and before anything else.
        workers = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        single = tf.distribute.get_strategy()
        mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for run in runs:
        print("run", run.out.name, flush=True)
        if run.strategy == "both":
            values = [recorded(single), recorded(mirrored)]
        elif run.strategy == "workers":
            values = fit(run, workers)
        else:
            values = fit(run, mirrored if run.strategy == "mirrored" else single)
        worker = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)
        run.out.with_suffix(f".{worker}.json").write_text(json.dumps(values))


def fit(args, strategy):
    with strategy.scope():
        # Statistics of a share of the batch differ from those of the whole.
        model = build(batch_norm=args.checkpoints is not None, limit=args.limit)
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    augment = "strong" if args.checkpoints else "light"
    make = training_factory(Split(X[:200], Y[:200]), ImageFeatures(augment=augment), 0)

    def make_dataset(batch_size, epoch):
        time.sleep(args.slow)
        return make(batch_size, epoch)

    history = train(
        model,
        optimizer,
        make_dataset,
        evaluation_dataset(Split(X[200:], Y[200:]), 31),
        ScheduleConfig(
            plateau=PlateauConfig(patience=2),
            plan=None if args.measure else "batch*4, lr/4",
            strategy="auto",
            max_batch_size=64,
            max_epochs=9,
        ),
        num_examples=200,
        batch_size=16,
        micro_batch=None if args.measure else 24,
        find_learning_rate=bool(args.measure),
        steps_per_call=3,
        directory=args.checkpoints,
        callbacks=[Say()],
        strategy=strategy,
        clock=clock(args.measure),
    )
    return {
        "weights": [np.asarray(w).ravel().tolist() for w in model.get_weights()],
        "epochs": [{**vars(r), "metrics": dict(r.metrics), "seconds": 0} for r in history.epochs],
        "traces": dict(history.traces),
        "best": dict(history.best.metrics),
        "kept": evaluated(model),
    }


if __name__ == "__main__":
    main()
