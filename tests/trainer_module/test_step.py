import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module.batch import pieces
from trainer_module.config import METRICS
from trainer_module.noise import NoiseState, measured
from trainer_module.objective import Objective
from trainer_module.step import Steps

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(96, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1)


def dense(optimizer=None, regularizer=None):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    x = keras.layers.Dense(7, activation="tanh", kernel_regularizer=regularizer)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def batches(size):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(size)


def trained(size, *, micro_batch=None, epochs=2, steps_per_call=4, regularizer=None):
    model, optimizer = dense(regularizer=regularizer)
    data = pieces(batches(size), micro_batch=micro_batch)
    spec = pieces(batches(size)).element_spec
    steps = Steps(model, optimizer, spec, steps_per_call=steps_per_call)
    micro = micro_batch is not None
    count = None if micro else int(batches(size).cardinality())
    values = None
    for _ in range(epochs):
        sums = [call.sums for call in steps.train_epoch(data, batches=count, micro=micro)]
        values = steps.means(sums)
    return model, optimizer, steps, values


def weights(model):
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


def test_measures_what_the_config_says_the_trainer_measures():
    assert trained(32, epochs=1)[2].metric_names == METRICS


@pytest.mark.parametrize("regularizer", [None, "l2"])
def test_trains_as_keras_fit_does(regularizer):
    model, _, _, values = trained(32, epochs=3, regularizer=regularizer)
    expected, _ = dense(regularizer=regularizer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    record = expected.fit(batches(32), epochs=3, verbose=0).history
    np.testing.assert_allclose(weights(model), weights(expected), rtol=1e-4, atol=1e-6)
    assert values["accuracy"] == pytest.approx(record["accuracy"][-1])
    assert values["loss"] == pytest.approx(record["loss"][-1], rel=1e-5)


@pytest.mark.parametrize("steps_per_call", [2, 3, 8])
def test_several_steps_a_call_change_nothing(steps_per_call):
    one, *_, values = trained(16, steps_per_call=1)
    several, *_, other = trained(16, steps_per_call=steps_per_call)
    np.testing.assert_array_equal(weights(one), weights(several))
    assert values == pytest.approx(other)


@pytest.mark.parametrize("micro_batch", [7, 16, 31])
def test_micro_batches_equal_the_big_batch(micro_batch):
    whole, optimizer, *_, values = trained(48, regularizer="l2")
    cut, other, *_, in_pieces = trained(48, micro_batch=micro_batch, regularizer="l2")
    np.testing.assert_allclose(weights(whole), weights(cut), rtol=1e-4, atol=1e-6)
    assert int(optimizer.iterations) == int(other.iterations) == 4
    assert in_pieces == pytest.approx(values, rel=1e-4)


def test_an_epoch_broken_off_leaves_nothing_behind():
    model, optimizer = dense()
    data = pieces(batches(48), micro_batch=16)
    steps = Steps(model, optimizer, pieces(batches(48)).element_spec)
    half_a_batch = steps.train_epoch(data, micro=True)
    next(half_a_batch)
    half_a_batch.close()
    list(steps.train_epoch(data, micro=True))
    expected, *_ = trained(48, micro_batch=16, epochs=1)
    np.testing.assert_allclose(weights(model), weights(expected), rtol=1e-5, atol=1e-7)


def test_one_trace_whatever_learning_rate_and_batch_do():
    model, optimizer = dense()
    spec = pieces(batches(8)).element_spec
    steps = Steps(model, optimizer, spec, steps_per_call=2)
    for size, rate in ((8, 0.1), (24, 0.1), (24, 0.01), (96, 0.001), (50, 0.001)):
        optimizer.learning_rate.assign(rate)
        for micro_batch in (None, 5):
            data = pieces(batches(size), micro_batch=micro_batch)
            count = None if micro_batch else int(batches(size).cardinality())
            micro = micro_batch is not None
            list(steps.train_epoch(data, probes=9, batches=count, micro=micro))
        steps.evaluate(pieces(batches(size)))
    assert set(steps.traces().values()) == {1}


@pytest.mark.parametrize("micro_batch", [None, 5])
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_measuring_the_noise_changes_nothing(micro_batch, steps_per_call):
    found = []
    for probes in (0, 3):
        model, optimizer = dense()
        data = pieces(batches(12), micro_batch=micro_batch)
        spec = pieces(batches(12)).element_spec
        steps = Steps(model, optimizer, spec, steps_per_call=steps_per_call)
        micro = micro_batch is not None
        count = None if micro else 8
        calls = list(steps.train_epoch(data, probes=probes, batches=count, micro=micro))
        assert [call.squared_norms is not None for call in calls[:4]] == [probes > 0] * 3 + [False]
        steps_done = sum(call.steps for call in calls)
        found.append((steps_done, int(optimizer.iterations), weights(model)))
    assert found[0][:2] == found[1][:2] == (24 if micro_batch else 8, 8)
    np.testing.assert_array_equal(found[0][2], found[1][2])


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_squared_norms_are_those_of_the_gradients(steps_per_call):
    model, optimizer = dense()
    expected, _ = dense()
    steps = Steps(model, optimizer, pieces(batches(8)).element_spec, steps_per_call=steps_per_call)
    call = next(steps.train_epoch(pieces(batches(8)), probes=1, batches=12))
    size, small, big = call.squared_norms.numpy()

    def squared(rows):
        with tf.GradientTape() as tape:
            logits = expected(X[rows])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(Y[rows], logits)
        gradients = tape.gradient(loss, [v.value for v in expected.trainable_variables])
        return sum(float(tf.reduce_sum(g * g)) for g in gradients)

    assert size == 8
    assert small == pytest.approx((squared(slice(4)) + squared(slice(4, 8))) / 2, rel=1e-4)
    assert big == pytest.approx(squared(slice(8)), rel=1e-4)


def embedding(**options):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,), dtype="int64")
    x = keras.layers.LSTM(3, **options)(keras.layers.Embedding(9, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.BatchNormalization()(x)))
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    return model, optimizer


