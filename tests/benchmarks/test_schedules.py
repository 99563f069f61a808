import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks import reproduce, schedules
from benchmarks.cifar import Cifar
from benchmarks.settings import Settings
from pipeline.compare.statistics import Comparison
from tests import trials
from trainer_module.models import registry
from trainer_module.training.precision import BFLOAT16, FLOAT32

SETTINGS = {"images": 100}


def trial(name, seed, steps=10, accuracy=0.8, actions=("none", "lr_decay", "stop")):
    """A run of `steps` updates and steps / 10 seconds an epoch."""
    epochs = [
        trials.epoch(
            number,
            metrics={"val_accuracy": 0.5 + number / 10},
            updates=number * steps,
            seconds=number * steps / 10,
            action=action,
        )
        for number, action in enumerate(actions, 1)
    ]
    return trials.trial(name, seed, epochs, accuracy)


@pytest.mark.parametrize("start", ["", '{"trial": {"str'])
def test_a_finished_run_is_read_back_also_after_a_line_that_was_cut_short(start, tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    path.parent.mkdir()
    path.write_text(start)
    trials = [trial("a", 0), trial("b", 0)]
    for each in trials:
        schedules.append(path, SETTINGS, each)
    read = schedules.read(path, SETTINGS)
    assert [json.dumps(asdict(each)) for each in read] == [json.dumps(asdict(t)) for t in trials]
    assert schedules.read(path, {"images": 200}) == []
    assert schedules.read(tmp_path / "none", SETTINGS) == []


def test_whole_runs_are_compared_seed_by_seed():
    own = [trial("own", 0, steps=4), trial("own", 1, steps=2)]
    others = [trial("other", seed, steps=10) for seed in (1, 0)]
    comparison = Comparison((*own, *others))
    rows = {row.what: row for row in schedules.rows(comparison, "own", "other", {"updates": 0.45})}
    assert rows["updates of a whole run, own"].values == pytest.approx((0.4, 0.2))
    assert rows["updates of a whole run, own"].reached is True
    assert rows["seconds of a whole run, own"].reached is None


@pytest.mark.parametrize(
    ("own", "other", "reached"),
    [
        ((0.80, 0.82), (0.81, 0.83), True),
        ((0.70, 0.72), (0.81, 0.83), False),
        ((0.90, 0.92), (0.81, 0.83), True),
        ((0.80, 0.80), (0.80, 0.80), True),
        ((0.79, 0.79), (0.80, 0.80), False),
        ((0.79,), (0.80,), None),
    ],
)
def test_accuracy_may_lag_by_no_more_than_the_spread(own, other, reached):
    trials = [
        trial(name, seed, accuracy=value)
        for name, values in (("own", own), ("other", other))
        for seed, value in enumerate(values)
    ]
    *_, row = schedules.rows(Comparison(tuple(trials)), "own", "other", {"accuracy": 1.0})
    assert row.reached is reached, "one seed is no evidence"


def test_what_the_callbacks_of_keras_did_is_seen_from_the_rates():
    records = trial("a", 0, actions=("none",) * 3).history
    epochs = [
        replace(record, learning_rate=rate)
        for record, rate in zip(records.epochs, (0.1, 0.1, 0.02), strict=True)
    ]
    history = schedules.with_actions(replace(records, epochs=tuple(epochs)))
    assert [record.action for record in history.epochs] == ["none", "lr_decay", "stop"]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_concatenated_keeps_the_order(count):
    parts = [tf.data.Dataset.from_tensor_slices(np.array([i, i])) for i in range(count)]
    joined = [int(value) for value in schedules.concatenated(parts)]
    assert joined == [i for i in range(count) for _ in range(2)]


@pytest.fixture
def images(monkeypatch):
    """Random images in place of the archive, as many as a quick run takes."""
    rng = np.random.default_rng(0)

    def split(count):
        x = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return x, rng.integers(0, 10, count).astype(np.int64)

    data = Cifar(*split(400), *split(256))
    monkeypatch.setattr("benchmarks.cifar.load", lambda path: data)


@pytest.mark.component
def test_both_precisions_run_the_same_task_once(images, tmp_path, monkeypatch):
    policies = []

    def build(*arguments):
        policies.append(keras.config.dtype_policy().name)
        return registry.build(*arguments)

    monkeypatch.setattr("benchmarks.schedules.registry", SimpleNamespace(build=build))
    settings = Settings(quick=True, output=tmp_path)
    result = schedules.precision(settings)
    assert policies == [FLOAT32, BFLOAT16]
    rows = {row.what: row for row in result.rows}
    assert rows[f"updates of a whole run, {BFLOAT16}"].values == (1.0,)
    assert (tmp_path / result.figure).exists()

    assert schedules.precision(settings).rows == result.rows
    assert len(policies) == 2, "finished runs are read from their file"


def test_a_page_has_verdict_method_figure_and_tables_in_that_order(tmp_path, hardware):
    pytest.importorskip("matplotlib", reason="the plot needs the development requirements")
    trials = [
        trial(name, seed, steps, 0.7 + seed / 100)
        for name, steps in (("lr_decay", 100), ("batch_increase", 30))
        for seed in (0, 1)
    ]
    page = tmp_path / "data.md"
    reproduce.write(page, "Data", "The method.", Comparison(tuple(trials)), hardware)
    text = page.read_text()
    parts = [
        "# Data: the strategies side by side",
        "batch_increase took 0.30 of lr_decay's updates",
        "The method.",
        "avx2",
        "(data.png)",
        "## Totals",
        "make reproduce",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    with Image.open(tmp_path / "data.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(2**24) or ()}
    # The first two colours of Matplotlib's cycle: the mean and marks of each strategy.
    assert {(31, 119, 180), (255, 127, 14)} <= colors
