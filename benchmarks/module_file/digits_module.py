"""The module file of `benchmarks.smallest`: what TFX calls in Transform and Trainer.

Alone in its folder, since TFX packs a module file together with its neighbours.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras  # type: ignore[import-untyped]
from tfx import v1 as tfx
from tfx_bsl.public.tfxio import TensorFlowDatasetOptions

BATCH = 32
CLASSES = 10


def preprocessing_fn(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Images decoded; the label as it is."""
    images = tf.map_fn(
        lambda content: tf.io.decode_png(content, channels=1),
        tf.reshape(inputs["image"], [-1]),
        fn_output_signature=tf.TensorSpec([None, None, 1], tf.uint8),
    )
    images = tf.ensure_shape(images, [None, 8, 8, 1])
    return {"image_xf": tf.cast(images, tf.float32), "label_xf": inputs["label"]}


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Train and save."""
    transform = tft.TFTransformOutput(fn_args.transform_output)

    def dataset(files: list[str]) -> Any:
        return fn_args.data_accessor.tf_dataset_factory(
            files,
            TensorFlowDatasetOptions(batch_size=BATCH, label_key="label_xf"),
            transform.transformed_metadata.schema,
        ).repeat()

    model = build()
    model.fit(
        dataset(fn_args.train_files),
        steps_per_epoch=fn_args.train_steps,
        epochs=fn_args.custom_config["epochs"],
        validation_data=dataset(fn_args.eval_files),
        validation_steps=fn_args.eval_steps,
        verbose=0,
    )
    model.tft_layer = transform.transform_features_layer()
    signatures = {
        "serving_default": serving(model, transform),
        "transform_features": transforming(model, transform),
    }
    model.save(fn_args.serving_model_dir, save_format="tf", signatures=signatures)


def build() -> Any:
    """The network that the preset digits has, with Keras's own layers."""
    inputs = keras.Input((8, 8, 1), name="image_xf")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    for filters in (32, 64):
        for _ in range(2):
            x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.ReLU()(x)
        if filters == 32:
            x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["sparse_categorical_accuracy"],
    )
    return model


def serving(model: Any, transform: tft.TFTransformOutput) -> Any:
    """The signature that answers serialized examples, which need no label."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])  # type: ignore[untyped-decorator]
    def serve(examples: Any) -> Any:
        spec = transform.raw_feature_spec()
        spec.pop("label")
        return {"outputs": model(model.tft_layer(tf.io.parse_example(examples, spec))["image_xf"])}

    return serve


def transforming(model: Any, transform: tft.TFTransformOutput) -> Any:
    """The signature by which the Evaluator transforms examples."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])  # type: ignore[untyped-decorator]
    def transform_features(examples: Any) -> Any:
        return model.tft_layer(tf.io.parse_example(examples, transform.raw_feature_spec()))

    return transform_features
