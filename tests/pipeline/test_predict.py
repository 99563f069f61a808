import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import mean_absolute_error, r2_score

from components.evaluation import regression
from pipeline import predict
from pipeline.predict import Example, PredictConfig, Unreadable, find, images, rows
from schemas.columns import MISSING_INTEGER, Input

INPUTS = {
    "miles": Input("miles", "float32", "NaN"),
    "hour_of_day": Input("hour of day", "int64", MISSING_INTEGER),
    "company": Input("company", "string", ""),
    "fare": Input("fare", "float32", None),
}


def served(label: str | None = None, *, is_regression: bool = False) -> Any:
    """What `rows` reads of a model."""
    return SimpleNamespace(
        inputs=INPUTS, label=label, is_regression=is_regression, classes=("1", "2", "no", "yes")
    )


def table(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"paths": ()}, "something to predict"),
        ({"top": 0}, "`top` must be at least 1"),
        ({"threshold": 1.0}, "`threshold` must be above 0 and below 1"),
        ({"file": Path("predictions.xlsx")}, r"`file` must end with \.csv or \.jsonl"),
    ],
)
def test_flags_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictConfig(**{"model": Path("m"), "paths": (Path("a.png"),), **fields})


def test_a_model_is_found_by_its_run_its_versions_or_itself(tmp_path: Path) -> None:
    for version in ("9", "10", "x"):
        folder = tmp_path / "run" / "pushed" / version
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
    newest = tmp_path / "run" / "pushed" / "10"
    assert find(tmp_path / "run") == find(newest.parent) == find(newest) == newest
    assert find(newest.with_name("9")) == newest.with_name("9")
    with pytest.raises(ValueError, match="whose model was pushed"):
        find(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("quoted", [False, True])
def test_rows_are_read_by_their_columns(tmp_path: Path, encoding: str, quoted: bool) -> None:
    cells = [
        ["company", "other", "fare", "tip", "hour of day", "miles"],
        ["a, b", "x", "1.5", "yes", "7", "2"],
        ["", "x", "2", "", "", ""],
    ]
    path = tmp_path / "table.csv"
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(cells)
    first, second = rows([path], served("tip"))
    assert isinstance(first, Example)
    assert first.inputs == {"miles": 2.0, "hour_of_day": 7, "company": "a, b", "fare": 1.5}
    assert (first.row, first.label) == (2, "yes")
    assert isinstance(second, Example)
    assert second.inputs["miles"] != second.inputs["miles"]
    assert (second.inputs["hour_of_day"], second.inputs["company"]) == (MISSING_INTEGER, "")
    assert second.label is None


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    path = table(tmp_path, "miles,hour of day,company,fare,tip\n1,2.0,2.0,4,2.0\n1,3,a,4,NaN\n")
    first, second = rows([path], served("tip"))
    assert isinstance(first, Example) and isinstance(second, Example)
    assert (first.inputs["hour_of_day"], first.inputs["company"]) == (2, "2.0")
    assert (first.label, second.label) == ("2", None)


def test_a_row_that_does_not_fit_is_named_and_passed_over(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "miles,hour of day,company,fare\n1,2,a,x\n1,2.5,a,1\n1,2,a,\n1,2,a\n1,2,a,4\n",
    )
    *bad, good = rows([path], served())
    reasons = [each.reason for each in bad if isinstance(each, Unreadable)]
    assert [each.row for each in bad] == [2, 3, 4, 5]
    for reason, words in zip(
        reasons,
        ("fare must be a number", "hour of day must be a whole", "fare must not be empty"),
        strict=False,
    ):
        assert words in reason
    assert isinstance(good, Example)
    assert good.row == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must have a header"),
        (b"miles;hour of day;company\n", "company without fare"),
        (b"Miles,hour of day,company,fare\n", "without miles"),
        (b"\x89PNG\r\n", "a CSV file must be UTF-8"),
    ],
)
def test_another_table_is_refused_before_anything_is_read(
    tmp_path: Path, content: bytes, message: str
) -> None:
    good = table(tmp_path, "miles,hour of day,company,fare\n1,2,a,4\n")
    other = tmp_path / "other.csv"
    other.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        next(rows([good, other], served()))
    with pytest.raises(ValueError, match="must hold a CSV file"):
        next(rows([Path(__file__).parents[1] / "components"], served()))