WORDS = RANDOM.integers(0, 9, (96, 6))


def words(size):
    return tf.data.Dataset.from_tensor_slices((WORDS, Y)).batch(size)


def test_squared_norms_of_sparse_gradients_are_those_of_dense_ones():
    model, optimizer = embedding()
    steps = Steps(model, optimizer, words(8).element_spec, steps_per_call=1)
    expected, _ = embedding()

    def squared(rows):
        with tf.GradientTape() as tape:
            logits = expected(WORDS[rows])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(Y[rows], logits)
        gradients = tape.gradient(loss, [v.value for v in expected.trainable_variables])
        return sum(float(tf.reduce_sum(tf.convert_to_tensor(g) ** 2)) for g in gradients)

    size, small, big = next(steps.train_epoch(words(8), probes=1)).squared_norms.numpy()
    assert size == 8
    assert small == pytest.approx((squared(slice(4)) + squared(slice(4, 8))) / 2, rel=1e-4)
    assert big == pytest.approx(squared(slice(8)), rel=1e-4)


@pytest.mark.parametrize(("size", "micro_batch"), [(1, None), (4, 1)])
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_batch_of_one_says_nothing_of_the_noise(size, micro_batch, steps_per_call):
    model, optimizer = embedding()
    steps = Steps(model, optimizer, words(size).element_spec, steps_per_call=steps_per_call)
    data = pieces(words(size).take(4), micro_batch=micro_batch)
    micro = micro_batch is not None
    count = None if micro else 4
    first, *_ = steps.train_epoch(data, probes=1, batches=count, micro=micro)
    assert measured(NoiseState(), *map(float, first.squared_norms)) == NoiseState()


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_measuring_the_noise_leaves_random_states_as_they_were(steps_per_call):
    found = []
    for probes in (0, 3):
        model, optimizer = embedding(recurrent_dropout=0.3, dropout=0.3)
        steps = Steps(model, optimizer, words(8).element_spec, steps_per_call=steps_per_call)
        list(steps.train_epoch(words(8), probes=probes, batches=12))
        found.append([np.array(v) for v in model.variables])
    for without, measuring in zip(*found, strict=True):
        np.testing.assert_array_equal(without, measuring)


def test_evaluation_weighs_examples_not_batches():
    model, optimizer = dense()
    steps = Steps(model, optimizer, pieces(batches(8)).element_spec)
    whole = steps.evaluate(pieces(batches(96)))
    uneven = steps.evaluate(pieces(batches(50)))
    assert whole == pytest.approx(uneven, rel=1e-5)
    logits = model.predict(X, verbose=0)
    assert whole["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == Y))


def test_own_loss_and_metrics():
    model, optimizer = dense(keras.optimizers.Adam(0.01))
    spec = pieces(batches(8)).element_spec
    objective = Objective(
        lambda y, out: tf.square(out[:, 0] - tf.cast(y, tf.float32)),
        {"error": lambda y, out: tf.abs(out[:, 0] - tf.cast(y, tf.float32))},
    )
    steps = Steps(model, optimizer, spec, objective=objective)
    before = steps.evaluate(pieces(batches(8)))
    for _ in range(5):
        list(steps.train_epoch(pieces(batches(8)), batches=12))
    after = steps.evaluate(pieces(batches(8)))
    assert set(after) == {"loss", "error"}
    assert after["loss"] < before["loss"]
