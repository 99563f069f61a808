import dataclasses
import io
import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from components.gate import Check
from pipeline.cli import console, result
from pipeline.metadata.lineage import Detail, Made, Origin
from pipeline.metadata.lineage import Step as RunStep
from pipeline.metadata.runs import Folder, Run, short_id
from pipeline.metadata.versions import Rollback, Version
from pipeline.runners.result import Evaluation, RunResult, SliceMetrics, Step

METRICS = SliceMetrics(360, {"accuracy": 0.9972, "crossentropy": 0.0366})
FOLDER = Path("/a/path/that/is/longer/than/a/console/of/eighty/columns/is/wide") / ("x" * 60)
RESULT = RunResult(
    steps=(Step("ImageExampleGen", 1.0, "run"), Step("LatestBlessedModel", 0.0, "cached")),
    evaluation=Evaluation(
        METRICS, METRICS, (("5", METRICS),), (Check("accuracy, all examples", 0.99, 0.95, True),)
    ),
    blessed=True,
    unservable=(),
    model=FOLDER / "model",
    pushed=FOLDER / "pushed" / "1795392735",
    report=FOLDER / "report.html",
    log=FOLDER / "logs" / "1.log",
    seconds=12.3,
)


def shown(width: int, **changes: object) -> str:
    out = io.StringIO()
    result.print_result(
        Console(file=out, width=width, highlight=False), dataclasses.replace(RESULT, **changes)
    )
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_and_paths_stay_whole(width: int) -> None:
    text = shown(width)
    assert f"model  {RESULT.pushed}\n" in text
    assert f"log    {RESULT.log}\n" in text
    assert f"report {RESULT.report}\n" in text
    assert all(len(line) <= width for line in text.splitlines() if str(FOLDER) not in line)
    assert "baseline (last blessed)" in text
    assert "LatestBlessedModel" in text


def test_a_regression_is_shown_by_its_errors() -> None:
    metrics = SliceMetrics(51, {"r2": 0.8428, "mae": 2.24, "rmse": 2.95}, {"r2": (0.743, 0.942)})
    text = shown(80, evaluation=Evaluation(metrics, None, (), ()))
    assert re.search(r"examples +r2 +interval +mae +rmse", text)
    assert re.search(r"candidate +51 +0\.8428 +0\.743-0\.942 +2\.2400 +2\.9500", text)


def test_rare_classes_that_are_neglected_are_named_unless_weighted() -> None:
    classes = tuple(
        (name, SliceMetrics(examples, {"accuracy": accuracy}))
        for name, examples, accuracy in (("owl", 10, 0.5), ("cat", 90, 0.95), ("dog", 18, 0.9))
    )
    whole = SliceMetrics(118, {"accuracy": 0.9})
    evaluation = Evaluation(whole, None, classes, ())
    assert "warning: owl: rare, and often" in shown(80, evaluation=evaluation)
    assert "rare" not in shown(80, evaluation=evaluation, is_weighted=True)


def test_images_left_out_are_counted() -> None:
    assert "1 bad image left out" in shown(80, bad_images=1)
    text = shown(80, bad_images=1200, converted_images=3)
    assert "1,200 bad images left out" in text
    assert "3 images converted to PNG" in text
    text = shown(80, left_out_files=1200, left_out_suffixes=".txt 1,199, .xml 1")
    assert "1,200 files of other suffixes left out (.txt 1,199, .xml 1)" in text
    assert "data " not in shown(80)


def test_an_unblessed_model_says_which_gate_failed() -> None:
    failed = (
        Check("accuracy, class 5", 0.7, 0.8, False, subject="5"),
        Check("crossentropy, all examples", 0.5, 0.4, False, at_most=True),
    )
    evaluation = dataclasses.replace(RESULT.evaluation, gates=failed)
    text = shown(80, evaluation=evaluation, blessed=False, pushed=None)
    assert "not blessed, not pushed" in text
    assert "accuracy, class 5 is 0.7000, must be >= 0.8000" in text
    assert "crossentropy, all examples is 0.5000, must be <= 0.4000" in text


def test_a_model_that_cannot_be_served_says_why() -> None:
    text = shown(80, unservable=("size is 12.1 MiB, must be <= 1 MiB",), pushed=None)
    assert "blessed, but not servable, not pushed" in text
    assert "  size is 12.1 MiB, must be <= 1 MiB" in text
    assert "first model" not in text