def test_images_are_prepared_as_for_training(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.webp", "c.gif"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "d.jpg").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    gif, png, broken, webp = images([tmp_path], ("cat", "dog"))
    assert isinstance(gif, Example)
    assert gif.converted == "GIF P"
    assert gif.label is None
    assert isinstance(png, Example)
    assert png.inputs == {"image": (tmp_path / "cat" / "a.png").read_bytes()}
    assert (png.label, png.converted) == ("cat", "")
    assert isinstance(webp, Example)
    assert webp.inputs["image"].startswith(b"\x89PNG")
    assert isinstance(broken, Unreadable)
    assert "no image" in broken.reason
    for nothing in (Path(__file__).parents[2] / "schemas", table(tmp_path, "a,b\n")):
        with pytest.raises(ValueError, match="an image or a folder with images"):
            next(images([nothing], ()))


def test_predictions_are_written_whole(tmp_path: Path) -> None:
    example = Example(tmp_path / "a.png", None, {})
    both = predict.Prediction(example, ("cat", "dog, wild"), (0.75, 0.25))
    for suffix in predict.SUFFIXES:
        config = PredictConfig(tmp_path, (tmp_path,), 2, file=tmp_path / f"out{suffix}")
        with predict._writer(config, False) as write:
            write(both)
        with pytest.raises(KeyboardInterrupt), predict._writer(config, False):
            raise KeyboardInterrupt
    with (tmp_path / "out.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row == {
        **{"file": str(tmp_path / "a.png"), "row": "", "class": "cat", "probability": "0.75"},
        **{"class_2": "dog, wild", "probability_2": "0.25"},
    }
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["top"][1] == {"class": "dog, wild", "probability": 0.25}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("probabilities", "threshold", "order"),
    [
        ([0.2, 0.5, 0.3], None, [1, 2, 0]),
        ([0.5, 0.5], None, [0, 1]),
        ([0.7, 0.3], 0.3, [1, 0]),
        ([0.3, 0.7], 0.75, [0, 1]),
    ],
)
def test_the_second_class_is_predicted_from_a_threshold_on(
    probabilities: list[float], threshold: float | None, order: list[int]
) -> None:
    assert list(predict.ranked(np.array(probabilities), threshold)) == order


def test_numbers_are_written_and_compared_with_their_labels(tmp_path: Path) -> None:
    path = table(tmp_path, "miles,hour of day,company,fare,tip\n1,2,a,4,1\n1,2,a,4,NA\n1,2,a,4,\n")
    examples = list(rows([path], served("tip", is_regression=True)))
    assert [each.label for each in examples if isinstance(each, Example)] == ["1", None, None]
    for suffix in predict.SUFFIXES:
        config = PredictConfig(tmp_path, (tmp_path,), 1, file=tmp_path / f"out{suffix}")
        with predict._writer(config, True) as write:
            write(predict.Prediction(Example(path, 2, {}), number=1.5))
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [
            {"file": str(path), "row": "2", "prediction": "1.5"}
        ]
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record == {"file": str(path), "row": 2, "prediction": 1.5}


def test_errors_are_those_of_scikit_learn() -> None:
    labels, numbers = [1.0, 2.0, 4.0, 8.0], [1.5, 1.0, 5.0, 7.0]
    summary = predict.Summary(Path(), regression.Sums())
    for label, number in zip(labels, numbers, strict=True):
        summary.add(predict.Prediction(Example(Path(), 2, {}, str(label)), number=number))
    summary.add(predict.Prediction(Example(Path(), 2, {}), number=100.0))
    assert summary.errors is not None
    assert summary.errors.r2() == pytest.approx(r2_score(labels, numbers))
    assert summary.errors.mae() == pytest.approx(mean_absolute_error(labels, numbers))


def test_labels_whose_squares_overflow_are_no_error() -> None:
    errors = regression.Sums().add(1e200, 1.0)
    assert errors.r2() == -math.inf
    assert errors.mae() == 1e200
