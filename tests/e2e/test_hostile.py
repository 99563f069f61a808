"""Data that is odd, but data: whole runs on names and values that other programs stumble over."""

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


def test_class_names_of_every_kind_reach_the_served_model(tmp_path):
    random = np.random.default_rng(0)
    for index, name in enumerate(NAMES):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(25):
            pixels = random.integers(index * 40, index * 40 + 30, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"<script>{i}.png")
    data = tmp_path / "data"
    flags = ("--height", 8, "--width", 8, "--batch-size", 8, "--max-latency", "None", *FLAGS)
    done = plateau("run", "--data", data, *flags, output=tmp_path / "run")
    assert done.status == 0, done.out + done.err
    assert "Traceback" not in done.out + done.err

    import tensorflow as tf

    ask = tf.saved_model.load(str(done.pushed[-1])).signatures["serving_images"]
    answer = ask(image=tf.constant([next(data.rglob("*.png")).read_bytes()]))
    names = [name.decode() for name in answer["classes"][0].numpy()]
    assert sorted(names) == sorted(NAMES)
    (page,) = done.output.glob("artifacts/TrainingReport/report/*/report.html")
    text = page.read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "{{7*7}}" in text
    assert not re.search("<script>[0-9]", text)


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
