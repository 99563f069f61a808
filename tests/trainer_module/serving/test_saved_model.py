"""A Keras 3 model exported with signatures of one's own, loaded as TensorFlow Serving loads it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from examples import TABLE_ROWS, example
from trainer_module import export_model

pytestmark = pytest.mark.component

SPEC = tf.TensorSpec([None], tf.string, name="examples")
RECORDS = [example(**row) for row in TABLE_ROWS]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,), name="x")
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.BatchNormalization()(inputs)))


def by_tensorflow_1(folder, name="serving_default"):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = graph.signature_def[name]
        feed = {signature.inputs["examples"].name: RECORDS}
        return session.run({k: v.name for k, v in signature.outputs.items()}, feed)


def serving(model, transform, layer):
    """A signature as TFX's examples write it, and what it must answer."""
    spec = {k: v for k, v in transform.raw_feature_spec().items() if k not in ("tips", "fare")}

    def features(examples):
        return layer(tf.io.parse_example(examples, spec))["x"]

    @tf.function(input_signature=[SPEC])
    def serve(examples):
        return {"outputs": model(features(examples))}

    expected = model.predict(features(tf.constant(RECORDS)), verbose=0)
    return serve, expected


@pytest.mark.parametrize("concrete", [False, True])
@pytest.mark.parametrize("tracked", ["attribute", "resources"])
@pytest.mark.parametrize("strategy", [None, "mirrored"])
def test_every_loader_gives_the_answer_of_the_model(
    model, table_transform, tmp_path, concrete, tracked, strategy
):
    if strategy:
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            model = keras.models.clone_model(model)
    layer = table_transform.transform_features_layer()
    if tracked == "attribute":
        model.tft_layer = layer
    serve, expected = serving(model, table_transform, layer)
    signature = serve.get_concrete_function() if concrete else serve
    resources = [layer] if tracked == "resources" else []
    export_model(model, tmp_path / "model", {"serving_default": signature}, resources=resources)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    answer = loaded.signatures["serving_default"](examples=tf.constant(RECORDS))["outputs"]
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    answer = by_tensorflow_1(tmp_path / "model")["outputs"]
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    written = saved_model_pb2.SavedModel.FromString(
        (tmp_path / "model/saved_model.pb").read_bytes()
    )
    functions = written.meta_graphs[0].graph_def.library.function
    parsing = [node for f in functions for node in f.node_def if node.op == "ParseExampleV2"]
    assert len(parsing) == 1, "each signature is in the file once"


def test_what_tensorflow_itself_saves_cannot_be_served(model, table_transform, tmp_path):
    """The reason for `export_model`: once this fails, it may go."""
    model.tft_layer = table_transform.transform_features_layer()
    serve, _ = serving(model, table_transform, model.tft_layer)
    tf.saved_model.save(model, str(tmp_path), signatures={"serving_default": serve})
    with pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"):
        by_tensorflow_1(tmp_path)


@pytest.mark.parametrize(
    "signature", [tf.function(lambda examples: examples), lambda examples: examples, None]
)
def test_a_signature_without_specs_is_refused(model, signature, tmp_path):
    with pytest.raises(ValueError, match=r"with an input_signature.*serving_default"):
        export_model(model, tmp_path / "model", {"serving_default": signature})
    assert not (tmp_path / "model").exists()
