import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import schemas
from components.image_example_gen.image import prepare
from examples import IMAGE_CONFIG, TABLE_CONFIG, TABLE_ROWS, analyze, example, picture
from schemas import columns
from tests.image_kinds import CONVERTED, SERVED, shown
from trainer_module.config import TableFeatures, TrainConfig
from trainer_module.serving.signatures import export

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def images(tmp_path_factory, image_transform):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Flatten()(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    folder = str(tmp_path_factory.mktemp("images") / "model")
    export(model, image_transform, IMAGE_CONFIG, folder)
    return model, folder


@pytest.fixture(scope="module")
def signatures(images):
    """Those of the image model, loaded."""
    # The functions live as long as the model.
    model = tf.saved_model.load(images[1])
    yield model.signatures
    del model


@pytest.fixture(scope="module")
def table(tmp_path_factory, table_transform):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    folder = str(tmp_path_factory.mktemp("table") / "model")
    export(model, table_transform, TABLE_CONFIG, folder)
    return model, folder


@pytest.fixture(scope="module")
def expected(images, image_records, image_transform):
    """Logits of the model on what the preprocessing graph makes of the records."""
    features = tf.io.parse_example(image_records, image_transform.raw_feature_spec())
    return images[0](image_transform.transform_features_layer()(features)["x"]).numpy()


def test_tensorflow_2_loads_and_predicts(images, image_records, expected):
    signature = tf.saved_model.load(images[1]).signatures["serving_default"]
    out = signature(examples=tf.constant(image_records))
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(out["probabilities"], 1), 1, rtol=1e-6)
    names = np.array([b"dark", b"light"])
    np.testing.assert_array_equal(out["class"][:, 0], names[expected.argmax(1)])
    np.testing.assert_array_equal(out["classes"], np.tile(names, (40, 1)))


def test_the_tensorflow_1_loader_does_too(images, image_records, expected):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], images[1])
        signature = graph.signature_def["serving_default"]
        feed = {signature.inputs["examples"].name: image_records}
        logits = session.run(signature.outputs["logits"].name, feed)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_run_inference_does_too(images, image_records, expected, tmp_path):
    import apache_beam as beam
    from tfx_bsl.public.beam import RunInference
    from tfx_bsl.public.proto import model_spec_pb2

    spec = model_spec_pb2.InferenceSpecType(
        saved_model_spec=model_spec_pb2.SavedModelSpec(model_path=images[1])
    )
    out = str(tmp_path / "logs")
    with beam.Pipeline() as pipeline:
        (
            pipeline
            | beam.Create([tf.train.Example.FromString(r) for r in image_records])
            | RunInference(spec)
            | beam.Map(lambda log: log.SerializeToString())
            | beam.io.WriteToTFRecord(out, shard_name_template="")
        )
    from tensorflow_serving.apis import prediction_log_pb2

    logits = {}
    for record in tf.data.TFRecordDataset(out).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
        request = log.request.inputs["examples"].string_val[0]
        name = tf.train.Example.FromString(request).features.feature["file_name"]
        number = int(name.bytes_list.value[0])
        logits[number] = tf.make_ndarray(log.response.outputs["logits"])[0]
    got = np.array([logits[i] for i in range(40)])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_serves_encoded_pictures(images, image_records, expected):
    signature = tf.saved_model.load(images[1]).signatures["serving_images"]
    pictures = [
        tf.train.Example.FromString(r).features.feature["image"].bytes_list.value[0]
        for r in image_records
    ]
    out = signature(image=tf.constant(pictures))
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [*SERVED, *CONVERTED])
def test_a_file_is_answered_as_the_example_stored_of_it_or_refused(signatures, kind):
    """What ImageExampleGen stores is what is trained on and evaluated."""
    content = SERVED[kind] if kind in SERVED else CONVERTED[kind][0]
    stored = prepare(content).content
    expected = signatures["serving_default"](examples=tf.constant([example(image=stored)]))
    asked = {"serving_images": ("image", content)}
    asked["serving_default"] = ("examples", example(image=content))
    labelled = example(image=content, label=b"dark", file_name=b"a")
    for name, (key, value) in asked.items():
        request = {key: tf.constant([value])}
        if kind in CONVERTED:
            with pytest.raises(tf.errors.InvalidArgumentError, match="convert it to PNG"):
                signatures[name](**request)
        else:
            np.testing.assert_array_equal(signatures[name](**request)["logits"], expected["logits"])
    pixels = signatures["transform_features"]
    if kind in CONVERTED:
        with pytest.raises(tf.errors.InvalidArgumentError, match="convert it to PNG"):
            pixels(examples=tf.constant([labelled]))


