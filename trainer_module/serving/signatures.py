"""SavedModel signatures, which take raw data: the preprocessing graph and the model together."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

import schemas
from schemas import columns
from trainer_module.config import ImageFeatures, TableFeatures, TrainConfig
from trainer_module.preprocessing import INPUT, LABEL
from trainer_module.serving.request import bounded, in_parts
from trainer_module.serving.saved_model import export_model
from trainer_module.target import Target

EXAMPLES = "examples"


def export(
    model: keras.Model,
    transform: tft.TFTransformOutput,
    config: TrainConfig,
    directory: str,
    target: Target | None = None,
) -> None:
    """Writes a SavedModel that takes raw data.

    Signatures, each returning "probabilities" and "logits" (float32 [N, C]), "class" (string
    [N, 1], the most probable one) and "classes" (string [N, C], the names in column order), or for
    a regression "prediction" (float32 [N, 1], in the label's unit):

    *   serving_default: "examples", string [N], serialized tf.Examples without label;
    *   serving_images (images): "image", string [N], encoded images;
    *   serving_columns (tables): a tensor [N] for each raw column that features are made of, named
        by `columns.served_names`. In a column that may be empty, an empty string, NaN and
        `columns.MISSING_INTEGER` are missing values. `columns.FILE` lists the inputs.

    A large request is computed in parts, so that its memory is bounded (`serving.request`).
    What cannot be parsed or decoded, is too large an image or one that `bounded` refuses, makes
    the whole request an error: there is no answer that would be right for it.

    Two more take "examples" with labels: transform_features returns what preprocessing makes of
    them ("x" and "label_xf" [N, 1]), and transform_labels only the latter.

    `schemas.CLASSES_FILE` beside the graph names task and classes for who must not run it.

    Args:
        model: Model from "x" to logits, or to the standardised number of a regression [N, 1].
        transform: The preprocessing graph.
        config: Config the model was trained with.
        directory: Folder to write.
        target: Scale of a regression's label; None for classes.
    """
    # Label and file name are no part of a request.
    raw = transform.raw_feature_spec()
    inputs = {name: raw[name] for name in _input_names(config)}
    names = columns.served_names(inputs)
    serving, labelled = transform.transform_features_layer(), transform.transform_features_layer()

    def checked(features: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(config.features, ImageFeatures):
            return features
        return {**features, schemas.IMAGE: _mapped(bounded, features[schemas.IMAGE])}

    def predict(
        request: Mapping[str, tf.Tensor], parse: Callable[[Mapping[str, tf.Tensor]], Any]
    ) -> dict[str, tf.Tensor]:
        def output(part: Mapping[str, tf.Tensor]) -> tf.Tensor:
            x = serving(checked(parse(part)))[INPUT]
            y = model(_not_empty(x), training=False)[: tf.shape(x)[0]]
            return tf.cast(y, tf.float32)

        outputs = in_parts(output, request)
        if target is not None:
            return {"prediction": target.label(tf.ensure_shape(outputs, [None, 1]))}
        return _outputs(outputs, config.classes)

    def from_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return predict(
            {EXAMPLES: examples}, lambda part: tf.io.parse_example(part[EXAMPLES], inputs)
        )

    def from_columns(request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return predict(
            request,
            lambda part: {
                column: _as_parsed(part[names[column]], spec) for column, spec in inputs.items()
            },
        )

    def from_images(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return from_columns({names[schemas.IMAGE]: image})

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        features = labelled(checked(tf.io.parse_example(examples, raw)))
        return {name: features[name] for name in (INPUT, LABEL)}

    def transform_labels(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {LABEL: transform_features(examples)[LABEL]}

    batch = tf.TensorSpec([None], tf.string, name=EXAMPLES)
    endpoints: dict[str, tuple[Callable[..., Any], Any]] = {
        "serving_default": (from_examples, batch),
        "transform_features": (transform_features, batch),
        "transform_labels": (transform_labels, batch),
    }
    if isinstance(config.features, ImageFeatures):
        image = tf.TensorSpec([None], tf.string, name=schemas.IMAGE)
        endpoints["serving_images"] = from_images, image
    else:
        endpoints["serving_columns"] = (
            from_columns,
            {
                names[column]: tf.TensorSpec([None], spec.dtype, name=names[column])
                for column, spec in inputs.items()
            },
        )
    signatures = {
        # AutoGraph would convert Keras's own source, for seconds and nothing.
        name: tf.function(function, input_signature=[signature], autograph=False)
        for name, (function, signature) in endpoints.items()
    }
    export_model(model, directory, signatures, resources=[_held(serving), _held(labelled)])
    classes: dict[str, Any] = {"kind": "images", "classes": config.classes}
    if isinstance(config.features, TableFeatures):
        # A label that is made of several columns is in none of them.
        label = config.features.label if config.features.label_over is None else None
        classes |= {"kind": "table", "task": config.features.task, "label": label}
        described = {names[column]: _described(column, spec) for column, spec in inputs.items()}
        _write(f"{directory}/{columns.FILE}", columns.to_json(described))
    _write(f"{directory}/{schemas.CLASSES_FILE}", json.dumps(classes) + "\n")


def _held(layer: Any) -> tf.Module:
    """Returns the tables that a layer of TensorFlow Transform holds, without the layer.

    To save the layer itself, Keras 2 would trace it once more, for seconds and nothing.
    """
    kind = tf.saved_model.experimental.TrackableResource
    held = tf.Module()
    held.resources = [
        part for part in tf.train.TrackableView(layer).descendants() if isinstance(part, kind)
    ]
    return held


def _write(path: str, text: str) -> None:
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)


def _described(column: str, spec: Any) -> columns.Input:
    dtype = spec.dtype.name
    required = isinstance(spec, tf.io.FixedLenFeature)
    return columns.Input(column, dtype, None if required else columns.MISSING[dtype])


def _input_names(config: TrainConfig) -> tuple[str, ...]:
    features = config.features
    return (schemas.IMAGE,) if isinstance(features, ImageFeatures) else features.inputs


def _not_empty(x: tf.Tensor) -> tf.Tensor:
    """Returns the batch itself, or one example of zeros in place of none.

    On processors with AVX-512, oneDNN's convolution of no images has its input's shape.
    """
    missing = tf.maximum(1 - tf.shape(x)[0], 0)
    return tf.pad(x, [[0, missing], *([0, 0] for _ in x.shape[1:])])


def _outputs(logits: tf.Tensor, classes: tuple[str, ...]) -> dict[str, tf.Tensor]:
    logits = tf.ensure_shape(logits, [None, len(classes)])
    names = tf.constant(classes)
    return {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits),
        # A column, not [N]: RunInference cannot handle a string output of rank one.
        "class": tf.gather(names, tf.argmax(logits, axis=1))[:, None],
        "classes": tf.tile(names[None, :], [tf.shape(logits)[0], 1]),
    }


def _mapped(function: Callable[[tf.Tensor], tf.Tensor], values: Any) -> Any:
    if isinstance(values, tf.SparseTensor):
        return tf.sparse.map_values(function, values)
    return function(values)


def _as_parsed(values: tf.Tensor, spec: Any) -> Any:
    """Returns a dense column [N] in the form that parsing an Example by `spec` has."""
    if isinstance(spec, tf.io.FixedLenFeature):
        return tf.reshape(values, [-1, *spec.shape])
    if values.dtype == tf.string:
        present = tf.not_equal(values, "")
    elif values.dtype.is_floating:
        present = tf.math.is_finite(values)
    else:
        present = tf.not_equal(values, columns.MISSING_INTEGER)
    rows = tf.where(present)
    return tf.SparseTensor(
        tf.concat([rows, tf.zeros_like(rows)], axis=1),
        tf.boolean_mask(values, present),
        [tf.shape(values, tf.int64)[0], 1],
    )
