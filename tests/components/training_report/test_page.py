import dataclasses
import json
import re
from collections.abc import Callable

import pytest

from components.drift_gate.drift import distance
from components.evaluation.results import AtThreshold, Calibration, Evaluation, SliceMetrics
from components.gate import Check
from components.page import render
from components.servable.verdict import Result
from components.training_report import page
from components.training_report.page import Report
from components.training_report.residuals import Residual, Residuals
from schemas.columns import MISSING_INTEGER, Input
from tests.pages import Elements, page_data
from trainer_module.history import History

HOSTILE = "</script><img src=x onerror=alert(1)>"
Make = Callable[..., Report]


def test_every_section_is_there_and_nothing_is_loaded(report: Make) -> None:
    found = Elements(page.page(report()))
    assert found.tags.count("section") == 10
    assert "script" not in found.tags
    assert all(address.startswith(("#", "data:")) for address in found.addresses)


def test_hostile_names_are_text(report: Make) -> None:
    found = Elements(page.page(report()))
    # Five pictures of ours, and none of theirs.
    assert found.tags.count("img") == 5
    assert "<script>alert(1)</script>" in found.text
    assert f"test/{HOSTILE}/0.png" in found.text
    assert f"{HOSTILE} is unknown" in found.text


def test_names_that_change_the_direction_are_shown_as_they_are_written(report: Make) -> None:
    columns = {"x": Input("\u202egpj", "string", "")}
    text = page.page(report(columns=columns, title="\u2066title"))
    assert r"\u202egpj" in text
    assert not {"\u202e", "\u2066"} & set(text)
    assert render.script_json(["\u202e", {"a": "\n"}]) == r'["\\u202e",{"a":"\n"}]'


def test_data_for_the_plots_cannot_end_its_script(report: Make) -> None:
    names = ("<!--", HOSTILE, "\u2028")
    text = page.page(report(names))
    data = page_data(text)
    counts = data["counts"]
    assert isinstance(counts, dict)
    ticks = counts["layout"]["xaxis"]["ticktext"]
    assert ticks[0] == "&lt;!--"
    assert text.count("</script>") == 3


def test_values_that_are_no_number_leave_valid_json(
    report: Make, trained: Callable[..., History]
) -> None:
    history = trained(2)
    broken = dataclasses.replace(history.epochs[0], metrics={"loss": float("nan")})
    text = page.page(report(history=dataclasses.replace(history, epochs=(broken,))))
    assert "NaN" not in json.dumps(page_data(text))


@pytest.mark.parametrize(
    ("blessed", "servable", "headline"),
    [
        (True, True, "Blessed"),
        (True, None, "Blessed"),
        (True, False, "Blessed, but not servable"),
        (False, True, "Not blessed"),
        (None, None, "Not judged"),
    ],
)
def test_verdict(report: Make, blessed: bool | None, servable: bool | None, headline: str) -> None:
    text = page.page(report(blessed=blessed, servable=servable))
    assert f'<strong class="headline">{headline}</strong>' in text


def test_failed_gates_are_told_with_value_and_bound(report: Make) -> None:
    found = Elements(page.page(report()))
    assert "1 gate failed." in found.text
    assert "accuracy - baseline's is -0.0300, must be at least -0.0200" in found.text


def test_failed_checks_of_serving_are_told_in_the_verdict(
    report: Make, served: Callable[..., Result]
) -> None:
    failed = f"Serving, finite: {HOSTILE}: 3 of 30 (rule: no output may hold NaN)"
    both = Elements(page.page(report(blessed=False))).text
    assert "1 gate failed. It is not servable either: 1 check of serving failed." in both
    assert failed in both
    one = Elements(page.page(report(blessed=True))).text
    assert "Blessed, but not servable Every gate passed; 1 check of serving failed." in one
    assert failed in one
    passed = served(checks=served().checks[1:])
    good = Elements(page.page(report(blessed=True, servable=True, serving=passed))).text
    assert "Serving, " not in good


def test_many_failed_checks_are_cut_short_in_the_verdict(
    report: Make, served: Callable[..., Result]
) -> None:
    checks = tuple(dataclasses.replace(served().checks[0], rule=f"check {n}") for n in range(11))
    text = Elements(page.page(report(serving=served(checks=checks)))).text
    assert "Serving, check 7:" in text
    assert "Serving, check 8:" not in text
    assert "and 3 more failed checks" in text


def test_columns_are_told_with_their_inputs_and_missing_values(report: Make) -> None:
    columns = {
        "fat": Input("% fat", "float32", "NaN"),
        "img": Input(HOSTILE, "string", ""),
        "id": Input("_id", "int64", None),
        "n": Input("n", "int64", MISSING_INTEGER),
    }
    text = Elements(page.page(report(columns=columns))).text
    for row in (
        "fat % fat float32 NaN",
        f"img {HOSTILE} string an empty string",
        "id _id int64 none allowed",
        "n n int64 -9223372036854775808",
    ):
        assert row in text
    assert "Columns of" not in Elements(page.page(report())).text


