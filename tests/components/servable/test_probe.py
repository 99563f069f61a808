from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from components.image_example_gen.image import prepare
from components.servable import probe, process, verdict
from components.servable.measurement import (
    Finding,
    Latency,
    Loaded,
    Measurement,
    Predictions,
    Requests,
    Signature,
    Stage,
)
from tests.image_kinds import CONVERTED

EVALUATION = {
    "signature": "serving_default",
    "prediction_key": "probabilities",
    "label_key": "label_xf",
    "preprocessing": ["labels"],
}
ENDED = verdict.Ending(verdict.CLEAN)


@pytest.fixture
def measure(
    export: Callable[..., Path], examples: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Measurement]]:
    """Saves a model and sends it requests, in this process."""
    monkeypatch.setattr(probe, "MAX_TIMED", probe.MIN_TIMED)

    def run(model: tf.Module, signatures: Any = None, **job: Any) -> list[Measurement]:
        folder = export(model, signatures)
        given = {"leave_out": (), "label": "label", "evaluation": None, **job}
        found: list[Measurement] = []
        probe.run(probe.Job(str(folder), [str(examples)], **given), found.append)
        return found

    return run


def failed(found: list[Measurement]) -> dict[str, str]:
    checks = verdict.judge(found, ENDED, 1.0, verdict.Limits(), verdict.Evaluated())
    return {check.rule: check.value for check in checks if check.passed is False}


def of_rule(found: list[Measurement], rule: str) -> list[Finding]:
    return [each for each in found if isinstance(each, Finding) and each.rule == rule]


def one(found: list[Measurement], kind: type[Any]) -> Any:
    (only,) = (each for each in found if isinstance(each, kind))
    return only


def test_a_good_model(measure: Any, make_model: Any) -> None:
    found = measure(make_model(), evaluation=EVALUATION)
    assert failed(found) == {}
    loaded = one(found, Loaded)
    assert (loaded.tensorflow, loaded.arithmetic) == (tf.__version__, "float32")
    assert one(found, Requests).examples == 40
    assert {rule for rule in verdict.RULES if of_rule(found, rule)} == (
        verdict.RULES.keys() - {verdict.ORIGINALS}
    )
    names = [each.name for each in found if isinstance(each, Signature)]
    assert names == ["labels", "serving_columns", "serving_default"]
    corrupt = of_rule(found, verdict.CORRUPT)
    assert len(corrupt) == 2, "of labels and serving_default; serving_columns takes no strings"
    assert all("Could not parse example input" in each.refusal for each in corrupt)
    for each in found:
        if isinstance(each, Latency):
            assert each.requests >= probe.MIN_TIMED
            assert 0 < each.p50_ms <= each.p99_ms
    predictions = one(found, Predictions)
    assert predictions.examples == 40
    assert predictions.accuracy == predictions.accuracy_by_name == 0.75


@pytest.mark.parametrize(
    ("largest", "size"),
    [(0, 256), (100, 256), (2**17, 256), (2**18, 128), (2**22, 8), (2**24, 2), (2**30, 2)],
)
def test_the_large_request_is_bounded_in_bytes(largest: int, size: int) -> None:
    assert probe.batch_size(largest) == size


