import itertools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import PlateauConfig, ScheduleConfig, train
from trainer_module.config import ImageFeatures
from trainer_module.schedule.schedule import NonFiniteError
from trainer_module.training.callbacks import Callback
from trainer_module.training.data import Split, evaluation_dataset, training_factory
from trainer_module.training.optimizer import averages

pytestmark = pytest.mark.training

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 5)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
TRAINING, VALIDATION = Split(X[:90], Y[:90]), Split(X[90:], Y[90:])


class Recorder(Callback):
    """Keeps what it is told; stops the run after some epochs, as a killed process would.

    Or it copies the checkpoints after some epochs, to which a killed process would be resumed.
    """

    def __init__(self, die_after=None, *, copy_after=None, directory=None):
        self.records, self.notes, self.steps, self.closed = [], [], [], None
        self.die_after, self.copy_after, self.directory = die_after, copy_after, directory

    def on_train_begin(self, history):
        self.started = history

    def on_train_batch_end(self, done, steps):
        self.steps.append((done, steps))

    def on_epoch_end(self, record):
        self.records.append(record)
        if record.epoch == self.die_after:
            raise KeyboardInterrupt
        if record.epoch == self.copy_after:
            shutil.copytree(self.directory / "whole", self.directory / "killed")

    def on_message(self, text):
        self.notes.append(text)

    def on_train_end(self, history):
        self.closed = history


