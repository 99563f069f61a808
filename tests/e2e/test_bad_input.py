"""What a failed run leaves behind; pipeline/cli/test_main.py has bad input found before TFX."""

import pytest
from PIL import Image

from runs import plateau

pytestmark = pytest.mark.e2e

FLAGS = ("--height", 8, "--width", 8, "--max-epochs", 2, "--batch-size", 8, "--min-accuracy", 0)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bad_picture_is_named_or_counted_and_spares_earlier_models(tmp_path):
    data, output = tmp_path / "data", tmp_path / "run"
    for name, shade in (("dark", 10), ("light", 190)):
        (data / name).mkdir(parents=True)
        for i in range(60):
            Image.new("L", (8, 8), shade + i).save(data / name / f"{i}.png")
    bad = data / "dark" / "bad.png"
    bad.write_bytes(b"")
    (data / "light" / "cut.png").write_bytes((data / "light" / "0.png").read_bytes()[:-20])
    run = ("run", "--data", data, *FLAGS)

    first = plateau(*run, "--on-bad-image", "skip", output=output)
    assert first.status == 0, first.out + first.err
    assert "2 bad images left out" in first.out
    pushed = files(output / "pushed")

    failed = plateau(*run, output=output)
    assert failed.status == 1
    assert "2 bad of 122" in failed.err
    assert "dark/bad.png: the file is empty" in failed.err
    assert "light/cut.png: it is broken or cut short" in failed.err
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
    assert again.pushed == first.pushed


def test_data_that_breaks_the_schema_stops_at_a_gate(tmp_path):
    for split, names in (("train", "ab"), ("val", "ab"), ("test", "a")):
        for name in names:
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(20):
                Image.new("L", (8, 8), 20 + i).save(folder / f"{i}.png")
    done = plateau("run", "--data", tmp_path / "data", *FLAGS, output=tmp_path / "run")
    assert done.status == 3, done.out + done.err
    assert "split test, feature label: every example has the same label (rule:" in done.err
    assert "Trainer" not in done.out
