import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import csv_check, inference
from trainer_module.serving import dates
from trainer_module.util.checks import UserError


def infer(folder: Path, text: str, label: str | None = "label") -> inference.Table:
    file = folder / "my.csv"
    file.write_text(text)
    return inference.infer(file, label)


def table(rows: int = 200) -> str:
    draw = random.Random(0)
    lines = ["id,name,weight,age,doors,colour,twin,constant,empty,label"]
    for row in range(rows):
        label = draw.choice(("yes", "no"))
        weight = ("", "NA")[row % 2] if row % 10 < 2 else f"{draw.random():.3f}"
        colour = draw.choice(("red", "blue"))
        age = "old" if row % 10 == 1 else draw.randint(1, 90)
        lines.append(
            f"{row},person {row},{weight},{age},{draw.randint(2, 5)},{colour},{label[0]},1,,{label}"
        )
    return "\n".join([*lines, ""])


def test_each_column_gets_a_use_and_a_reason(tmp_path: Path) -> None:
    inferred = infer(tmp_path, table())
    assert [(c.name, c.use, c.why) for c in inferred.columns] == [
        ("id", "left out", "it counts the rows"),
        ("name", "left out", "an id or free text: most values occur once or twice"),
        ("weight", "numeric", ""),
        ("age", "left out", "numbers, but for cells such as 'old': empty them"),
        ("doors", "categorical", ""),
        ("colour", "categorical", ""),
        ("twin", "left out", "each of its values fixes label"),
        ("constant", "left out", "it has one value"),
        ("empty", "left out", "it is empty"),
        ("label", "label", ""),
    ]
    assert inferred.features.numeric == ("weight",)
    assert inferred.features.categorical == ("doors", "colour")
    assert inferred.features.vocabulary_size == len(("2", "3", "4", "5"))
    assert inferred.classes == ("no", "yes")
    assert inferred.columns[2].missing == 40


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-(2**62), 2**62).map(str), st.just("")),
            st.one_of(st.floats(allow_nan=False).map(repr), st.just("")),
            st.sampled_from(["a", "b b", "ü", '"c,d"', ""]),
        ),
        min_size=20,
        max_size=60,
    )
)
def test_the_table_follows_its_own_schema(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]]
) -> None:
    """Whatever is inferred passes the check that a run makes."""
    folder = tmp_path_factory.mktemp("table")
    rows = [f"{i},{f},{t},{'xy'[n % 2]}" for n, (i, f, t) in enumerate(cells)]
    try:
        inferred = infer(folder, "\n".join(["i,f,t,label", *rows, ""]))
    except UserError as error:
        assert "some column must be of use" in str(error)
        return
    schema = folder / "schema.pbtxt"
    schema.write_text(inferred.schema)
    count = csv_check.check_table(folder, schema, inferred.features, inferred.classes)
    assert count == inferred.rows == len(cells)


@pytest.mark.parametrize(
    ("label", "column", "message"),
    [
        ("lable", "label", "must name a column of my.csv, got 'lable'. Did you mean 'label'?"),
        ("label", ["a"] * 20, "must have at least two values, got 'a'. Name another `label`"),
        ("label", [""] * 12 + ["a", "b"] * 4, "be there in most rows, got '12 of 20 rows without'"),
        ("label", [f"v{n}" for n in range(20)], "some of them more than once, got '20 in 20 rows'"),
    ],
)
def test_a_label_that_cannot_be_predicted(
    tmp_path: Path, label: str, column: list[str] | str, message: str
) -> None:
    values = ["a", "b"] * 10 if isinstance(column, str) else column
    rows = [f"{n % 7}.5,{value}" for n, value in enumerate(values)]
    with pytest.raises(UserError) as error:
        infer(tmp_path, "\n".join(["x,label", *rows, ""]), label)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("column", "task"),
    [
        (["yes", "no"] * 100, "classification"),
        ([str(n % 10) for n in range(200)], "classification"),
        # Wine's quality, of seven grades; ages in years; a price.
        ([str(n % 20) for n in range(400)], "classification"),
        ([str(n % 20) for n in range(399)], "regression"),
        ([str(n) for n in range(200)], "regression"),
        ([f"{n % 2}.5" for n in range(200)], "regression"),
        (["NA", *(f"{n}.5" for n in range(199))], "regression"),
        # Whole numbers as pandas writes them where some were missing.
        (["0.0", "1.0"] * 100, "classification"),
        ([f"{n}.0" for n in range(200)], "regression"),
    ],
    ids=[
        *("text", "few", "often", "seldom", "all different", "fractions", "missing"),
        *("few floats", "many floats"),
    ],
)
def test_the_label_says_what_to_predict(tmp_path: Path, column: list[str], task: str) -> None:
    rows = [f"{n % 7}.5,{value}" for n, value in enumerate(column)]
    inferred = infer(tmp_path, "\n".join(["x,label", *rows, ""]))
    assert inferred.features.task == task
    assert bool(inferred.classes) == (task == "classification")
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(inferred.schema)
    assert csv_check.check_table(
        tmp_path, schema, inferred.features, inferred.classes, "skip"
    ) == len(column) - column.count("NA")