def test_as_many_decisions_are_counted_as_are_listed(report: Make) -> None:
    made = report()
    assert made.history.decisions[-1].action == "stop"
    (tile,) = (tile for tile in page._tiles(made, made.history) if tile.name == "decisions")
    assert tile.value == str(len(made.history.decisions))


def test_serving_is_told_with_checks_latency_and_size(report: Make) -> None:
    text = Elements(page.page(report())).text
    rows = (
        f"finite {HOSTILE}: 3 of 30 (in one batch) no output may hold NaN ✕ failed",
        "loads in 0.50 s tf.saved_model.load must load it ✓ passed",
        "size 1.25 MiB (no limit is set) no limit not judged",
    )
    assert all(row in text for row in rows)
    assert "requests made of 64 examples of the split test" in text
    assert "It takes 1.25 MiB on disk." in text
    assert "serving_default 200 1.23 ms 5.68 ms" in text
    assert f"serving_default examples: string [None] {HOSTILE}: x yes" in text
    assert "no: left out by hand" in text


def test_a_model_that_never_answered_has_no_latency(
    report: Make, served: Callable[..., Result]
) -> None:
    dead = served(
        signatures=[], latency=[], examples=0, tensorflow=None, device=None, arithmetic=None
    )
    text = Elements(page.page(report(serving=dead))).text
    assert "was tried in a process of its own. It takes" in text
    assert "It was not measured: no signature answered." in text


@pytest.mark.parametrize(
    ("servable", "words"),
    [(True, "The model can be served."), (False, "The test of serving it failed.")],
)
def test_a_verdict_on_serving_alone_is_told(report: Make, servable: bool, words: str) -> None:
    text = Elements(page.page(report(blessed=True, servable=servable, serving=None))).text
    assert words in text
    assert "the InfraBlessing holds no servable.json" in text
    assert ("Every gate passed; the serving test failed." in text) is not servable


def test_distances_are_told_with_value_bound_and_margin(report: Make) -> None:
    text = Elements(page.page(report())).text
    assert f"{HOSTILE} drift 0.4000 ≤ 0.3000 -0.1000 ✕ failed" in text
    assert "fare drift 0.2500 ≤ 0.3000 +0.0500 ✓ passed" in text
    assert "fare skew 0.0123 none n/a only measured" in text
    assert "L-infinity distance of categorical and the Kolmogorov-Smirnov" in text
    assert "Drift was not measured" not in text


def test_without_a_baseline_there_is_no_drift(report: Make) -> None:
    text = Elements(page.page(report(drift=(distance("skew", "fare", 0.1, 0.2),)))).text
    assert "Drift was not measured: DriftGate was given no statistics" in text
    assert "fare skew 0.1000 ≤ 0.2000 +0.1000 ✓ passed" in text
    assert "no feature has a distribution" in Elements(page.page(report(drift=()))).text


@pytest.mark.parametrize(("number", "folded"), [(20, ""), (25, "5 more, all smaller")])
def test_many_distances_are_folded(report: Make, number: int, folded: str) -> None:
    distances = [distance("drift", f"f{n:02d}", 0.2 - n / 1000, 0.3) for n in range(number)]
    text = page.page(report(drift=distances))
    assert ("more, all smaller" in text) is bool(folded)
    assert folded in text
    assert all(each.subject in text for each in distances)
    assert f"<details><summary>{folded}" in text


def test_a_failed_distance_is_not_folded_away(report: Make) -> None:
    distances = [distance("drift", f"f{n:02d}", 0.2, 0.3) for n in range(20)]
    text = page.page(report(drift=[*distances, distance("skew", "last", 0.1, 0.05)]))
    assert "<details open><summary>1 more, all smaller" in text


def test_examples_are_counted_in_whole_numbers(
    report: Make, evaluated: Callable[..., Evaluation]
) -> None:
    gates = (
        Check("example_count, class dog", 12, 3, True, metric="example_count", subject="dog"),
        Check("accuracy, all examples", 0.9, 0.5, True, metric="accuracy"),
    )
    made = report(blessed=True, servable=True, evaluation=evaluated(gates=gates))
    text = Elements(page.page(made)).text
    assert "example_count, class dog 12 ≥ 3 +9" in text
    assert "The narrowest is accuracy, all examples, by 0.4000." in text


def test_what_is_missing_is_said(
    report: Make, trained: Callable[..., History], evaluated: Callable[..., Evaluation]
) -> None:
    whole = report()
    bare = report(
        history=trained(0, config={}, stop_reason="", traces={}),
        evaluation=evaluated(classes=(), matrix=None, baseline=None, baseline_classes={}, gates=()),
        blessed=None,
        servable=None,
        data=dataclasses.replace(whole.data, classes={}, why_no_classes="the label is a number"),
        mistakes="Mistakes cannot be shown: the report was given no model.",
        anomalies=None,
        drift=None,
        serving=None,
        command="",
        versions={},
        fingerprint="",
    )
    text = Elements(page.page(bare)).text
    for sentence in (
        "No epoch was finished",
        "no InfraBlessing",
        "sets no bound",
        "slices by no label",
        "add a MultiClassConfusionMatrixPlot",
        "There is no baseline",
        "the report was given no model",
        "How many there are of each class is not known: the label is a number.",
        "was given no ExampleAnomalies",
        "was given no DataDrift",
        "the run has not ended by itself",
        "was given no command",
        "was given no fingerprint",
    ):
        assert sentence in text, sentence