def test_the_tensorflow_1_loader_answers_files_of_every_kind_alike(images, signatures):
    kinds = list(SERVED.values())
    by_kind = signatures["serving_images"](image=tf.constant(kinds))
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], images[1])
        signature = graph.signature_def["serving_images"]
        feed = {signature.inputs["image"].name: kinds}
        logits = session.run(signature.outputs["logits"].name, feed)
    np.testing.assert_allclose(logits, by_kind["logits"], rtol=1e-5, atol=1e-6)


def test_the_model_sees_what_pillow_shows(signatures):
    for kind, content in SERVED.items():
        (x,) = signatures["transform_features"](
            examples=tf.constant([example(image=content, label=b"dark", file_name=b"a")])
        )["x"]
        seen = tf.image.resize(shown(content), [8, 8], antialias=True)
        assert np.abs(x - np.round(seen)).max() <= (6 if content.startswith(b"\xff\xd8") else 1), (
            kind
        )


def test_a_request_needs_no_label(images, image_records):
    signature = tf.saved_model.load(images[1]).signatures["serving_default"]
    bare = tf.train.Example.FromString(image_records[0])
    for name in ("label", "file_name"):
        del bare.features.feature[name]
    with_label = signature(examples=tf.constant(image_records[:1]))
    without = signature(examples=tf.constant([bare.SerializeToString()]))
    np.testing.assert_array_equal(with_label["logits"], without["logits"])


def test_an_empty_request_gives_an_empty_answer(images):
    signature = tf.saved_model.load(images[1]).signatures["serving_default"]
    assert signature(examples=tf.constant([], tf.string))["probabilities"].shape == (0, 2)


def test_a_corrupt_picture_is_an_error_and_the_model_goes_on(images, image_records):
    loaded = tf.saved_model.load(images[1])
    with pytest.raises(tf.errors.InvalidArgumentError):
        loaded.signatures["serving_images"](image=tf.constant([b"no picture"]))
    loaded.signatures["serving_default"](examples=tf.constant(image_records[:1]))


def test_one_bad_picture_among_good_ones_is_an_error_that_says_why(images, image_records):
    signatures = tf.saved_model.load(images[1]).signatures
    junk = example(image=b"no picture")
    for name, key, good, bad, why in (
        ("serving_images", "image", picture(9), b"no picture", "Unknown image file format"),
        ("serving_images", "image", picture(9), b"", "Input is empty"),
        ("serving_images", "image", picture(9), picture(9)[:-20], "Invalid PNG"),
        ("serving_default", "examples", image_records[0], junk, "Unknown image file format"),
        ("serving_default", "examples", image_records[0], b"/junk", "Could not parse example"),
        ("serving_default", "examples", image_records[0], b"", "image.*is required"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            signatures[name](**{key: tf.constant([good, bad, good])})
        assert re.search(why, str(error.value))
        assert signatures[name](**{key: tf.constant([good])})["class"].shape == (1, 1)


ASK = """
import resource, sys
sys.modules["keras"] = sys.modules["tf_keras"] = None
import tensorflow as tf

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder, file = sys.argv[1:]
picture = tf.io.read_file(file)
ask = tf.saved_model.load(folder).signatures["serving_images"]
ask(image=tf.fill([256], picture))
before = peak()
answer = ask(image=tf.fill([10_000], picture))
assert answer["probabilities"].shape == (10_000, 2)
print(peak() - before)
"""


def test_ten_thousand_pictures_take_the_memory_of_a_few(image_transform, tmp_path):
    inputs = keras.Input((8, 8, 3))
    # 256 KB a picture, and so 2.5 GB for all of them at once.
    wide = keras.layers.Dense(64_000)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(wide))
    export(model, image_transform, IMAGE_CONFIG, str(tmp_path / "model"))
    (tmp_path / "picture").write_bytes(picture(9))
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path / "model"), str(tmp_path / "picture")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300


def test_transform_signatures_keep_the_label(images, image_records):
    signatures = tf.saved_model.load(images[1]).signatures
    features = signatures["transform_features"](examples=tf.constant(image_records))
    assert features["x"].shape == (40, 8, 8, 3)
    assert features["label_xf"].numpy()[:, 0].tolist() == [0, 1] * 20
    labels = signatures["transform_labels"](examples=tf.constant(image_records))
    assert set(labels) == {"label_xf"}
    np.testing.assert_array_equal(labels["label_xf"], features["label_xf"])