@pytest.mark.parametrize("form", ["${},200.50", "{},200", "{}%", "€ {}"])
def test_numbers_with_marks_are_named(tmp_path: Path, form: str) -> None:
    rows = [f'"{form.format(1 + n % 20)}",{n % 7}.5,{"ab"[n % 3 > 0]}' for n in range(200)]
    inferred = infer(tmp_path, "\n".join(["price,x,label", *rows, ""]))
    first = form.format(1)
    assert inferred.columns[0].why == f"numbers such as {first!r}: write them as 1200 or 0.45"
    with pytest.raises(UserError, match=r"written as numbers.*write them as 1200"):
        infer(tmp_path, "\n".join(["price,x,label", *rows, ""]), "price")


@pytest.mark.parametrize(
    ("column", "task", "message"),
    [
        ([f"{n}.5" for n in range(20)], "classification", "set `task=regression` to predict the n"),
        ([str(n) for n in range(200)], "classification", "set `task=regression` to predict a num"),
        (["low", *map(str, range(19))], "regression", "must be a number, got 'low'"),
    ],
)
def test_a_label_that_does_not_fit_the_task(
    tmp_path: Path, column: list[str], task: inference.Task, message: str
) -> None:
    rows = [f"{n % 7}.5,{value}" for n, value in enumerate(column)]
    file = tmp_path / "my.csv"
    file.write_text("\n".join(["x,label", *rows, ""]))
    with pytest.raises(UserError) as error:
        inference.infer(file, "label", task)
    assert message in str(error.value)


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=50), st.floats(-1e6, 1e6))
def test_skewness_is_that_of_scipy(numbers: list[float], shift: float) -> None:
    from scipy.stats import skew

    moments = inference.Moments()
    for number in [*numbers, math.inf]:
        moments.add(number + shift)
    if np.std(numbers) > 1:
        assert moments.skewness == pytest.approx(skew(numbers), abs=1e-3)


def test_numbers_whose_powers_overflow(tmp_path: Path) -> None:
    rows = [f"{n % 7}.5,{n}.5e{3 * n}" for n in range(100)]
    (_, label) = infer(tmp_path, "\n".join(["x,label", *rows, ""])).columns
    assert (label.use, label.why) == ("label", "")


def test_a_long_tail_of_the_label_is_said(tmp_path: Path) -> None:
    rows = [f"{n % 7}.5,{2 ** (n % 12)}.5" for n in range(100)]
    (_, label) = infer(tmp_path, "\n".join(["x,label", *rows, ""])).columns
    assert "long tail (skewness" in label.why
    rows = [f"{n % 7}.5,{-(2 ** (n % 12))}.5" for n in range(100)]
    (_, label) = infer(tmp_path, "\n".join(["x,label", *rows, ""])).columns
    assert label.why == ""


