"""The digits preset: a first run, later ones in its folder, and the way back."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from runs import ROOT, labels, plateau, predict, records
from trainer_module import history

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The first run of the digits preset; later runs go on in its folder."""
    return plateau("run", "digits", output=tmp_path_factory.mktemp("digits") / "run")


@pytest.fixture(scope="module")
def second(first):
    """The same again, with too little room for the model."""
    return plateau("run", "digits", "--max-model-mib", 0.01, output=first.output)


def test_the_first_run_pushes_a_good_model(first):
    assert first.status == 0, first.err
    assert first.accuracy() >= 0.97
    assert "first model: nothing to compare with" in first.out
    assert len(first.pushed) == 1
    assert (first.pushed[0] / "saved_model.pb").is_file()
    assert str(first.pushed[0]) in first.out


def test_the_console_shows_training_and_no_library_noise(first):
    assert "epoch  1  loss" in first.out
    assert "no better val_loss for 3 epochs" in first.out
    for noise in ("WARNING", "INFO", "Traceback", "tensorflow/core"):
        assert noise not in first.out + first.err


def test_the_log_file_is_named_and_holds_the_rest(first):
    (log,) = (first.output / "logs").glob("*.log")
    assert str(log) in first.out
    assert "Component Trainer is running" in log.read_text()


def test_serving_sees_what_training_and_evaluation_saw(first):
    """No skew: raw records through the pushed model give the metrics the pipeline measured."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(first.pushed[-1])).signatures["serving_default"]
    for split in ("eval", "test"):
        raw = records(first.files("ImageExampleGen", "examples", split))
        logits = signature(examples=tf.constant(raw))["logits"].numpy()
        true = np.array([int(label) for label in labels(raw)])
        accuracy = np.mean(logits.argmax(1) == true)
        loss = tf.keras.losses.sparse_categorical_crossentropy(true, logits, from_logits=True)
        if split == "eval":
            (path,) = (p for p in first.files("Trainer", "model_run") if p.endswith(".jsonl"))
            best = history.read(first.output / path).best
            assert accuracy == pytest.approx(best.metrics["val_accuracy"], abs=1e-6)
            assert np.mean(loss) == pytest.approx(best.metrics["val_loss"], rel=1e-4)
        else:
            assert accuracy == pytest.approx(first.accuracy(), abs=5e-5)


def test_predictions_are_those_of_the_served_model(first, tmp_path):
    import tensorflow as tf

    data = first.output / "data" / "digits" / "test"
    broken = tmp_path / "broken.png"
    broken.write_bytes(next(data.rglob("*.png")).read_bytes()[:100])
    done = predict(first.output, data, broken, "--top", 2, "--file", tmp_path / "p.csv")
    assert done.status == 0, done.err
    share, count = re.search(r"accuracy +([\d.]+), of the (\d+) with a label", done.out).groups()
    assert float(share) == pytest.approx(first.accuracy(), abs=5e-5)
    assert re.search(r"broken\.png: it is broken or cut short: Invalid PNG", done.out)
    with (tmp_path / "p.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == int(count)
    signature = tf.saved_model.load(str(first.pushed[-1])).signatures["serving_images"]
    served = signature(image=tf.constant([Path(row["file"]).read_bytes() for row in rows]))
    assert [row["class"].encode() for row in rows] == served["class"].numpy()[:, 0].tolist()
    second = np.sort(served["probabilities"].numpy(), axis=1)[:, -2]
    given = np.array([row["probability_2"] for row in rows], np.float32)
    np.testing.assert_allclose(given, second, rtol=1e-5)


def test_evaluation_saw_the_logits_that_serving_gives(first, tmp_path):
    """TFMA's own extractors on the test split, example by example."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_model_analysis as tfma
    from tfx_bsl.tfxio import tf_example_record

    from pipeline import evaluation, presets

    preset = presets.get("digits").build()
    config = evaluation.eval_config(preset.features, preset.gates, tuple("0123456789"))
    config = tfma.utils.update_eval_config_with_defaults(config, rubber_stamp=True)
    model = str(first.pushed[-1])
    shared = tfma.default_eval_shared_model(model, eval_config=config, rubber_stamp=True)
    files = first.files("ImageExampleGen", "examples", "test")
    source = tf_example_record.TFExampleRecord(
        files, raw_record_column_name=tfma.ARROW_INPUT_COLUMN
    )
    out = tmp_path / "seen"

    def rows(extracts):
        pairs = zip(extracts[tfma.INPUT_KEY], extracts[tfma.PREDICTIONS_KEY]["logits"], strict=True)
        return [json.dumps([raw.hex(), logits.tolist()]) for raw, logits in pairs]

    with beam.Pipeline() as pipeline:
        extracts = pipeline | source.BeamSource(64) | tfma.BatchedInputsToExtracts()
        for extractor in tfma.default_extractors(eval_shared_model=shared, eval_config=config):
            extracts |= extractor.stage_name >> extractor.ptransform
            if "Predictions" in extractor.stage_name:
                break
        extracts | beam.FlatMap(rows) | beam.io.WriteToText(str(out), shard_name_template="")
    seen = {bytes.fromhex(raw): logits for raw, logits in map(json.loads, out.open())}
    assert len(seen) == len(records(files))
    served = tf.saved_model.load(model).signatures["serving_default"](
        examples=tf.constant(list(seen))
    )
    np.testing.assert_allclose(served["logits"], list(seen.values()), rtol=1e-4, atol=1e-5)