def test_accuracies_have_intervals_and_gates_say_whether_they_lie_beyond() -> None:
    gates = (
        Check("accuracy, all examples", 0.9972, 0.95, True, interval=(0.9845, 0.9995)),
        Check("accuracy - baseline's", 0.0, -0.01, True, interval=(-0.0129, 0.0129)),
    )
    text = shown(120, evaluation=dataclasses.replace(RESULT.evaluation, gates=gates))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "candidate 360 0.9972 0.984-1.000 0.0366" in rows
    assert "accuracy, all examples 0.9972 0.9500 +0.0472 yes passed" in rows
    assert "accuracy - baseline's 0.0000 -0.0100 +0.0100 no passed" in rows


def test_a_class_at_chance_and_one_without_examples_are_told() -> None:
    weak, good = (SliceMetrics(50, {"accuracy": value}) for value in (0.25, 0.26))
    evaluation = dataclasses.replace(
        RESULT.evaluation, classes=(("[red]", weak), ("cat", good)), unseen=("owl", "emu")
    )
    text = shown(80, evaluation=evaluation)
    assert "warning: class [red]: accuracy 0.2500 is not above chance, 0.2500\n" in text
    assert "warning: without a test example: owl, emu\n" in text
    assert "class cat: accuracy" not in text


def test_a_comparison_of_nothing_is_told() -> None:
    gate = Check("a drop", 0.0, -0.1, True, "Nothing was compared.", is_change=True)
    evaluation = dataclasses.replace(RESULT.evaluation, gates=(gate,))
    assert "warning: Nothing was compared.\n" in shown(80, evaluation=evaluation)


def test_a_metric_that_was_not_measured_is_a_dash() -> None:
    evaluation = dataclasses.replace(
        RESULT.evaluation, candidate=SliceMetrics(None, {"accuracy": 0.5}), baseline=None
    )
    rows = [" ".join(line.split()) for line in shown(80, evaluation=evaluation).splitlines()]
    assert "candidate - 0.5000 - -" in rows


OUTPUT = Path("runs/digits")
BEGAN = datetime(2026, 1, 2, 3, 4, 5)
RUN = Run(
    id="462534",
    name="2026-01-02T03:04:05",
    began=BEGAN,
    pipeline="plateau-digits-0a1b2c3d",
    state="finished",
    data="22ae517f",
    strategy="batch_increase",
    monitor="val_accuracy",
    best_value=0.99441,
    test_accuracy=0.9972,
    blessed=True,
    pushed=1795400358,
    served=True,
    cached=7,
    steps=10,
)
POOR = dataclasses.replace(
    RUN,
    id="d99b57",
    state="interrupted",
    data="",
    strategy="",
    monitor="",
    best_value=None,
    test_accuracy=None,
    blessed=None,
    pushed=None,
    served=False,
    cached=0,
)
PUSHED = Version(1795400358, OUTPUT / "pushed/1795400358", 1795400358, 8, "a", BEGAN)
COPY = dataclasses.replace(PUSHED, number=1795400999, path=OUTPUT / "pushed/1795400999")
EXAMPLES = Origin("Examples", OUTPUT / "artifacts/ImageExampleGen/examples/1", "Gen", "beef00")
MODEL = Origin(
    "Model",
    Path("/moved/away"),
    "Trainer",
    "462534",
    sources=(("examples", EXAMPLES), ("base_model", dataclasses.replace(EXAMPLES, type="Model"))),
)
DETAIL = Detail(
    run=RUN,
    output=OUTPUT,
    log=None,
    steps=(
        RunStep(
            "Transform",
            "complete",
            1.25,
            (Made("cache", "TransformCache", OUTPUT / "artifacts/Transform/cache/7", "462534"),),
        ),
        RunStep("LatestBlessedModel", "interrupted", None, ()),
    ),
    lineage=MODEL,
    data={"input_fingerprint": f"images:{'a' * 64},code:{'b' * 64}", "span": 0},
    config={
        "classes": {"classes": ["a", "b"]},
        "schedule": {"patience": 3, "plan": None, "strategy": "hybrid"},
    },
    code="c" * 64,
    renamed={"petal_width_cm": "petal width (cm)", "fat": "% fat"},
)