@pytest.mark.parametrize(
    ("cells", "use", "why"),
    [
        (["2026-01-31", "2026-02-01 18:30"], "date", ""),
        (["2026-01-31", "2025-01-31", ""], "date", ""),
        (["2026-02-30", "2026-01-31"], "left out", "dates such as '2026-02-30': write them as"),
        (["31.01.2026", "01.02.2026"], "left out", "dates such as '"),
        (["1/31/26", "2/1/26"], "left out", "dates such as '"),
        (["3.5.1 beta", "3.5.2"], "categorical", ""),
    ],
)
def test_dates(tmp_path: Path, cells: list[str], use: str, why: str) -> None:
    draw = random.Random(0)
    lines = [f"{draw.choice(cells)},{n % 7}.5,{'ab'[n % 2]}" for n in range(60)]
    inferred = infer(tmp_path, "\n".join(["day,x,label", *lines, ""]))
    assert inferred.columns[0].use == use
    assert inferred.columns[0].why.startswith(why)
    assert inferred.features.dates == (("day",) if use == "date" else ())


def test_dates_that_pandas_wrote(tmp_path: Path) -> None:
    """Days, moments, time zones, fractions of a second and gaps; read as pandas has them."""
    moments = pd.Series(pd.date_range("2023-12-30", periods=90, freq="7h30min"))
    frame = pd.DataFrame(
        {
            "day": moments.dt.normalize(),
            "moment": moments,
            "berlin": moments.dt.tz_localize("Europe/Berlin"),
            "utc": moments.dt.tz_localize("UTC"),
            "exact": moments + pd.Timedelta(microseconds=1),
            "gaps": moments.where(moments.index % 5 > 0),
        }
    )
    frame.assign(label=["no", "yes"] * 45).to_csv(tmp_path / "my.csv", index=False)
    inferred = inference.infer(tmp_path / "my.csv", "label")
    assert inferred.features.dates == tuple(frame.columns)

    texts = pd.read_csv(tmp_path / "my.csv", dtype=str, keep_default_na=False)
    for name, column in frame.items():
        parsed = dates.parse(tf.constant(texts[name].to_list()))
        known = parsed.known.numpy()
        assert known.tolist() == column.notna().to_list()
        at = column[known].dt
        assert parsed.month.numpy()[known].tolist() == at.month.to_list()
        ordinals = [date.toordinal() - 719163 for date in at.date]
        assert parsed.day.numpy()[known].tolist() == ordinals
        minutes = 60 * at.hour + at.minute
        np.testing.assert_allclose(parsed.time.numpy()[known], minutes / 1440, atol=1e-6)


def test_a_table_of_nothing_to_learn_from(tmp_path: Path) -> None:
    rows = [f"{n},{'ab'[n % 2]}" for n in range(40)]
    with pytest.raises(UserError, match=r"some column must be of use.*id: it counts the rows"):
        infer(tmp_path, "\n".join(["id,label", *rows, ""]))


def test_classes_of_numbers_are_in_their_order(tmp_path: Path) -> None:
    rows = [f"{n % 7}.5,{(1, 2, 10)[n % 3]}" for n in range(60)]
    assert infer(tmp_path, "\n".join(["x,label", *rows, ""])).classes == ("1", "2", "10")


def test_what_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "notes.csv").touch()
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").touch()
    assert inference.is_table(tmp_path / "csv")
    assert inference.is_table(tmp_path / "csv" / "a.csv")
    assert not inference.is_table(tmp_path / "images")
    assert not inference.is_table(tmp_path / "none")


def test_a_row_without_a_label_says_nothing_of_a_leak(tmp_path: Path) -> None:
    rows = [f"{n % 7}.5,{'xy'[n % 2]},{'' if n < 2 else 'ab'[n % 2]}" for n in range(40)]
    twin = infer(tmp_path, "\n".join(["n,twin,label", *rows, ""])).columns[1]
    assert (twin.use, twin.why) == ("left out", "each of its values fixes label")


def test_names_that_occur_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column names must differ, got \['a'\]"):
        infer(tmp_path, "a,a,label\n1,2,x\n2,3,y\n")
