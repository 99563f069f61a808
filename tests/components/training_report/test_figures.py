import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from components.evaluation.results import ConfusionMatrix, Evaluation
from components.page import plots
from components.page.plots import Plot
from components.training_report import figures
from trainer_module.history import History

Trained = Callable[..., History]
Evaluated = Callable[..., Evaluation]


def traces(plot: Plot) -> dict[str, Any]:
    return {trace["name"]: trace for trace in plot.to_json()["data"]}


def test_axes_begin_at_the_start_of_the_run(trained: Trained) -> None:
    axes = figures.axes(trained(2))
    assert axes == {"epochs": [0, 1, 2], "updates": [0, 100, 200], "seconds": [0, 1.7, 3.4]}


def test_metrics_are_paired_and_the_monitored_one_comes_first(trained: Trained) -> None:
    assert figures.pairs(trained(1)) == [
        ("accuracy", "accuracy", "val_accuracy"),
        ("loss", "loss", "val_loss"),
    ]
    assert figures.pairs(trained(1, monitor="val_loss"))[0][0] == "loss"


def test_learning_rate_and_batch_hold_during_an_epoch(trained: Trained) -> None:
    history = trained(4)
    found = traces(figures.training(history))
    for name, before, after in (("learning rate", 0.05, 0.005), ("batch size", 64, 256)):
        trace = found[name]
        # The first value holds from the start to the end of the first epoch.
        assert trace["y"] == [before, before, before, after, after]
        assert trace["x"] == [0, 1, 2, 3, 4]
        assert trace["line"]["shape"] == "vh"


def test_each_decision_is_marked_at_the_end_of_its_epoch(trained: Trained) -> None:
    plot = figures.training(trained(6))
    layout = plot.to_json()["layout"]
    assert [shape["x0"] for shape in layout["shapes"]] == [3, 6]
    numbers = [each for each in layout["annotations"] if each["xref"] != "paper"]
    assert [each["x"] for each in numbers] == [3, 6]
    assert traces(plot)["best"]["x"] == [5]


def test_the_first_plot_is_of_the_monitored_metric_rate_and_batch(trained: Trained) -> None:
    history = trained(3)
    plot = figures.training(history).to_json()
    titles = [each["text"] for each in plot["layout"]["annotations"] if each["xref"] != "x3"]
    assert titles == ["accuracy", "learning rate", "batch size (examples)"]
    assert {"training loss", "validation loss"} == traces(figures.other_metrics(history)).keys()
    alone = dataclasses.replace(history.epochs[0], metrics={"val_accuracy": 0.5})
    assert figures.other_metrics(dataclasses.replace(history, epochs=(alone,))) is None


def test_panes_share_one_axis_and_do_not_overlap(trained: Trained) -> None:
    plot = figures.training(trained(3)).to_json()
    domains = [v["domain"] for k, v in plot["layout"].items() if k.startswith("yaxis")]
    assert len(domains) == 3
    assert all(upper[0] > lower[1] for upper, lower in pairwise(domains))
    assert {trace["xaxis"] for trace in plot["data"]} == {"x3"}


def test_values_that_cannot_be_drawn_are_gaps(trained: Trained) -> None:
    history = trained(3)
    broken = dataclasses.replace(
        history.epochs[1], metrics={"accuracy": math.nan, "loss": math.inf}
    )
    epochs = (history.epochs[0], broken, history.epochs[2])
    broken_history = dataclasses.replace(history, epochs=epochs)
    found = traces(figures.training(broken_history))
    found |= traces(figures.other_metrics(broken_history))
    for name in ("training accuracy", "training loss", "validation accuracy"):
        assert found[name]["y"][1] is None
        assert found[name]["y"][0] is not None


def test_noise_that_was_not_measured_is_not_drawn(trained: Trained) -> None:
    history = trained(3)
    assert "B_simple" in traces(figures.noise(history))
    epochs = tuple(dataclasses.replace(e, simple_noise_scale=None) for e in history.epochs)
    assert "B_simple" not in traces(figures.noise(dataclasses.replace(history, epochs=epochs)))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (3, 40, [1, 2, 5, 10, 20, 50, 100, 200, 500]),
        (0.001, 1, [0.001, 0.01, 0.1, 1]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, ticks: list[float]) -> None:
    assert plots.log_ticks(low, high) == pytest.approx(ticks)


def test_the_worst_classes_with_bounds_and_baseline(evaluated: Evaluated) -> None:
    names = tuple(f"c{number}" for number in range(50))
    figure = figures.by_class(evaluated(names))
    assert figure is not None
    baseline, candidate, bound = figure.to_json()["data"]
    assert len(candidate["x"]) == len(baseline["x"]) == figures.WORST_SHOWN
    assert candidate["x"] == sorted(candidate["x"])
    assert set(bound["x"]) == {0.72}
    assert figures.by_class(evaluated(classes=(), matrix=None)) is None


def test_shades_are_shares_of_the_row_and_mistakes_apart() -> None:
    matrix = ConfusionMatrix(("a", "b"), {(0, 0): 3, (0, 1): 1, (1, 1): 2})
    right, wrong = figures.confusion(matrix, (0, 1)).to_json()["data"]
    assert right["z"] == [[0.75, None], [None, 1.0]]
    assert wrong["z"] == [[None, 0.25], [None, None]]
    assert wrong["text"] == [["", "1"], ["", ""]]
    assert wrong["customdata"][0][1] == "1 of 4 a predicted as b"


def test_markup_in_names_is_shown_as_text() -> None:
    matrix = ConfusionMatrix(("<b>x</b>", "&amp;"), {(0, 1): 1})
    figure = figures.confusion(matrix, (0, 1)).to_json()
    assert figure["layout"]["xaxis"]["ticktext"] == ["&lt;b&gt;x&lt;/b&gt;", "&amp;amp;"]
    assert "&lt;b&gt;" in figure["data"][1]["customdata"][0][1]


def test_too_many_classes_are_not_drawn() -> None:
    few = {"train": {"a": 1, "b": 2}, "test": {"a": 3, "b": 0}}
    figure = figures.counts(few)
    assert figure is not None
    assert [trace["y"] for trace in figure.to_json()["data"]] == [[1, 2], [3, 0]]
    assert figures.counts({"train": {str(i): 1 for i in range(figures.CLASSES_SHOWN + 1)}}) is None
