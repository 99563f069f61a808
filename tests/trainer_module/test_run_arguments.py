"""What `train` is given in a `run_fn`."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from examples import write_records
from trainer_module import history, train, trainer_arguments
from trainer_module.training.callbacks import HistoryFile

pytestmark = pytest.mark.component

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((X, X[:, :1] > 0)).batch(8)


def fn_args(folder: Path, *, records=(b"a",), **custom) -> FnArgs:
    (folder / "data").mkdir(exist_ok=True)
    write_records(folder / "data/records.gz", records)
    return FnArgs(
        train_files=[str(folder / "data/*")],
        eval_files=[],
        model_run_dir=str(folder / "run"),
        custom_config=custom or None,
    )


def run(arguments, *more):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    callbacks = [*arguments["callbacks"], *more]
    options = {**arguments, "callbacks": callbacks, "verbose": False}
    return train(model, model.optimizer, DATA, DATA, batch_size=8, **options)


class Killed(HistoryFile):
    """Ends the run after an epoch."""

    def on_epoch_end(self, record):
        if record.epoch == 3:
            raise KeyboardInterrupt


def test_schedule_history_and_tensorboard(tmp_path):
    args = fn_args(tmp_path, schedule={"max_epochs": 2, "monitor": "val_loss", "mode": "min"})
    record = run(trainer_arguments(args))
    assert (record.monitor, len(record.epochs)) == ("val_loss", 2)
    assert history.read(tmp_path / "run" / history.FILE_NAME) == record
    assert list((tmp_path / "run/tensorboard").iterdir())


def test_without_custom_config_the_schedule_is_the_default(tmp_path):
    assert trainer_arguments(fn_args(tmp_path))["config"].max_epochs == 100


def test_a_killed_run_is_resumed_and_another_one_starts_anew(tmp_path):
    schedule = {"max_epochs": 4}
    custom = {"schedule": schedule, "checkpoints": str(tmp_path / "checkpoints")}
    unbroken = run(trainer_arguments(fn_args(tmp_path, schedule=schedule)))
    with pytest.raises(KeyboardInterrupt):
        run(trainer_arguments(fn_args(tmp_path, **custom)), Killed(tmp_path / "unused"))
    arguments = trainer_arguments(fn_args(tmp_path, **custom))
    assert list(arguments["directory"].glob("epoch-*.npz"))
    resumed = run(arguments)
    assert [r.metrics for r in resumed.epochs] == [r.metrics for r in unbroken.epochs]
    for other in (
        fn_args(tmp_path, **{**custom, "schedule": {"max_epochs": 5}}),
        fn_args(tmp_path, **custom, code="other"),
        fn_args(tmp_path, records=(b"b",), **custom),
    ):
        assert not list(trainer_arguments(other)["directory"].iterdir())


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"pateince": 3}, r"fields among .*patience.*got \['pateince'\]"),
        ({"patience": 0}, "`patience` must be at least 1"),
    ],
)
def test_a_bad_schedule_is_refused(tmp_path, schedule, message):
    with pytest.raises(ValueError, match=message):
        trainer_arguments(fn_args(tmp_path, schedule=schedule))


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_number_of_steps_is_refused(tmp_path, name):
    args = fn_args(tmp_path)
    setattr(args, f"{name}_steps", 100)
    with pytest.raises(ValueError, match=rf"{name}_args must have no num_steps.*got 100"):
        trainer_arguments(args)
