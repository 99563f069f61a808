import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import PlateauCallback, PlateauConfig, ScheduleConfig, batches, train
from trainer_module.schedule import forecast
from trainer_module.schedule.scaling import TrainingSpec

pytestmark = pytest.mark.training

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 5)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
TRAINING = tf.data.Dataset.from_tensor_slices((X[:90], Y[:90]))
VALIDATION = tf.data.Dataset.from_tensor_slices((X[90:], Y[90:])).batch(30)


def network(optimizer):
    """A model without anything that fit and the loop compute differently."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(16, activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(hidden)), optimizer


class Counted(keras.losses.SparseCategoricalCrossentropy):
    """Counts how often it is traced."""

    traces = 0

    def call(self, y_true, y_pred):
        self.traces += 1
        return super().call(y_true, y_pred)


def fit(config, *, optimizer=None, directory=None, callbacks=(), batch_size=8, **options):
    model, optimizer = network(optimizer or keras.optimizers.SGD(0.1, momentum=0.9))
    loss = Counted(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    callback = PlateauCallback(
        config,
        num_examples=90,
        batch_size=batch_size,
        directory=directory,
        clock=itertools.count().__next__,
    )
    model.fit(
        batches(TRAINING, callback),
        validation_data=VALIDATION,
        epochs=config.max_epochs,
        callbacks=[callback, *callbacks],
        verbose=0,
    )
    return model, callback, loss


def config(**options):
    plateau = PlateauConfig(
        monitor="val_loss", mode="min", patience=2, min_delta=options.pop("min_delta", 0.01)
    )
    return ScheduleConfig(plateau=plateau, **({"factor": 2.0, "max_epochs": 25} | options))


CONFIGS = {
    "lr_decay": config(strategy="lr_decay"),
    "batch_increase": config(strategy="batch_increase", max_batch_size=24),
    "hybrid": config(strategy="hybrid", max_batch_size=20, warmup_epochs=3),
    "plan": config(plan="batch*2 lr/2, lr/5, batch*1.5", max_batch_size=30),
    "restore": config(restore="weights_and_slots", max_batch_size=20),
    "reset": config(restore="weights_reset_slots", strategy="lr_decay"),
}


@pytest.mark.component
@pytest.mark.parametrize("name", CONFIGS)
def test_fit_takes_the_decisions_of_the_loop(name):
    model, callback, _ = fit(CONFIGS[name])
    other, optimizer = network(keras.optimizers.SGD(0.1, momentum=0.9))
    expected = train(
        other,
        optimizer,
        lambda batch_size, epoch: TRAINING.batch(batch_size, drop_remainder=True),
        VALIDATION,
        CONFIGS[name],
        num_examples=90,
        batch_size=8,
        clock=itertools.count().__next__,
    )
    assert len(expected.decisions) >= 2
    history = callback.history
    for mine, its in zip(history.epochs, expected.epochs, strict=True):
        assert mine.metrics == pytest.approx(its.metrics, rel=1e-3, abs=1e-5)
        for field in (
            "epoch",
            "learning_rate",
            "batch_size",
            "update_noise",
            "updates",
            "examples",
        ):
            assert getattr(mine, field) == getattr(its, field), field
        assert (mine.action, mine.best) == (its.action, its.best)
    assert [r.action for r in history.decisions] == [r.action for r in expected.decisions]
    for mine, its in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-4)


def test_an_epoch_ends_without_a_step_that_has_no_data():
    """Such a step would apply weight decay once more."""
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    model, callback, _ = fit(config(max_epochs=4, warmup_epochs=3), optimizer=optimizer)
    assert int(optimizer.iterations) == callback.history.epochs[-1].updates == 4 * (90 // 8)
    other, optimizer = network(keras.optimizers.AdamW(0.01, weight_decay=0.1))
    other.compile(optimizer, Counted(from_logits=True))
    for record in callback.history.epochs:
        optimizer.learning_rate.assign(record.learning_rate)
        other.fit(TRAINING.batch(8, drop_remainder=True), verbose=0)
        if record.epoch == callback.history.best.epoch:
            best = other.get_weights()
    for mine, its in zip(model.get_weights(), best, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, name="mine"),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    ],
)
def test_the_scaling_rule_goes_by_the_class_of_the_optimizer(make_optimizer):
    wanted = config(strategy="hybrid", max_batch_size=20, max_epochs=1)
    _, callback, _ = fit(wanted, optimizer=make_optimizer())
    assert callback.forecast == forecast.stages(wanted, TrainingSpec(90, "Adam", 0.0), 0.01, 8)
    assert callback.forecast != forecast.stages(wanted, TrainingSpec(90, "SGD", 0.0), 0.01, 8)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_another_batch_size_is_forecast_and_needs_no_new_trace(steps_per_execution):
    options = {"steps_per_execution": steps_per_execution, "jit_compile": False}
    _, callback, loss = fit(CONFIGS["batch_increase"], **options)
    assert [stage.batch_size for stage in callback.forecast] == [8, 16, 24]
    assert {r.batch_size for r in callback.history.epochs} == {8, 16, 24}
    assert callback.history.stop_reason == callback.history.epochs[-1].reason
    _, _, usual = fit(config(strategy="lr_decay", max_epochs=2), **options)
    assert loss.traces == usual.traces


class Killed(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.after:
            raise KeyboardInterrupt


@pytest.mark.component
@pytest.mark.parametrize("after", [1, 9])
@pytest.mark.parametrize("before_the_backup", [True, False])
def test_backup_and_restore_resumes_it(tmp_path, after, before_the_backup):
    wanted = CONFIGS["restore"]
    model, callback, _ = fit(wanted)
    assert len(callback.history.epochs) > after + 1

    def resumable(*others):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        order = [*others, backup] if before_the_backup else [backup, *others]
        return fit(wanted, directory=tmp_path / "schedule", callbacks=order)

    with pytest.raises(KeyboardInterrupt):
        resumable(Killed(after))
    resumed, continued, _ = resumable()

    def comparable(history):
        return [{**vars(record), "seconds": None} for record in history.epochs]

    assert comparable(continued.history) == comparable(callback.history)
    assert continued.forecast == callback.forecast
    for mine, its in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_new_run_in_the_same_folder_takes_nothing_from_the_old_one(tmp_path):
    fit(config(restore="weights_and_slots", max_epochs=4), directory=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(CONFIGS["restore"], directory=tmp_path, callbacks=[Killed(2)])
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in kept if name.startswith("epoch")] == [
        "epoch-000001.npz",
        "epoch-000002.npz",
    ]
    assert all(int(name[-10:-4]) <= 2 for name in kept)


def test_without_its_own_checkpoints_a_later_epoch_is_refused(tmp_path):
    model, optimizer = network(keras.optimizers.SGD(0.1))
    model.compile(optimizer, Counted(from_logits=True))
    callback = PlateauCallback(config(), num_examples=90, batch_size=8)
    with pytest.raises(ValueError, match=r"has reached \(0\), got 3"):
        model.fit(
            batches(TRAINING, callback), initial_epoch=3, epochs=9, callbacks=[callback], verbose=0
        )


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="'auto'"):
        PlateauCallback(config(strategy="auto"), num_examples=90, batch_size=8)
    callback = PlateauCallback(config(), num_examples=90, batch_size=8)
    for wrong in (TRAINING.batch(8), TRAINING.repeat(), TRAINING.take(50)):
        with pytest.raises(ValueError, match=r"num_examples \(90\)"):
            batches(wrong, callback)
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    with pytest.raises(ValueError, match="learning rate must be a number"):
        fit(config(), optimizer=keras.optimizers.SGD(decay))
    with pytest.raises(ValueError, match="`batch_size` must be at most"):
        fit(config(), batch_size=91)
    with pytest.raises(ValueError, match="Adam with use_ema=True"):
        fit(config(), optimizer=keras.optimizers.Adam(use_ema=True))


def test_a_monitor_that_fit_does_not_measure_is_refused():
    model, optimizer = network(keras.optimizers.SGD(0.1))
    model.compile(optimizer, Counted(from_logits=True))
    callback = PlateauCallback(config(), num_examples=90, batch_size=8)
    with pytest.raises(ValueError, match=r"metric of each epoch of fit \(loss\), got 'val_loss'"):
        model.fit(batches(TRAINING, callback), epochs=2, callbacks=[callback], verbose=0)