def test_the_second_run_uses_the_cache_and_the_first_as_baseline(first, second):
    assert second.status == 3, second.err
    for name in ("ImageExampleGen", "StatisticsGen", "AnomalyGate", "Transform", "Trainer"):
        assert first.component(name) == "run"
        assert second.component(name) == "cached"
    assert second.component("Evaluator") == "run"
    assert second.accuracy("baseline") == first.accuracy()


def test_a_model_too_big_to_serve_is_not_pushed(first, second):
    assert "blessed, but not servable" in second.out
    assert "0.01" in second.out
    assert len(second.pushed) == 1


def test_an_edit_of_our_code_trains_again_and_a_model_below_its_gate_is_not_pushed(
    second, tmp_path
):
    for package in ("components", "pipeline", "schemas", "trainer_module"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc"))
    edited = tmp_path / "trainer_module" / "training" / "optimizer.py"
    edited.write_text(edited.read_text() + "\n# Edited.\n")
    before = second.pushed
    strict = ("--min-accuracy", 0.9999)
    done = plateau("run", "digits", *strict, output=second.output, sources=tmp_path)
    assert done.status == 3, done.err
    assert done.component("ImageExampleGen") == "cached"
    assert done.component("Transform") == "run"
    assert done.component("Trainer") == "run"
    assert done.pushed == before
    assert "not blessed" in done.out
    assert "0.9999" in done.out


def test_the_commands_of_the_readme_work_on_the_run(first):
    """Those that need a finished run; tests/test_docs.py knows the others."""
    text = (ROOT / "README.md").read_text()
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    commands = [line[1:] for line in lines if line[:1] == ["plateau"] and line[1:]]
    served = first.pushed
    for words in commands:
        if words[0] in ("report", "runs"):
            done = plateau(*words, output=first.output)
            assert done.status == 0, (words, done.err)
        if words[0] == "predict":
            images = first.output / "data" / "digits" / "test"
            done = predict(first.output, images, *words[3:])
            assert done.status == 0, done.err
            assert (first.output.parent / "predictions.csv").is_file()
    assert first.pushed == served
    assert {words[0] for words in commands} >= {"report", "runs", "predict", "rollback", "bless"}


@pytest.fixture(scope="module")
def other(first):
    """A run that searches, and pushes another model into the folder of the first."""
    flags = ("--tune", 2, "--max-epochs", 2, "--min-accuracy", 0, "--min-class-accuracy", 0)
    done = plateau("run", "digits", *flags, "--max-accuracy-drop", 1, output=first.output)
    assert done.status == 0, done.out + done.err
    return done


def test_a_flag_of_the_schedule_trains_again(other):
    assert other.component("Transform") == "cached"
    assert other.component("Trainer") == "run"


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


def test_a_search_finds_hyperparameters_that_the_trainer_takes(other):
    assert "trial  1/2  learning_rate 0.2  batch_size 16" in other.out
    (found,) = other.files("Tuner", "best_hyperparameters")
    values = json.loads(Path(found).read_text())["values"]
    assert f"lr {values['learning_rate']:.3g}" in other.out
    assert f"batch {values['batch_size']}" in other.out.split("▸ Trainer")[1]


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