def model_and_optimizer(optimizer=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    # On some processors ReLU makes 0 of NaN, which has to get through here.
    x = keras.layers.Dense(8, activation="tanh")(inputs)
    x = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    return model, optimizer or keras.optimizers.SGD(0.05, momentum=0.9)


def run(config=None, *, writer=None, optimizer=None, **options):
    model, optimizer = model_and_optimizer(optimizer)
    defaults = {"num_examples": 90, "batch_size": 8, "steps_per_call": 1}
    history = train(
        model,
        optimizer,
        training_factory(TRAINING, ImageFeatures(), 0),
        evaluation_dataset(VALIDATION, 16),
        config or schedule_config(),
        callbacks=[writer or Recorder()],
        clock=itertools.count().__next__,
        **(defaults | options),
    )
    return model, history


def schedule_config(**options):
    plateau = PlateauConfig(patience=options.pop("patience", 2))
    defaults = {"factor": 2.0, "max_batch_size": 16, "max_epochs": 30}
    return ScheduleConfig(plateau=plateau, **(defaults | options))


@pytest.fixture(scope="module")
def whole():
    """A whole run: what trained, its history, and what the writer was told."""
    recorder = Recorder()
    config = schedule_config(strategy="hybrid", actions=2)
    return *run(config, writer=recorder, steps_per_call=4), recorder


def test_acts_at_stalls_and_stops_by_itself(whole):
    _, history, _ = whole
    actions = [r.action for r in history.decisions]
    assert actions == ["batch_increase", "lr_decay", "stop"]
    assert [r.batch_size for r in history.epochs][:: len(history.epochs) - 1] == [8, 16]
    assert history.epochs[0].learning_rate == 0.05
    assert history.epochs[-1].learning_rate == 0.025
    assert history.stop_reason == history.epochs[-1].reason
    first = history.decisions[0]
    after = history.epochs[first.epoch]
    assert (first.batch_size, after.batch_size) == (8, 16)
    assert "batch 8 -> 16" in first.reason


def test_one_trace_for_the_whole_run(whole):
    _, history, _ = whole
    assert len(history.decisions) == 3
    used = {"train_step", "train_steps", "noise_step", "eval_step"}
    assert {name for name, count in history.traces.items() if count == 1} == used
    assert max(history.traces.values()) == 1


def test_counts_updates_examples_and_seconds(whole):
    _, history, _ = whole
    updates = np.diff([0, *(r.updates for r in history.epochs)])
    examples = np.diff([0, *(r.examples for r in history.epochs)])
    for record, update, seen in zip(history.epochs, updates, examples, strict=True):
        assert update == 90 // record.batch_size
        assert seen == update * record.batch_size
    assert np.all(np.diff([r.seconds for r in history.epochs]) > 0)


def test_leaves_the_model_with_the_weights_of_the_best_epoch(whole):
    model, history, _ = whole
    accuracy = np.mean(model.predict(VALIDATION.x, verbose=0).argmax(1) == VALIDATION.y)
    assert accuracy == pytest.approx(history.best.metrics["val_accuracy"])
    assert accuracy == pytest.approx(max(r.metrics["val_accuracy"] for r in history.epochs))


def test_the_best_epoch_is_kept_though_it_gained_too_little_for_patience():
    plateau = PlateauConfig(monitor="loss", mode="min", patience=1, min_delta=9.0)
    model, history = run(ScheduleConfig(plateau=plateau, actions=0))
    first, best = history.epochs
    assert history.best == best
    accuracy = np.mean(model.predict(VALIDATION.x, verbose=0).argmax(1) == VALIDATION.y)
    assert accuracy == pytest.approx(best.metrics["val_accuracy"])
    assert accuracy != pytest.approx(first.metrics["val_accuracy"])


def test_callbacks_see_every_epoch(whole):
    _, history, recorder = whole
    assert tuple(recorder.records) == history.epochs
    assert recorder.closed == history
    # The noise is measured on the first eight batches of the first epoch, which are then single.
    assert recorder.steps[:11] == [(step, 11) for step in range(1, 12)]
    assert recorder.steps[11:16] == [(4, 11), (8, 11), (9, 11), (10, 11), (11, 11)]


RESUMABLE = schedule_config(restore="weights_and_slots", actions=2, warmup_epochs=2)


@pytest.fixture(scope="module")
def unbroken():
    return run(RESUMABLE)


def test_the_learning_rate_rises_during_warm_up(unbroken):
    _, history = unbroken
    assert [r.learning_rate for r in history.epochs[:3]] == pytest.approx([0.005, 0.0275, 0.05])
    assert all(r.action == "none" for r in history.epochs[:3])


def comparable(history):
    return [{**r.__dict__, "seconds": None} for r in history.epochs]


def assert_same_run(one, other):
    (model, history), (other_model, other_history) = one, other
    assert comparable(history) == comparable(other_history)
    for a, b in zip(model.get_weights(), other_model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_is_killed_twice_equals_an_unbroken_one(tmp_path, unbroken):
    assert len(unbroken[1].epochs) > 5
    for already, die_after in ((0, 1), (1, 4)):
        recorder = Recorder(die_after)
        with pytest.raises(KeyboardInterrupt):
            run(RESUMABLE, writer=recorder, directory=tmp_path)
        assert len(recorder.started.epochs) == already
    recorder = Recorder()
    resumed = run(RESUMABLE, writer=recorder, directory=tmp_path)
    assert len(recorder.started.epochs) == 4
    assert_same_run(unbroken, resumed)


def test_a_finished_run_is_not_trained_again(tmp_path):
    """Whatever Keras calls its optimizer; and with another config it is refused."""
    config = schedule_config(max_epochs=2)
    whole = run(config, directory=tmp_path)
    recorder = Recorder()
    other_name = keras.optimizers.SGD(0.05, momentum=0.9, name="sgd_1")
    again = run(config, directory=tmp_path, writer=recorder, optimizer=other_name)
    assert recorder.records == []
    assert_same_run(whole, again)
    with pytest.raises(ValueError, match="with the config, model and data it was started with"):
        run(schedule_config(max_epochs=2, patience=3), directory=tmp_path)


def nan_from(epoch):
    def make_dataset(batch_size, number):
        factory = training_factory(TRAINING, ImageFeatures(), 0)
        scale = np.nan if number == epoch else 1.0
        return factory(batch_size, number).map(lambda x, y: (x * tf.constant(scale, tf.float32), y))

    return make_dataset


def run_on(make_dataset, config):
    model, optimizer = model_and_optimizer()
    history = train(
        model,
        optimizer,
        make_dataset,
        evaluation_dataset(VALIDATION, 16),
        config,
        num_examples=90,
        batch_size=8,
        steps_per_call=1,
    )
    return model, history


def test_after_a_nan_the_model_has_the_best_weights_and_the_advice_can_be_followed(tmp_path):
    model, optimizer = model_and_optimizer()
    arguments = {"num_examples": 90, "batch_size": 8, "steps_per_call": 1, "directory": tmp_path}
    validation = evaluation_dataset(VALIDATION, 16)
    with pytest.raises(NonFiniteError, match=rf"epoch 3.*empty {tmp_path} first"):
        train(model, optimizer, nan_from(3), validation, schedule_config(max_epochs=4), **arguments)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    goes_on = schedule_config(on_nonfinite="rollback_and_reduce", max_epochs=5)
    with pytest.raises(ValueError, match="only with the config"):
        train(*model_and_optimizer(), nan_from(3), validation, goes_on, **arguments)
    goes_on = schedule_config(on_nonfinite="rollback_and_reduce", max_epochs=4)
    model, optimizer = model_and_optimizer()
    history = train(model, optimizer, nan_from(3), validation, goes_on, **arguments)
    assert_rolled_back(model, history, 3)


def assert_rolled_back(model, history, epoch):
    assert history.epochs[epoch - 1].action == "rollback"
    assert history.epochs[epoch].learning_rate == 0.025
    assert np.isfinite(history.epochs[epoch].metrics["loss"])
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_without_a_best_epoch_it_rolls_back_to_the_first_weights():
    config = schedule_config(on_nonfinite="rollback_and_reduce", max_epochs=2)
    assert_rolled_back(*run_on(nan_from(1), config), 1)


MOMENTUM = {"learning_rate": 0.05, "momentum": 0.9}


@pytest.mark.parametrize(
    ("restore", "make"),
    [
        ("weights", lambda: keras.optimizers.SGD(**MOMENTUM)),
        ("weights_and_slots", lambda: keras.optimizers.SGD(**MOMENTUM)),
        (
            "weights_reset_slots",
            lambda: keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.3),
        ),
        (
            "weights_reset_slots",
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(**MOMENTUM)),
        ),
    ],
)
def test_restores_at_a_plateau(restore, make):
    """Right after it, the weights are the best epoch's again, and so are slots or as if new."""
    weights, slots = [], []
    config = schedule_config(restore=restore, patience=1, actions=1)
    model, optimizer = model_and_optimizer(make())
    factory = training_factory(TRAINING, ImageFeatures(), 0)

    def values(optimizer):
        rate = optimizer.learning_rate
        return [np.array(v) for v in optimizer.variables if v is not rate]

    def make_dataset(batch_size, epoch):
        weights.append(model.get_weights())
        slots.append(values(optimizer))
        return factory(batch_size, epoch)

    validation = evaluation_dataset(VALIDATION, 16)
    arguments = {"num_examples": 90, "batch_size": 8, "steps_per_call": 1}
    history = train(model, optimizer, make_dataset, validation, config, **arguments)
    stall = history.decisions[0].epoch
    best = max(r.epoch for r in history.epochs[:stall] if r.best)
    assert best < stall
    # weights[n] are those after n epochs.
    for a, b in zip(weights[stall], weights[best], strict=True):
        np.testing.assert_array_equal(a, b)
    new = make()
    new.build(model.trainable_variables)
    expected = {"weights_and_slots": slots[best], "weights_reset_slots": values(new)}
    is_equal = [
        (a == b).all()
        for a, b in zip(slots[stall], expected.get(restore, slots[best]), strict=True)
    ]
    assert all(is_equal) == (restore in expected)
    # The best epoch is not the last one, and its slots are not new.
    assert any((a != b).any() for a, b in zip(slots[best], values(new), strict=True))


