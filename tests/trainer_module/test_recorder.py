import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from trainer_module import HistoryRecorder, history

pytestmark = pytest.mark.training


def fit(recorder: HistoryRecorder, optimizer: keras.optimizers.Optimizer, **given: Any) -> Any:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=True)
    options = {"validation_data": (x, x[:, :1]), "epochs": 4, "verbose": 0, **given}
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    return model.fit(x, x[:, :1], batch_size=8, callbacks=[halve, recorder], **options)


def test_a_run_of_fit_is_recorded_as_keras_records_it(tmp_path: Path) -> None:
    recorder = HistoryRecorder(tmp_path / "run", batch_size=8)
    fitted = fit(recorder, keras.optimizers.SGD(0.1, momentum=0.5))
    read = history.read(tmp_path / "run" / history.FILE_NAME)
    assert read == recorder.history
    for name in ("loss", "mae", "val_loss"):
        assert [record.metrics[name] for record in read.epochs] == fitted.history[name]
    assert [r.learning_rate for r in read.epochs] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert [r.updates for r in read.epochs] == [5, 10, 15, 20]
    assert read.epochs[0].update_noise == pytest.approx(0.1 * (40 / 8 - 1) / 0.5)
    best = read.best
    assert best is not None
    assert best.metrics["val_loss"] == min(fitted.history["val_loss"])
    assert read.stop_reason == "fit ended after 4 epochs"


def test_the_update_noise_follows_the_rule_of_the_optimizer(tmp_path: Path) -> None:
    recorder = HistoryRecorder(tmp_path, batch_size=8)
    fit(recorder, keras.optimizers.Adam(0.1), epochs=2)
    noise = [record.update_noise for record in recorder.history.epochs]
    assert noise == pytest.approx([0.1**2 * (40 / 8 - 1), 0.05**2 * (40 / 8 - 1)])


OF_KERAS_2 = """
import sys

import tensorflow as tf

from trainer_module import HistoryRecorder

x = tf.random.normal([40, 3])
model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(1)])
# AutoGraph would read the source of Keras 2, for ten seconds.
model.compile(tf.keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
recorder = HistoryRecorder(sys.argv[1], batch_size=8)
model.fit(
    x, x[:, :1], batch_size=8, validation_data=(x, x[:, :1]), callbacks=[recorder], verbose=0
)
"""


def test_a_run_of_keras_2_is_recorded(tmp_path: Path) -> None:
    pytest.importorskip("tf_keras")
    subprocess.run(
        [sys.executable, "-c", OF_KERAS_2, str(tmp_path)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    (epoch,) = history.read(tmp_path / history.FILE_NAME).epochs
    assert epoch.update_noise == pytest.approx(0.1**2 * (40 / 8 - 1))


def test_a_run_without_the_monitored_metric_says_so(tmp_path: Path) -> None:
    recorder = HistoryRecorder(tmp_path, batch_size=8)
    with pytest.raises(ValueError, match=r"must be a metric of each epoch of fit \(loss, mae"):
        fit(recorder, keras.optimizers.SGD(), validation_data=None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be above 0, got 0"),
        ({"batch_size": 8, "mode": "auto"}, "`mode` must be min or max, got 'auto'"),
        ({"batch_size": 8, "directory": "gs://b/run"}, "must be a local folder, got 'gs://b/run'"),
    ],
)
def test_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HistoryRecorder(**{"directory": "run", **given})
