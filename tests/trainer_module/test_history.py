import dataclasses
import io
import json

import pandas
import pytest
import tensorflow as tf
from rich.console import Console

from trainer_module.history import EpochRecord, History, TensorBoardWriter, Writers, read, write
from trainer_module.training.progress import ProgressWriter


def record(epoch, action="none", best=False):
    return EpochRecord(
        epoch=epoch,
        metrics={"accuracy": 0.2 * epoch, "val_accuracy": 0.1 * epoch},
        learning_rate=0.05,
        batch_size=64,
        update_noise=12.5,
        simple_noise_scale=99.0 if epoch > 1 else None,
        updates=10 * epoch,
        examples=640 * epoch,
        seconds=1.5 * epoch,
        action=action,
        reason="[red]why" if action != "none" else "",
        best=best,
    )


HISTORY = History(
    config={"batch_size": 64},
    monitor="val_accuracy",
    mode="max",
    epochs=(record(1, best=True), record(2, best=True), record(3, "batch_increase")),
    stop_reason="enough",
    traces={"train_step": 1},
)


def test_reads_what_it_wrote(tmp_path):
    write(HISTORY, tmp_path / "h.jsonl")
    assert read(tmp_path / "h.jsonl") == HISTORY
    assert [path.name for path in tmp_path.iterdir()] == ["h.jsonl"]


def test_reads_a_file_of_version_0_1(tmp_path):
    write(HISTORY, tmp_path / "h.jsonl")
    text = (tmp_path / "h.jsonl").read_text()
    for new, old in (
        ("update_noise", "noise_scale"),
        ("simple_noise_scale", "gradient_noise"),
        ("batch_increase", "grow_batch"),
    ):
        assert f'"{new}"' in text
        text = text.replace(f'"{new}"', f'"{old}"')
    (tmp_path / "h.jsonl").write_text(text)
    assert read(tmp_path / "h.jsonl") == HISTORY


def test_a_history_is_plain_values_and_a_table():
    values = json.loads(json.dumps(HISTORY.to_dict()))
    epochs = tuple(EpochRecord(**epoch) for epoch in values.pop("epochs"))
    assert History(**values, epochs=epochs) == HISTORY
    table = pandas.DataFrame(HISTORY.rows())
    assert table["val_accuracy"].tolist() == [r.metrics["val_accuracy"] for r in HISTORY.epochs]
    assert table.set_index("epoch")["action"].to_dict() == {
        1: "none",
        2: "none",
        3: "batch_increase",
    }


def test_best_and_decisions():
    assert HISTORY.best.epoch == 2
    assert [r.epoch for r in HISTORY.decisions] == [3]
    assert History({}, "loss", "min").best is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n{}\n",
        "not json\n",
        '{"format": "plateau-training-history", "version": 9}\n{}\n',
        '{"format": "%s", "version": 1}\n{}\n' % ("x" * 9000),
        "[" * 100_000 + "\n{}\n",
        "[]\n[]\n",
        "null\nnull\n",
        "1" * 5000,
    ],
    ids=[
        "empty",
        "no header",
        "text",
        "version",
        "long",
        "deep",
        "lists",
        "nulls",
        "a long number",
    ],
)
def test_refuses_other_files(tmp_path, text):
    path = tmp_path / "h.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match="training history must be") as error:
        read(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"epoch": 2', '"epoch": "two"'),
        ('"epoch": 2', '"epoch": 2, "more": 1'),
        (', "updates": 20', ""),
        ('"metrics": {"accuracy": 0.4', '"metrics": {"accuracy": "<script>"'),
        ('"reason": ""', '"reason": ["x"]'),
        ('"monitor": "val_accuracy"', '"monitor": {}'),
        ('"traces": {"train_step": 1}', '"traces": 7'),
    ],
)
def test_refuses_values_of_other_types(tmp_path, old, new):
    path = tmp_path / "h.jsonl"
    write(HISTORY, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"training history must be .*Train again"):
        read(path)


def test_a_history_has_a_bound(tmp_path):
    with (tmp_path / "h.jsonl").open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(ValueError, match="more than 268,435,456 bytes"):
        read(tmp_path / "h.jsonl")


def test_tensorboard_gets_a_point_an_epoch(tmp_path):
    writer = Writers([TensorBoardWriter(tmp_path)])
    writer.start(HISTORY)
    for entry in HISTORY.epochs:
        writer.epoch(entry)
    writer.close(HISTORY)
    (file,) = tmp_path.iterdir()
    points = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    assert [int(value) for _, value in points["plateau/batch_size"]] == [64, 64, 64]
    assert [step for step, _ in points["plateau/batch_size"]] == [1, 2, 3]
    assert points["plateau/val_accuracy"][2][1] == pytest.approx(0.3)
    assert [step for step, _ in points["plateau/decision"]] == [3]


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
    writer = ProgressWriter(Console(file=out, width=200), max_epochs=100)
    writer.start(dataclasses.replace(HISTORY, epochs=()))
    for number, entry in enumerate(HISTORY.epochs):
        # The first one traces.
        writer.epoch(dataclasses.replace(entry, seconds=1000 + number * seconds))
    assert out.getvalue().count(" an epoch, ") == 1
    assert estimate in out.getvalue()


def test_progress_is_compiling_until_the_first_steps_are_done():
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True)
    writer = ProgressWriter(console, max_epochs=100)
    writer.start(dataclasses.replace(HISTORY, epochs=()))
    writer._progress.refresh()
    assert "compiling" in out.getvalue()
    out.truncate(0)
    writer.batch(8, 10)
    writer._progress.refresh()
    writer.close(HISTORY)
    assert "compiling" not in out.getvalue()
    assert "8/10" in out.getvalue()


def test_progress_shows_epochs_decisions_and_the_best():
    out = io.StringIO()
    writer = ProgressWriter(Console(file=out, width=200), max_epochs=100)
    writer.start(HISTORY)
    for entry in HISTORY.epochs:
        writer.batch(1, 10)
        writer.epoch(entry)
    writer.close(HISTORY)
    text = out.getvalue()
    assert "resuming after epoch 3" in text
    assert "epoch   2  accuracy 0.4000/0.2000  lr 0.05  batch 64 *" in text
    assert "epoch 3: [red]why" in text
    assert "keeping the weights of epoch 2 (val_accuracy 0.2000)" in text
