import dataclasses
import io

import pytest
import tensorflow as tf
from rich.console import Console

from examples import HISTORY
from trainer_module.training.callbacks import ConsoleProgress, TensorBoard


def test_tensorboard_gets_a_point_an_epoch(tmp_path):
    callback = TensorBoard(tmp_path)
    callback.on_train_begin(HISTORY)
    for entry in HISTORY.epochs:
        callback.on_epoch_end(entry)
    callback.on_train_end(HISTORY)
    (file,) = tmp_path.iterdir()
    points = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    assert [int(value) for _, value in points["plateau/batch_size"]] == [64, 64, 64]
    assert [step for step, _ in points["plateau/batch_size"]] == [1, 2, 3]
    assert points["plateau/val_accuracy"][2][1] == pytest.approx(0.3)
    assert [step for step, _ in points["plateau/decision"]] == [3]


def test_progress_shows_epochs_decisions_and_the_best():
    out = io.StringIO()
    callback = ConsoleProgress(Console(file=out, width=200), max_epochs=100)
    callback.on_train_begin(HISTORY)
    for entry in HISTORY.epochs:
        callback.on_train_batch_end(1, 10)
        callback.on_epoch_end(entry)
    callback.on_train_end(HISTORY)
    text = out.getvalue()
    assert "resuming after epoch 3" in text
    assert "epoch   2  accuracy 0.4000/0.2000  lr 0.05  batch 64 *" in text
    assert "epoch 3: [red]why" in text
    assert "keeping the weights of epoch 2 (val_accuracy 0.2000)" in text


@pytest.mark.parametrize(
    ("seconds", "estimate"),
    [
        (0.42, "about 0.42 s an epoch, 41 s to epoch 100"),
        (60.0, "about 60 s an epoch, 1.6 h to epoch 100"),
        (7200.0, "about 2 h an epoch, 196 h to epoch 100"),
    ],
)
def test_progress_estimates_the_time_of_an_epoch_without_tracing(seconds, estimate):
    out = io.StringIO()
    callback = ConsoleProgress(Console(file=out, width=200), max_epochs=100)
    callback.on_train_begin(dataclasses.replace(HISTORY, epochs=()))
    for number, entry in enumerate(HISTORY.epochs):
        # The first one traces.
        callback.on_epoch_end(dataclasses.replace(entry, seconds=1000 + number * seconds))
    assert out.getvalue().count(" an epoch, ") == 1
    assert estimate in out.getvalue()


def test_progress_estimates_a_long_epoch_within_the_first() -> None:
    out = io.StringIO()
    seconds = iter([100.0, 103.0, 143.0, 146.0, 149.0])
    callback = ConsoleProgress(
        Console(file=out, width=200), max_epochs=60, clock=lambda: next(seconds)
    )
    callback.on_train_begin(dataclasses.replace(HISTORY, epochs=()))
    # The first call and one that measures the noise trace a graph; 8 steps take 3 seconds.
    for step in (8, 16, 24, 32, 40):
        callback.on_train_batch_end(step, 800)
    assert out.getvalue().count("an epoch") == 1
    assert "about 5 min of training an epoch, 5 h to epoch 60" in out.getvalue()


def test_progress_names_the_time_budget_where_it_ends_the_run() -> None:
    for budget, end in ((90.0, "until the time budget of 90 s is used up"), (1e4, "to epoch 100")):
        out = io.StringIO()
        callback = ConsoleProgress(Console(file=out, width=200), 100, time_budget=budget)
        callback.on_train_begin(dataclasses.replace(HISTORY, epochs=()))
        for number, entry in enumerate(HISTORY.epochs, start=1):
            callback.on_epoch_end(dataclasses.replace(entry, seconds=10.0 * number))
        assert f"about 10 s an epoch, {'' if budget == 90.0 else '16 min '}{end}" in out.getvalue()


def test_progress_is_compiling_until_the_first_steps_are_done():
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True)
    callback = ConsoleProgress(console, max_epochs=100)
    callback.on_train_begin(dataclasses.replace(HISTORY, epochs=()))
    callback._progress.refresh()
    assert "compiling" in out.getvalue()
    out.truncate(0)
    callback.on_train_batch_end(8, 10)
    callback._progress.refresh()
    callback.on_train_end(HISTORY)
    assert "compiling" not in out.getvalue()
    assert "8/10" in out.getvalue()


def test_progress_redraws_its_bar_after_an_epoch():
    out = io.StringIO()
    callback = ConsoleProgress(Console(file=out, width=200, force_terminal=True), max_epochs=100)
    callback.on_train_begin(dataclasses.replace(HISTORY, epochs=()))
    callback.on_epoch_end(HISTORY.epochs[0])
    callback._progress.refresh()
    callback.on_train_end(HISTORY)
    assert "epoch 2" in out.getvalue()