def test_table_columns_and_examples_agree(table):
    signatures = tf.saved_model.load(table[1]).signatures
    records = [
        example(miles=row["miles"], hour=row["hour"], company=row["company"]) for row in TABLE_ROWS
    ]
    by_example = signatures["serving_default"](examples=tf.constant(records))
    by_column = signatures["serving_columns"](
        miles=tf.constant([np.nan if r["miles"] is None else r["miles"] for r in TABLE_ROWS]),
        hour=tf.constant([r["hour"] for r in TABLE_ROWS], tf.int64),
        company=tf.constant([r["company"] or b"" for r in TABLE_ROWS]),
    )
    np.testing.assert_allclose(by_example["logits"], by_column["logits"], rtol=1e-5)
    assert by_example["classes"][0].numpy().tolist() == [b"small", b"big"]


NASTY = ("petal width (cm)", "% fat", "Größe", "_id", "self", "a b", "a_b", "A_B", "", "1st", "a.b")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """A model of columns with such names, of every type, required and optional in turn."""
    kinds = (tf.float32, tf.int64, tf.string)
    types = {name: kinds[i % 3] for i, name in enumerate(NASTY)}
    spec = {
        name: tf.io.FixedLenFeature([], kind) if i % 2 else tf.io.VarLenFeature(kind)
        for i, (name, kind) in enumerate(types.items())
    }
    spec["label"] = tf.io.FixedLenFeature([], tf.string)
    values = {tf.float32: 1.5, tf.int64: 7, tf.string: b"x"}
    rows = [
        {
            "label": f"{i % 2}".encode(),
            **{
                name: values[kind] if isinstance(spec[name], tf.io.FixedLenFeature) else []
                for name, kind in types.items()
            },
        }
        for i in range(4)
    ]
    for row in rows[::2]:
        row |= {n: [values[k]] for n, k in types.items() if row[n] == []}
    config = TrainConfig(
        features=TableFeatures(
            numeric=tuple(n for n, k in types.items() if k != tf.string),
            categorical=tuple(n for n, k in types.items() if k != tf.float32),
            vocabulary_size=3,
        ),
        classes=("0", "1"),
    )
    transform = analyze(tmp_path_factory.mktemp("nasty"), config, spec, rows)
    width = transform.transformed_feature_spec()["x"].shape[0]
    inputs = keras.Input((width,))
    keras.utils.set_random_seed(0)
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    folder = tmp_path_factory.mktemp("nasty") / "model"
    export(model, transform, config, str(folder))
    return folder, types, spec


def test_columns_of_any_name_are_served_under_valid_ones(nasty):
    folder, types, spec = nasty
    given = columns.parse((folder / columns.FILE).read_bytes())
    assert {each.column for each in given.values()} == set(NASTY)
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures["serving_columns"].structured_input_signature[1]) == set(given)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        assert set(graph.signature_def["serving_columns"].inputs) == set(given)

    values = {"float32": 2.5, "int64": 7, "string": b"x"}
    here = {name: values[each.dtype] for name, each in given.items()}
    missing = {
        name: here[name]
        if each.missing is None
        else float("nan")
        if each.missing == "NaN"
        else each.missing
        for name, each in given.items()
    }
    tensors = {name: tf.constant([here[name], missing[name]], given[name].dtype) for name in given}
    by_column = signatures["serving_columns"](**tensors)["logits"]
    whole = {each.column: here[name] for name, each in given.items()}
    optional = [n for n in NASTY if isinstance(spec[n], tf.io.VarLenFeature)]
    assert {types[name] for name in optional} == {tf.float32, tf.int64, tf.string}
    examples = [example(**whole), example(**{n: v for n, v in whole.items() if n not in optional})]
    by_example = signatures["serving_default"](examples=tf.constant(examples))["logits"]
    np.testing.assert_allclose(by_column, by_example, rtol=1e-5)
    assert not np.allclose(by_column[0], by_column[1])


@pytest.mark.parametrize(("kind", "config"), [("images", IMAGE_CONFIG), ("table", TABLE_CONFIG)])
def test_the_classes_stand_beside_the_graph(request, kind, config):
    _, folder = request.getfixturevalue(kind)
    known = json.loads((Path(folder) / schemas.CLASSES_FILE).read_text())
    # The label of the table is made of two columns.
    label = {"task": "classification", "label": None} if kind == "table" else {}
    assert known == {"kind": kind, "classes": list(config.classes), **label}
