import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module.config import ImageFeatures, metrics
from trainer_module.training.batch import pieces
from trainer_module.training.noise import Measurement, NoiseState, measured
from trainer_module.training.objective import Objective
from trainer_module.training.step import Steps

pytestmark = pytest.mark.training

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
    assert trained(32, epochs=1)[2].metric_names == metrics(ImageFeatures())


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


@pytest.mark.parametrize("steps_per_call", [3, 8])
def test_several_steps_a_call_change_nothing(steps_per_call):
    one, *_, values = trained(16, steps_per_call=1)
    several, *_, other = trained(16, steps_per_call=steps_per_call)
    np.testing.assert_array_equal(weights(one), weights(several))
    assert values == pytest.approx(other)


@pytest.mark.parametrize("micro_batch", [7, 31])
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


def test_measuring_the_noise_changes_nothing():
    found = []
    for probes in (0, 3):
        model, optimizer = dense()
        data = pieces(batches(12))
        steps = Steps(model, optimizer, data.element_spec, steps_per_call=2)
        calls = list(steps.train_epoch(data, probes=probes, batches=8))
        assert [call.squared_norms is not None for call in calls] == [
            index == 0 and probes > 0 for index in range(len(calls))
        ]
        found.append((sum(call.steps for call in calls), int(optimizer.iterations), weights(model)))
    assert found[0][:2] == found[1][:2] == (8, 8)
    np.testing.assert_array_equal(found[0][2], found[1][2])


def squared(model, *batches, x=X, training=False):
    """Squared length of the mean over batches of the gradients of their mean losses."""
    gradients = []
    for rows in batches:
        with tf.GradientTape() as tape:
            logits = model(x[rows], training=training)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(Y[rows], logits)
        of_weights = tape.gradient(loss, [v.value for v in model.trainable_variables])
        gradients.append(np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in of_weights]))
    return float(np.sum(np.mean(gradients, axis=0) ** 2))


@pytest.mark.parametrize("probes", [1, 3])
def test_squared_norms_are_those_of_the_gradients(probes):
    model, optimizer = dense()
    steps = Steps(model, optimizer, pieces(batches(8)).element_spec)
    halves = [squared(model, slice(4 * i, 4 * i + 4)) for i in range(2 * probes)]
    whole = squared(model, slice(8 * probes))
    call = next(steps.train_epoch(pieces(batches(8)), probes=probes, batches=12))
    expected = (4, np.mean(halves), 8 * probes, whole)
    assert call.squared_norms.numpy() == pytest.approx(expected, rel=1e-4)


def test_batches_of_different_sizes_are_measured_by_the_means_of_1_over_size():
    model, optimizer = dense()
    rows = [slice(0, 8), slice(8, 16), slice(16, 20)]
    data = tf.data.Dataset.from_tensor_slices((X[:20], Y[:20])).batch(8)
    halves = [squared(model, slice(i, i + 4)) for i in (0, 4, 8, 12)]
    halves += [squared(model, slice(i, i + 2)) for i in (16, 18)]
    whole = squared(model, *rows)
    steps = Steps(model, optimizer, data.element_spec)
    call = next(steps.train_epoch(data, probes=8))
    expected = (3, np.mean(halves), 18, whole)
    assert call.squared_norms.numpy() == pytest.approx(expected, rel=1e-4)


def loss_scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0)


@pytest.mark.parametrize(
    ("size", "micro_batch", "make_optimizer"), [(48, 20, lambda: None), (3, 1, loss_scaled)]
)
def test_micro_batches_measure_each_batch(size, micro_batch, make_optimizer):
    model, optimizer = dense(make_optimizer())
    data = pieces(batches(size), micro_batch=micro_batch)
    steps = Steps(model, optimizer, pieces(batches(size)).element_spec)
    parts = [squared(model, slice(i, size, 3)) for i in range(3)]
    whole = squared(model, slice(size))
    calls = list(steps.train_epoch(data, micro=True))
    measured = [call.squared_norms is not None for call in calls]
    assert measured == [False, False, True] * (96 // size)
    expected = (size // 3, np.mean(parts), size, whole)
    assert calls[2].squared_norms.numpy() == pytest.approx(expected, rel=1e-4)


def embedding(make_pool=keras.layers.GlobalAveragePooling1D):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,), dtype="int64")
    x = make_pool()(keras.layers.Embedding(9, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.BatchNormalization()(x)))
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    return model, optimizer


WORDS = RANDOM.integers(0, 9, (96, 6))


def words(size):
    return tf.data.Dataset.from_tensor_slices((WORDS, Y)).batch(size)


def test_squared_norms_of_sparse_gradients_are_those_of_dense_ones():
    probes = 3
    model, optimizer = embedding()
    steps = Steps(model, optimizer, words(8).element_spec, steps_per_call=1)
    halves = [squared(model, slice(4 * i, 4 * i + 4), x=WORDS) for i in range(2 * probes)]
    whole = squared(model, slice(8 * probes), x=WORDS)
    call = next(steps.train_epoch(words(8), probes=probes))
    expected = (4, np.mean(halves), 8 * probes, whole)
    assert call.squared_norms.numpy() == pytest.approx(expected, rel=1e-4)


def test_micro_batches_with_sparse_gradients_measure_what_they_train_on():
    model, optimizer = embedding()
    steps = Steps(model, optimizer, words(8).element_spec)
    parts = [slice(i, 8, 2) for i in range(2)]
    same, _ = embedding()
    each = [squared(same, part, x=WORDS, training=True) for part in parts]
    both = squared(same, *parts, x=WORDS, training=True)
    calls = steps.train_epoch(pieces(words(8), micro_batch=4), micro=True)
    _, second, *_ = calls
    expected = (4, np.mean(each), 8, both)
    assert second.squared_norms.numpy() == pytest.approx(expected, rel=1e-4)


def test_a_batch_of_one_says_nothing_of_the_noise_but_several_do():
    model, optimizer = embedding()
    steps = Steps(model, optimizer, words(1).element_spec, steps_per_call=1)
    one = next(steps.train_epoch(words(1), probes=1, batches=96)).squared_norms
    assert measured(NoiseState(), [Measurement(*map(float, one))]) == NoiseState()
    model, optimizer = embedding()
    each = [squared(model, slice(i, i + 1), x=WORDS) for i in range(4)]
    whole = squared(model, slice(4), x=WORDS)
    steps = Steps(model, optimizer, words(1).element_spec, steps_per_call=2)
    several = next(steps.train_epoch(words(1), probes=4, batches=96)).squared_norms
    assert several.numpy() == pytest.approx((1, np.mean(each), 4, whole), rel=1e-4)


def test_measuring_the_noise_leaves_random_states_as_they_were():
    found = []
    for probes in (0, 3):
        # Of recurrent layers the quickest one to trace; its seed is drawn as it is made.
        model, optimizer = embedding(lambda: keras.layers.SimpleRNN(3, recurrent_dropout=0.3))
        steps = Steps(model, optimizer, words(8).element_spec, steps_per_call=1)
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
    steps = Steps(model, optimizer, spec, objective=objective, steps_per_call=1)
    before = steps.evaluate(pieces(batches(8)))
    for _ in range(5):
        list(steps.train_epoch(pieces(batches(8)), batches=12))
    after = steps.evaluate(pieces(batches(8)))
    assert set(after) == {"loss", "error"}
    assert after["loss"] < before["loss"]
