"""What the loop records of a model with all that is summed over devices."""

import keras
import numpy as np
import tensorflow as tf

from trainer_module import PlateauConfig, ScheduleConfig, train

RANDOM = np.random.default_rng(0)
WORDS, Y = RANDOM.integers(0, 9, (64, 5)), RANDOM.integers(0, 3, 64)
WEIGHTS = RANDOM.uniform(0.5, 2, 64).astype(np.float32)


def batches(size):
    return tf.data.Dataset.from_tensor_slices((WORDS, Y, WEIGHTS)).batch(size)


def recorded(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((5,), dtype="int64")
        x = keras.layers.LSTM(3, kernel_regularizer="l2")(keras.layers.Embedding(9, 4)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3, activity_regularizer="l2")(x))
        optimizer = keras.optimizers.SGD(0.1, use_ema=True, loss_scale_factor=64.0)
    history = train(
        model,
        optimizer,
        lambda size, epoch: batches(size),
        batches(16),
        ScheduleConfig(
            plateau=PlateauConfig(monitor="val_loss", mode="min"), max_epochs=2, actions=0
        ),
        num_examples=64,
        batch_size=16,
        micro_batch=4,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
        strategy=strategy,
    )
    return [dict(record.metrics) for record in history.epochs]