def test_every_value_of_the_plots_is_in_a_table(report: Make) -> None:
    made = report()
    text = Elements(page.page(made)).text
    for record in made.history.epochs:
        for value in record.metrics.values():
            assert f"{value:.4f}" in text
        assert f"{record.simple_noise_scale:,.4g}" in text
        assert f"{record.updates:,}" in text
    for _, metrics in made.evaluation.classes:
        assert f"{metrics['accuracy']:.4f}" in text
    assert "schedule.strategy" in text
    assert '"hybrid"' in text


def test_many_classes_and_epochs_stay_below_ten_megabytes(report: Make) -> None:
    names = tuple(f"n{number:08d} a class with a rather long name" for number in range(1000))
    text = page.page(report(names, 300))
    assert len(text.encode()) < 8_000_000
    assert "Shown are 40 of 1,000 classes" in text
    assert all(f'<th scope="row">{name}</th>' in text for name in names)


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.04, "4.0 s"), (119.6, "2 min 00 s"), (3700, "1 h 01 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert render.duration(seconds) == words


def test_intervals_and_classes_at_chance_are_told(
    report: Make, evaluated: Callable[..., Evaluation]
) -> None:
    weak = SliceMetrics(50, {"accuracy": 0.1})
    gate = Check("accuracy, all examples", 0.85, 0.8, True, interval=(0.7862, 0.8972))
    classes = ((HOSTILE, weak), *evaluated().classes[1:])
    found = dataclasses.replace(evaluated(), classes=classes, gates=(gate,))
    text = Elements(page.page(report(evaluation=found))).text
    low, high = weak.interval("accuracy") or (0, 0)
    assert f"[{low:.4f}, {high:.4f}]" in text
    assert "[0.7862, 0.8972] contains the threshold" in text
    assert f"In 1 of 3 classes the accuracy is not above chance, 0.3333: {HOSTILE}." in text


def test_a_regression_has_residuals_and_no_classes(report: Make) -> None:
    metrics = SliceMetrics(2, {"r2": 0.5, "mae": 1234.5, "rmse": 2.0}, {"r2": (0.4, 0.6)})
    shown = (Residual(1.0, 9.0, "example 1", {HOSTILE: "3"}),)
    made = report(
        evaluation=Evaluation(metrics, None, (), ()),
        mistakes=Residuals(((1.0, 9.0), (2.0, 2.5)), shown, every=2),
        data=dataclasses.replace(report().data, classes={}, why_no_classes="it is a number"),
    )
    text = page.page(made)
    words = Elements(text).text
    assert "0.5000 [0.4000, 0.6000]" in re.sub(r"\s+", " ", words)
    assert "1,234.5" in words and "example 1" in words and HOSTILE in words
    for absent in ("Confusion matrix", "Most confident mistakes", "by class", "it is a number"):
        assert absent not in words
    histogram = page_data(text)["residuals"]["data"][2]
    assert histogram["x"] == [8.0, 0.5]


def test_two_classes_have_a_calibration_curve(
    report: Make, evaluated: Callable[..., Evaluation]
) -> None:
    rows = (AtThreshold(0.05, 0.25, 1.0, 0.4), AtThreshold(0.5, 0.75, 0.5, 0.6))
    calibration = Calibration(HOSTILE, ((0.1, 0.2, 30.0), (0.9, 0.7, 12.0)), rows)
    text = page.page(report(evaluation=evaluated(calibration=calibration)))
    assert page_data(text)["calibration"]["data"][1]["y"] == [0.2, 0.7]
    precision, recall, f1 = page_data(text)["thresholds"]["data"]
    assert (precision["y"], recall["y"], f1["y"]) == ([0.25, 0.75], [1.0, 0.5], [0.4, 0.6])
    assert f"a probability of 0.8 for {HOSTILE}" in Elements(text).text


def test_the_head_names_run_data_model_and_parameters(
    report: Make, trained: Callable[..., History]
) -> None:
    history = trained(2, config={"model": [[3, 3, 1, 32], [32]], "rates": [0.1 + 0.2]})
    made = report(run="2026-01-02T03", source=HOSTILE, model="cnn", history=history)
    text = Elements(page.page(made)).text
    assert f"run 2026-01-02T03 · data {HOSTILE} · model cnn · 320 parameters" in text
    assert "[0.3]" in text, "floats of the config are shown with six digits"


def test_epochs_without_metrics_have_a_schedule_all_the_same(
    report: Make, trained: Callable[..., History]
) -> None:
    bare = dataclasses.replace(trained(1).epochs[0], metrics={})
    history = dataclasses.replace(trained(1), epochs=(bare,))
    assert "training" in page_data(page.page(report(history=history)))