def test_of_large_examples_a_few_are_enough(
    measure: Any, make_model: Any, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(map(len, probe.records([str(examples)]).as_numpy_iterator()))
    monkeypatch.setattr(probe, "BATCH_BYTES", 4 * largest)
    found = measure(make_model(), evaluation=EVALUATION)
    assert failed(found) == {}
    assert one(found, Requests).examples == 4
    asked = {
        each.doing.split("about ")[1] for each in found if "about" in getattr(each, "doing", "")
    }
    assert asked == {f"{n} example(s)" for n in (0, 1, 4)} | {"single examples"}
    assert one(found, Predictions).examples == 40, "the whole split, four at a time"


def nan(x: Any) -> Any:
    return {"y": tf.math.log(x - 100)}


def centred(x: Any) -> Any:
    """As a model does that keeps normalising by the batch after training."""
    return {"y": x - tf.reduce_mean(x, axis=0)}


def positive(x: Any) -> Any:
    return {"y": tf.boolean_mask(x, x[:, 0] > 0)}


def random(x: Any) -> Any:
    return {"y": x * tf.cast(tf.random.uniform(tf.shape(x)) > 0.5, tf.float32)}


@pytest.mark.parametrize(
    ("outputs", "check", "value"),
    [
        (nan, "finite", "768 of 768 values of y"),
        (centred, "batch of 1", "y: differs by up to"),
        (positive, "shapes and types", "not float32 [256, 3]"),
        (random, "batch of 1", "y: differs by up to"),
    ],
)
def test_broken_models(measure: Any, make_model: Any, outputs: Any, check: str, value: str) -> None:
    problems = failed(measure(make_model(outputs)))
    assert value in problems[check]


def test_signatures_that_disagree(measure: Any, make_model: Any) -> None:
    model = make_model(lambda x: {"y": x}, lambda x: {"y": x + 0.5})
    problems = failed(measure(model))
    assert list(problems) == ["signatures agree"]
    assert "serving_default and serving_columns: y: differs by up to 0.5" in str(problems)


def test_a_signature_can_be_left_out(measure: Any, make_model: Any) -> None:
    model = make_model(lambda x: {"y": x}, lambda x: {"y": x + 0.5})
    assert failed(measure(model, leave_out=["serving_columns"])) == {}


def test_an_answer_to_anything(measure: Any, make_model: Any) -> None:
    def length(examples: Any) -> Any:
        return {"length": tf.strings.length(examples)}

    spec = tf.TensorSpec([None], tf.string, name="examples")
    model = make_model()
    problems = failed(measure(model, {"s": tf.function(length).get_concrete_function(spec)}))
    assert list(problems) == ["corrupt input"]
    assert problems["corrupt input"].endswith("answered as if it were good")


class Decoder(tf.Module):
    """A model of images that are decoded as TensorFlow does it, without regard to what they are."""

    def signatures(self, refuse: bool = False) -> dict[str, Any]:
        spec = {"image": tf.io.FixedLenFeature([], tf.string)}

        def mean(image: Any) -> dict[str, Any]:
            if refuse:
                is_png = tf.strings.regex_full_match(tf.strings.substr(image, 1, 3), "PNG")
                tf.debugging.Assert(tf.reduce_all(is_png), ["an image must be a PNG"])
            pixels = tf.map_fn(
                lambda one: tf.reduce_mean(
                    tf.cast(tf.io.decode_image(one, 3, expand_animations=False), tf.float32)
                ),
                image,
                fn_output_signature=tf.float32,
            )
            return {"mean": pixels}

        strings = tf.TensorSpec([None], tf.string, name="image")
        examples = tf.TensorSpec([None], tf.string, name="examples")
        on_examples = tf.function(
            lambda examples: mean(tf.io.parse_example(examples, spec)["image"])
        )
        return {
            "serving_images": tf.function(mean).get_concrete_function(strings),
            "serving_default": on_examples.get_concrete_function(examples),
        }


@pytest.mark.parametrize("refuse", [False, True])
def test_files_that_were_converted_are_sent_too(
    export: Any, tmp_path: Path, example: Any, refuse: bool
) -> None:
    """The palette of a BMP is nothing that TensorFlow looks at: it answers from other pixels."""
    bmp, _ = CONVERTED["palette bmp"]
    contents = [prepare(bmp).content, bmp]
    pair = [example({"image": [c], "file_name": [b"a/1.bmp"]}) for c in contents]
    files = {"split": pair[:1] * 4, "originals": pair}
    for name, records in files.items():
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}.gz"), "GZIP") as writer:
            for record in records:
                writer.write(record)
    model = Decoder()
    folder = export(model, model.signatures(refuse))
    split, originals = (str(tmp_path / f"{name}.gz") for name in files)
    found: list[Measurement] = []
    job = probe.Job(str(folder), [split], (), "label", None, originals)
    probe.run(job, found.append)
    sent = {each.doing for each in found if isinstance(each, Stage) if "a/1.bmp" in each.doing}
    assert sent == {f"sending a/1.bmp to {name}" for name in ("serving_images", "serving_default")}
    checks = verdict.judge(found, ENDED, 1.0, verdict.Limits(), verdict.Evaluated())
    (check,) = (check for check in checks if check.rule == "original files")
    if refuse:
        assert check.passed
        assert check.value == "2 requests, 2 refused"
        assert "an image must be a PNG" in check.note
    else:
        assert check.passed is False
        assert "serving_images, a/1.bmp: mean: differs by up to" in check.value


