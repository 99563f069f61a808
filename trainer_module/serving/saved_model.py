"""Export of a Keras 3 model with signatures, as TensorFlow Serving loads it.

`keras.Model.save` writes no SavedModel, and `tf.saved_model.save` writes one that the loader of
TensorFlow 1 cannot read, which TensorFlow Serving and TFX's BulkInferrer use (keras#19274,
tensorflow/serving#2226): `Could not find variable`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trainer_module.util.checks import require


def export_model(
    model: keras.Model,
    directory: str | Path,
    signatures: Mapping[str, Any],
    *,
    resources: Sequence[Any] = (),
) -> None:
    """Writes a SavedModel for TensorFlow Serving, TFMA and BulkInferrer.

    Example, in place of `tf.saved_model.save(model, directory, signatures=signatures)`:

        model.tft_layer = tf_transform_output.transform_features_layer()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(examples):
            features = tf.io.parse_example(examples, feature_spec)
            return {"outputs": model(model.tft_layer(features))}

        export_model(model, directory, {"serving_default": serve})

    Args:
        model: A Keras 3 model.
        directory: Folder to write.
        signatures: Functions by name: `tf.function` with an `input_signature`, or concrete
            functions, as `tf.saved_model.save` takes them.
        resources: What the signatures need beside the model and its attributes, such as a layer of
            TensorFlow Transform.

    Raises:
        ValueError: The model is not built or not of Keras 3, or a signature has no input signature.
    """
    require(
        isinstance(model, keras.Model) and model.built,
        "model must be a Keras 3 model with weights",
        model,
        "Make it with `import keras`, and call it once where its layers are not built.",
    )
    archive = keras.export.ExportArchive()
    for resource in (model, *resources):
        archive.track(resource)
    for name, signature in signatures.items():
        archive.add_endpoint(name, *_endpoint(name, signature))
    archive.write_out(str(directory), verbose=False)


def _endpoint(name: str, signature: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Returns a function and its specs, as `add_endpoint` takes them.

    The function only calls the traced one. Keras and `tf.saved_model.save` each trace what they
    are given, so a function given as it is would be in the file twice.
    """
    if getattr(signature, "input_signature", None) is not None:
        signature = signature.get_concrete_function()
    require(
        isinstance(signature, tf.types.experimental.ConcreteFunction),
        "a signature must be a tf.function with an input_signature, or a concrete function",
        f"{name}: {signature!r}",
        "Decorate it with tf.function(input_signature=[tf.TensorSpec(...)]).",
    )
    positional, named = signature.structured_input_signature

    def call(*values: Any) -> Any:
        count = len(positional)
        return signature(*values[:count], **dict(zip(named, values[count:], strict=True)))

    return call, [*positional, *named.values()]