def text_of(show: object, value: object, width: int) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width, highlight=False), value)  # type: ignore[operator]
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 111, 112, 120])
def test_runs_fit_and_say_it_all(width: int) -> None:
    text = text_of(console.print_runs, Folder(OUTPUT, (POOR, RUN), PUSHED), width)
    assert all(len(line) <= width for line in text.splitlines())
    words = text.split()
    expected = (
        "runs/digits 462534 d99b57 22ae517f 0.9944 0.9972 yes 1795400358 served 7/10 cached "
        "interrupted finished batch increase 2026-01-02 03:04 val_accuracy;"
    )
    for part in expected.split():
        assert part in words, part
    assert "…" not in text
    assert words.index("d99b57") < words.index("462534")


@pytest.mark.parametrize(
    ("served", "sentence"),
    [
        (None, "served  nothing: no model has been pushed"),
        (PUSHED, f"served  1795400358, from run {short_id('a')}"),
        (
            COPY,
            "served  1795400999, a copy of 1795400358, made by a rollback on 2026-01-02 03:04, "
            f"from run {short_id('a')}",
        ),
        (
            Version(7, OUTPUT / "pushed/7", 7),
            "served  7, which neither a run nor a rollback pushed",
        ),
    ],
)
def test_what_is_served_and_by_what(served: Version | None, sentence: str) -> None:
    text = text_of(console.print_runs, Folder(OUTPUT, (RUN,), served), 80)
    assert sentence in text.splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_one_run_fits_and_says_it_all(width: int) -> None:
    text = text_of(console.print_run, DETAIL, width)
    assert all(len(line) <= width for line in text.splitlines())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "run 462534 (2026-01-02T03:04:05)",
        f"code {'c' * 64}",
        "Transform 1.2 run artifacts/Transform/cache/7",
        "LatestBlessedModel - interrupted",
        "Model, by Trainer",
        "/moved/away",
        "├── Examples, by Gen in run beef00",
        "│ artifacts/ImageExampleGen/examples/1",
        "└── Model (its first weights), by Gen in run beef00",
        "span 0",
        "Columns served under another name",
        "petal_width_cm petal width (cm)",
        "fat % fat",
        'classes ["a", "b"]',
        "schedule patience 3",
        "plan -",
        "strategy hybrid",
    ):
        assert line in lines, line
    together = "".join(text.split())
    assert f"images:{'a' * 64},code:{'b' * 64}" in together


def test_a_run_that_came_to_nothing_is_shown() -> None:
    empty = dataclasses.replace(
        DETAIL, run=POOR, lineage=None, data={}, config={}, code="", renamed={}
    )
    text = text_of(console.print_run, empty, 80)
    assert "interrupted" in text
    for title in ("Lineage", "Data", "Parameters"):
        assert title not in text


def test_json_has_every_field_in_plain_values() -> None:
    (folder,) = json.loads(console.as_json([Folder(OUTPUT, (RUN,), COPY)]))
    assert folder["path"] == "runs/digits"
    assert folder["runs"][0]["began"] == "2026-01-02T03:04:05"
    assert folder["runs"][0]["best_value"] == 0.99441
    assert folder["runs"][0].keys() == vars(RUN).keys()
    assert folder["served"]["number"] == 1795400999
    detail = json.loads(console.as_json(DETAIL))
    assert detail["lineage"]["sources"][0][1]["type"] == "Examples"
    assert detail["config"]["schedule"]["plan"] is None
    assert detail["log"] is None


def test_a_rollback_before_and_after() -> None:
    earlier = dataclasses.replace(PUSHED, number=100, origin=100)
    plan = Rollback(OUTPUT, PUSHED, earlier)
    assert "again   100, from run" in console.rollback(plan).plain
    assert "served  1795400358" in console.rollback(plan).plain
    done = console.pushed(COPY, PUSHED).plain
    assert "1795400999, a copy of 1795400358" in done
    assert str(COPY.path) in done
    assert "plateau rollback 1795400358" in done


def test_an_error_shows_what_would_change_its_direction() -> None:
    assert console.error("a\u202eb:\n  c").plain == "error: a\\u202eb:\n  c"
