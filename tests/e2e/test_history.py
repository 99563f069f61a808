"""What a folder of runs tells afterwards, and the way back to an earlier model."""

import json
from pathlib import Path

import pytest

from runs import plateau

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def other(first):
    """A run that pushes another model into the folder of the first."""
    flags = ("--learning-rate", 0.04, "--max-accuracy-drop", 0.05)
    done = plateau("run", "digits", *flags, output=first.output)
    assert done.status == 0, done.out + done.err
    return done


def test_the_report_is_there(first):
    done = plateau("report", output=first.output)
    assert done.status == 0, done.err
    page = Path(done.out.strip()).read_text()
    for shown in ("val_accuracy", "plateau run digits", f"--output {first.output}"):
        assert shown in page


def test_runs_are_listed_with_what_they_reached(first, other):
    done = plateau("runs", "--json", output=first.output)
    assert done.status == 0, done.err
    (folder,) = json.loads(done.out)
    newest = folder["runs"][0]
    assert newest["blessed"]
    assert newest["test_accuracy"] == pytest.approx(other.accuracy(), abs=5e-5)
    assert newest["strategy"] == "hybrid"
    assert newest["pushed"] == int(other.pushed[-1].name)
    shown = plateau("runs", "show", output=first.output)
    assert shown.status == 0, shown.err
    assert "input_fingerprint" in shown.out


def test_a_search_finds_hyperparameters_that_the_trainer_takes(tmp_path):
    flags = ("--tune", 2, "--max-epochs", 2, "--min-accuracy", 0, "--min-class-accuracy", 0)
    done = plateau("run", "digits", *flags, output=tmp_path / "run")
    assert done.status == 0, done.out + done.err
    assert "trial  1/2  learning_rate 0.2  batch_size 16" in done.out
    (found,) = done.files("Tuner", "best_hyperparameters")
    values = json.loads(Path(found).read_text())["values"]
    assert f"lr {values['learning_rate']:.3g}" in done.out
    assert f"batch {values['batch_size']}" in done.out.split("▸ Trainer")[1]


def test_an_earlier_model_is_served_again_and_runs_go_on(first, other):
    before = other.pushed
    done = plateau("rollback", "--yes", output=first.output)
    assert done.status == 0, done.err
    *kept, newest = done.pushed
    assert kept == before
    served = (newest / "variables/variables.data-00000-of-00001").read_bytes()
    past = [path / "variables/variables.data-00000-of-00001" for path in before]
    assert served in [path.read_bytes() for path in past[:-1]]
    assert served != past[-1].read_bytes()
    again = plateau("run", "digits", output=first.output)
    assert again.status == 0, again.out + again.err
    assert again.component("Trainer") == "cached"
    assert again.accuracy("baseline") == other.accuracy()
