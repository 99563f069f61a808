"""Data that is odd or bad: whole runs on what other programs stumble over.

tests/pipeline/cli/test_main.py has bad input that is found before TFX.
"""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from runs import plateau

pytestmark = pytest.mark.e2e

NAMES = (
    "<img src=x onerror=alert(1)>",
    "{{7*7}} %s $(id) `id`",
    "-rf",
    "\u202ekitten, \"quoted\" & 'so'",
    "\U0001f40e" * 60,
    "n" * 250,
)
FLAGS = ("--max-epochs", 1, "--min-accuracy", 0, "--min-class-accuracy", 0)
SMALL = ("--height", 8, "--width", 8, "--batch-size", 8, "--max-latency", "None", *FLAGS)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_class_names_of_every_kind_and_a_bad_image_that_is_named_or_counted(tmp_path):
    random = np.random.default_rng(0)
    data, output = tmp_path / "data", tmp_path / "run"
    for index, name in enumerate(NAMES):
        (data / name).mkdir(parents=True)
        for i in range(25):
            pixels = random.integers(index * 40, index * 40 + 30, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(data / name / f"<script>{i}.png")
    good = next((data / "-rf").iterdir()).read_bytes()
    (data / "-rf" / "bad.png").write_bytes(b"")
    (data / "-rf" / "cut.png").write_bytes(good[:-20])
    run = ("run", "--data", data, *SMALL)

    first = plateau(*run, "--on-bad-image", "skip", output=output)
    assert first.status == 0, first.out + first.err
    assert "2 bad images left out" in first.out
    assert "Traceback" not in first.out + first.err

    import tensorflow as tf

    ask = tf.saved_model.load(str(first.pushed[-1])).signatures["serving_images"]
    answer = ask(image=tf.constant([good]))
    names = [name.decode() for name in answer["classes"][0].numpy()]
    assert sorted(names) == sorted(NAMES)
    (page,) = output.glob("artifacts/TrainingReport/report/*/report.html")
    text = page.read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "{{7*7}}" in text
    assert not re.search("<script>[0-9]", text)
    pushed = files(output / "pushed")

    failed = plateau(*run, output=output)
    assert failed.status == 1
    assert "2 bad of 152" in failed.err
    assert "-rf/bad.png: the file is empty" in failed.err
    assert "-rf/cut.png: it is broken or cut short" in failed.err
    assert "--on-bad-image skip" in failed.err
    assert "Traceback" not in failed.out + failed.err
    assert "Trainer" not in failed.out
    assert files(output / "pushed") == pushed

    again = plateau(*run, "--on-bad-image", "skip", output=output)
    assert again.status == 0, again.out + again.err
    assert again.component("Trainer") == "cached"
    assert again.accuracy("baseline") == first.accuracy()
    assert "2 bad images left out" in again.out
    # It is the model that is served already.
    assert files(output / "pushed") == pushed


def test_data_that_breaks_the_schema_stops_at_a_gate(tmp_path):
    for split, names in (("train", "ab"), ("val", "ab"), ("test", "a")):
        for name in names:
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(20):
                Image.new("L", (8, 8), 20 + i).save(folder / f"{i}.png")
    done = plateau("run", "--data", tmp_path / "data", *SMALL, output=tmp_path / "run")
    assert done.status == 3, done.out + done.err
    assert "split test, feature label: every example has the same label (rule:" in done.err
    assert "Trainer" not in done.out


def test_a_table_of_odd_values_is_trained_on(tmp_path):
    numbers = ("nan", "inf", "-inf", "1e300", "-1e39", "1e-50", "", "1_0.5", " 2.5 ")
    notes = ("a, b", "line\nbreak", 'say "hi"', "\u202e\U0001f40e", "<script>", "x" * 131_072)
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "1.csv").open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file).writerow
        write(("x", "n", "note", "label"))
        for i, x in enumerate(random.normal(size=500)):
            odd = i % 40 == 0
            number = numbers[i // 40 % len(numbers)] if odd else f"{x:.4f}"
            note = notes[i // 40 % len(notes)] if odd else "plain"
            write((number, i if i % 7 else "", note, "yes" if x > 0 else "no"))
    (tmp_path / "schema.pbtxt").write_text(
        'feature { name: "x" type: FLOAT } feature { name: "n" type: INT }'
        'feature { name: "note" type: BYTES }'
        'feature { name: "label" type: BYTES domain: "label" presence { min_fraction: 1 } }'
        'string_domain { name: "label" value: "yes" value: "no" }'
    )
    columns = ("--numeric", "x", "--bucketized", "n", "--categorical", "note", "--label", "label")
    done = plateau(
        *("run", "taxi", "--data", tmp_path / "data", "--schema", tmp_path / "schema.pbtxt"),
        *(*columns, "--label-over", "None", "--classes", "no", "yes", *FLAGS),
        output=tmp_path / "run",
    )
    assert done.status == 0, done.out + done.err
    assert done.accuracy() > 0
    assert len(done.pushed) == 1
