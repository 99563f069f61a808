import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import console
from pipeline.result import Evaluation, Gate, RunResult, SliceMetrics, Step

METRICS = SliceMetrics(360, 0.9972, 0.0366)
FOLDER = Path("/a/path/that/is/longer/than/a/console/of/eighty/columns/is/wide") / ("x" * 60)
RESULT = RunResult(
    steps=(Step("ImageExampleGen", 1.0, "run"), Step("LatestBlessedModel", 0.0, "cached")),
    evaluation=Evaluation(
        METRICS, METRICS, (("5", METRICS),), (Gate("accuracy, all examples", 0.99, 0.95, True),)
    ),
    blessed=True,
    model=FOLDER / "model",
    pushed=FOLDER / "pushed" / "1795392735",
    log=FOLDER / "logs" / "1.log",
    seconds=12.3,
)


def shown(width: int, **changes: object) -> str:
    out = io.StringIO()
    console.print_result(
        Console(file=out, width=width, highlight=False), dataclasses.replace(RESULT, **changes)
    )
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_and_paths_stay_whole(width: int) -> None:
    text = shown(width)
    assert f"model  {RESULT.pushed}\n" in text
    assert f"log    {RESULT.log}\n" in text
    assert all(len(line) <= width for line in text.splitlines() if str(FOLDER) not in line)
    assert "baseline (last blessed)" in text
    assert "LatestBlessedModel" in text


def test_pictures_left_out_are_counted() -> None:
    assert "1 bad picture left out" in shown(80, bad_images=1)
    text = shown(80, bad_images=1200, converted_images=3)
    assert "1,200 bad pictures left out" in text
    assert "3 pictures converted to PNG" in text
    assert "data " not in shown(80)


def test_an_unblessed_model_says_which_gate_failed() -> None:
    failed = Gate("accuracy, class 5", 0.7, 0.8, False)
    evaluation = dataclasses.replace(RESULT.evaluation, gates=(failed,))
    text = shown(80, evaluation=evaluation, blessed=False, pushed=None)
    assert "not blessed, not pushed" in text
    assert "accuracy, class 5 is 0.7000, must be >= 0.8000" in text