class Ends(Callback):
    """Calls a function after the last step of each epoch, before it is evaluated."""

    def __init__(self, at_end):
        self.at_end = at_end

    def on_train_batch_end(self, done, steps):
        if done == steps:
            self.at_end()


@pytest.mark.parametrize("restore", ["none", "weights"])
def test_a_plateau_restores_averages_of_the_weights_or_leaves_weights_and_averages(restore):
    """The averages of the best epoch are what is restored, and what the model ends with."""
    config = schedule_config(restore=restore, patience=1, actions=1)
    model, optimizer = model_and_optimizer(
        keras.optimizers.SGD(**MOMENTUM, use_ema=True, ema_momentum=0.8)
    )
    factory = training_factory(TRAINING, ImageFeatures(), 0)
    begun, left = [], []

    def state():
        """Weights as they are trained, and their averages."""
        both = (model.trainable_variables, averages(optimizer))
        return [list(map(np.array, variables)) for variables in both]

    def make_dataset(batch_size, epoch):
        begun.append(state())
        return factory(batch_size, epoch)

    ends = Ends(lambda: left.append(state()))
    arguments = {"num_examples": 90, "batch_size": 8, "steps_per_call": 1, "callbacks": [ends]}
    validation = evaluation_dataset(VALIDATION, 16)
    history = train(model, optimizer, make_dataset, validation, config, **arguments)
    stall = history.decisions[0].epoch
    best = max(r.epoch for r in history.epochs[:stall] if r.best)
    assert best < stall
    _, of_best = left[best - 1]
    expected = left[stall - 1] if restore == "none" else [of_best, of_best]
    for found, wanted in zip(begun[stall], expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    _, of_best = left[history.best.epoch - 1]
    for a, b in zip(model.trainable_variables, of_best, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_in_pure_bfloat16_is_resumed_bit_for_bit(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        config = schedule_config(restore="weights_and_slots", max_epochs=4)
        recorder = Recorder(copy_after=2, directory=tmp_path)
        whole = run(config, writer=recorder, directory=tmp_path / "whole")
        resumed = run(config, directory=tmp_path / "killed")
    finally:
        keras.config.set_dtype_policy(before)
    assert_same_run(whole, resumed)


def test_a_run_with_averages_of_the_weights_is_resumed_bit_for_bit(tmp_path):
    def once(**options):
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.8)
        config = schedule_config(restore="weights", patience=1, max_epochs=6)
        return run(config, optimizer=optimizer, **options)

    recorder = Recorder(copy_after=3, directory=tmp_path)
    model, history = once(writer=recorder, directory=tmp_path / "whole")
    assert_same_run((model, history), once(directory=tmp_path / "killed"))
    accuracy = np.mean(model.predict(VALIDATION.x, verbose=0).argmax(1) == VALIDATION.y)
    assert accuracy == pytest.approx(history.best.metrics["val_accuracy"])


def test_the_scaling_rule_goes_by_the_class_of_the_optimizer():
    """At a plateau, Adam's learning rate is cut by the square root of the factor."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01, name="mine"))
    config = schedule_config(strategy="lr_decay", factor=4.0, patience=1, actions=1)
    _, history = run(config, optimizer=optimizer)
    assert history.epochs[-1].learning_rate == 0.005


def test_bad_arguments_are_refused_before_training():
    with pytest.raises(
        ValueError, match=r"`monitor` must be one of .*val_accuracy.*, got 'val_f1'"
    ):
        run(ScheduleConfig(plateau=PlateauConfig(monitor="val_f1")))
    with pytest.raises(ValueError, match="`batch_size` must be"):
        run(batch_size=91)
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    with pytest.raises(ValueError, match="learning rate must be a number"):
        run(optimizer=keras.optimizers.SGD(decay))


def batched(x=X, y=Y, size=8):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def linear():
    """A model that is quick to trace, for training that is refused."""
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("make_dataset", "message", "micro_batch"),
    [
        (lambda size, epoch: batched().repeat(), "training_data must give one epoch", None),
        (lambda size, epoch: batched().take(0), "at least one batch an epoch", None),
        (
            lambda size, epoch: batched().filter(lambda x, y: False),
            "training_data must give at least one batch",
            None,
        ),
        (lambda size, epoch: batched().unbatch(), r"Call \.batch\(batch_size\)", None),
        (lambda size, epoch: (X, Y), "must be a tf.data.Dataset", None),
        (lambda size, epoch: tf.data.Dataset.range(9).batch(3), r"must yield \(x, y\) pairs", None),
        (lambda size, epoch: batched(size=7), "examples in .* of 8", None),
        (lambda size, epoch: batched(size=9), "examples in .* of 8", 3),
        (
            lambda size, epoch: batched(X if epoch == 1 else X.astype(np.float64), size=size),
            "same types and shapes in every epoch",
            None,
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(make_dataset, message, micro_batch):
    with pytest.raises(ValueError, match=message):
        train(
            linear(),
            "sgd",
            make_dataset,
            evaluation_dataset(VALIDATION, 16),
            schedule_config(),
            num_examples=120,
            batch_size=8,
            micro_batch=micro_batch,
            steps_per_call=1,
        )


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (batched().repeat(), "validation_data must give one epoch, which ends"),
        (batched().take(0), "validation_data must give at least one batch"),
        (batched().filter(lambda x, y: False), "validation_data must give at least one batch"),
        (batched().unbatch(), r"Call \.batch\(batch_size\)"),
    ],
)
def test_validation_that_cannot_be_evaluated_is_refused(validation, message):
    factory = training_factory(TRAINING, ImageFeatures(), 0)
    arguments = {"num_examples": 90, "batch_size": 8, "steps_per_call": 1}
    with pytest.raises(ValueError, match=message):
        train(linear(), "sgd", factory, validation, schedule_config(), **arguments)


def test_validation_may_be_of_another_type(whole):
    model, optimizer = model_and_optimizer()
    factory = training_factory(TRAINING, ImageFeatures(), 0)
    validation = batched(X[90:].astype(np.float64), Y[90:].astype(np.float32))
    config = schedule_config(max_epochs=1)
    arguments = {"num_examples": 90, "batch_size": 8, "steps_per_call": 1}
    history = train(model, optimizer, factory, validation, config, **arguments)
    _, expected, _ = whole
    for name, value in expected.epochs[0].metrics.items():
        assert history.epochs[0].metrics[name] == pytest.approx(value)


class Limited(keras.layers.Layer):
    """Runs out of memory beyond a batch size and some steps of training.

    TensorFlow makes a ResourceExhaustedError of a MemoryError, and waits ten seconds before it
    raises one by itself, as a test of several devices sees it do.
    """

    def __init__(self, limit, adds_loss=False, steps=0):
        super().__init__()
        self.limit, self.adds_loss, self.steps = limit, adds_loss, steps
        self.done = self.add_weight(initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if self.adds_loss:
            self.add_loss(tf.reduce_mean(tf.square(x)))
        if not training:
            return x
        self.done.assign_add(1.0)
        is_over = (tf.shape(x)[0] > self.limit) & (self.done.value > self.steps)
        with tf.control_dependencies([tf.numpy_function(self.allocate, [is_over], tf.bool)]):
            return tf.identity(x)

    def allocate(self, is_over):
        if is_over:
            raise MemoryError
        return is_over


def run_limited(limit, recorder, *, adds_loss=False, steps=0, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Limited(limit, adds_loss, steps)(inputs)))
    return train(
        model,
        keras.optimizers.SGD(0.05),
        training_factory(TRAINING, ImageFeatures(), 0),
        evaluation_dataset(VALIDATION, 8),
        schedule_config(plan="batch*4", max_batch_size=32, max_epochs=12),
        num_examples=90,
        batch_size=8,
        steps_per_call=1,
        callbacks=[recorder],
        **options,
    )


def notes_of(batch_size, *micro_batches):
    return [
        f"batch {batch_size} does not fit in memory: "
        f"accumulating gradients over micro-batches of {size}"
        for size in micro_batches
    ]


@pytest.fixture(scope="module")
def unlimited():
    return run_limited(1000, Recorder())


@pytest.fixture(scope="module")
def limited(unlimited, tmp_path_factory):
    """A run that is halved once, and the folder with its checkpoints from then on."""
    grown = next(r.epoch for r in unlimited.epochs if r.batch_size == 32)
    folder = tmp_path_factory.mktemp("limited")
    recorder = Recorder(copy_after=grown, directory=folder)
    history = run_limited(16, recorder, directory=folder / "whole")
    return history, recorder, folder / "killed"


def assert_same_course(history, expected):
    for mine, its in zip(history.epochs, expected.epochs, strict=True):
        assert (mine.updates, mine.examples) == (its.updates, its.examples)
        assert mine.metrics["loss"] == pytest.approx(its.metrics["loss"], rel=1e-4)


def test_a_batch_that_does_not_fit_is_halved(unlimited, limited):
    history, recorder, _ = limited
    assert {r.batch_size for r in history.epochs} == {8, 32}
    assert recorder.notes == notes_of(32, 16)
    assert history.traces["accumulate_step"] == 1
    assert_same_course(history, unlimited)


def test_what_does_not_fit_late_in_an_epoch_is_trained_again_from_its_start(unlimited):
    """And a half that does not fit either is halved again."""
    recorder = Recorder()
    history = run_limited(3, recorder, steps=5)
    assert recorder.notes == notes_of(8, 4, 2)
    assert_same_course(history, unlimited)


def test_a_resumed_run_knows_the_micro_batch_that_fitted(limited):
    unbroken, _, killed = limited
    resumed = Recorder()
    history = run_limited(16, resumed, directory=killed)
    assert 0 < len(resumed.started.epochs) < len(unbroken.epochs)
    assert resumed.notes == []
    assert [r.metrics for r in history.epochs] == [r.metrics for r in unbroken.epochs]


def test_one_example_that_does_not_fit_is_refused():
    recorder = Recorder()
    message = "^batch 8 does not fit in memory, and a micro-batch of one example must fit, got"
    with pytest.raises(ValueError, match=message):
        run_limited(0, recorder, micro_batch=2)
    assert recorder.notes == notes_of(8, 1)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"adds_loss": True}, "what layers add to the loss"),
        (
            {
                "loss": keras.losses.SparseCategoricalCrossentropy(
                    from_logits=True, reduction="mean_with_sample_weight"
                ),
                "class_weight": {0: 1.0, 1: 2.0},
            },
            "a loss that is no mean over examples",
        ),
    ],
)
def test_a_batch_that_neither_fits_nor_can_be_cut_is_refused(options, rule):
    with pytest.raises(ValueError, match=f"^batch 32 does not fit in memory, and {rule}") as error:
        run_limited(16, Recorder(), **options)
    assert str(error.value).endswith("set batch_size and max_batch_size to what fits in memory.")