def test_an_empty_batch_may_be_refused(measure: Any, make_model: Any) -> None:
    def some(x: Any) -> Any:
        tf.debugging.assert_positive(tf.shape(x)[0], "there must be examples")
        return {"y": x}

    found = measure(make_model(some))
    assert failed(found) == {}
    (check,) = (
        each
        for each in verdict.judge(found, ENDED, 1.0, verdict.Limits(), verdict.Evaluated())
        if each.rule == "empty batch"
    )
    assert check.value == "3 requests, 2 refused"
    assert "there must be examples" in check.note


def test_coarse_arithmetic_is_seen(measure: Any, make_model: Any) -> None:
    def half(x: Any) -> Any:
        return {"y": tf.cast(tf.cast(x, tf.bfloat16) * 2, tf.float32)}

    found = measure(make_model(half))
    assert one(found, Loaded).arithmetic == "bfloat16"
    assert failed(found) == {}


def test_a_model_that_python_loads_and_a_model_server_does_not(measure: Any) -> None:
    """Keras 3 names its variables so that a session misses them if the model is saved as it is."""
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    serve = tf.function(lambda x: {"y": model(x)}).get_concrete_function(spec)
    problems = failed(measure(model, {"serving_default": serve}))
    assert list(problems) == ["session"]
    assert "Could not find variable" in problems["session"]


def test_nothing_to_send_the_examples_to(measure: Any, make_model: Any) -> None:
    def double(y: Any) -> Any:
        return {"z": 2 * y}

    spec = tf.TensorSpec([None], tf.float32, name="y")
    found = measure(make_model(), {"s": tf.function(double).get_concrete_function(spec)})
    problems = failed(found)
    assert list(problems) == ["signatures"]
    assert "its input y (float32 [N]) is no feature of the examples" in problems["signatures"]


def test_what_is_no_model(tmp_path: Path, examples: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    found: list[Measurement] = []
    job = probe.Job(str(tmp_path), [str(examples)], (), "label", None)
    probe.run(job, found.append)
    assert one(found, Loaded).error
    assert list(failed(found)) == ["loads"]


def test_records_of_several_files(tmp_path: Path) -> None:
    for name, options in (("a.gz", "GZIP"), ("b", "")):
        with tf.io.TFRecordWriter(str(tmp_path / name), options) as writer:
            writer.write(name.encode())
    files = [str(tmp_path / name) for name in ("b", "a.gz")]
    assert list(probe.records(files).as_numpy_iterator()) == [b"b", b"a.gz"]


def test_no_examples(export: Callable[..., Path], make_model: Any, empty_split: Path) -> None:
    found: list[Measurement] = []
    job = probe.Job(str(export(make_model())), [str(empty_split)], (), "label", None)
    probe.run(job, found.append)
    assert one(found, Requests).examples == 0
    assert not any(isinstance(each, Loaded) for each in found)


def test_the_process_loads_nothing_a_server_lacks(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['keras'] = sys.modules['tf_keras'] = None\n"
        "import components.servable.probe\n"
        "lacks = ('tfx', 'tfx_bsl', 'apache_beam', 'tensorflow_transform', 'trainer_module')\n"
        "loaded = {name for name in sys.modules if name.split('.')[0] in lacks}\n"
        "light = {f'trainer_module.util.{name}' for name in ('checks', 'lazy', 'text')}\n"
        "loaded -= {'trainer_module', 'trainer_module.util', *light}\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    assert process.run(["-c", code], tmp_path, 300) == verdict.Ending(verdict.CLEAN)
