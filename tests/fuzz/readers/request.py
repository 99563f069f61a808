"""A request to a real SavedModel, by both signatures that take pictures."""

from typing import Any

import numpy as np
import tensorflow as tf

from tests.fuzz.reader import Reader, scratch
from tests.fuzz.readers import image


def reader() -> Reader:
    signatures = model(str(scratch() / "model"))
    pictures = image.reader().seeds
    examples = [example(picture) for picture in pictures]

    def check(data: bytes) -> None:
        for key, name, good in (
            ("image", "serving_images", pictures[0]),
            ("examples", "serving_default", examples[0]),
        ):
            for batch in ([data], [good, data]):
                ask(signatures[name], key, batch)
        # It goes on to answer.
        assert ask(signatures["serving_images"], "image", [pictures[0]])

    return Reader(check, [*pictures, *examples, b"", b"/junk"], memory=4096, patience=60)


def ask(signature: Any, key: str, batch: list[bytes]) -> bool:
    try:
        answer = signature(**{key: tf.constant(batch, tf.string)})
    # Python reads TensorFlow's message, which repeats the example, as UTF-8.
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
        assert str(error)
        return False
    probabilities = answer["probabilities"].numpy()
    assert probabilities.shape == (len(batch), 2)
    assert np.isfinite(probabilities).all()
    return True


def example(picture: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))
    return tf.train.Example(
        features=tf.train.Features(feature={"image": feature})
    ).SerializeToString()


def model(folder: str) -> Any:
    """The signatures of a small model, exported as the Trainer does and loaded again."""
    import keras
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform import TFTransformOutput
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils

    from trainer_module.config import ImageFeatures, TrainConfig
    from trainer_module.preprocessing import preprocessing_fn
    from trainer_module.serving.signatures import export

    config = TrainConfig(ImageFeatures(height=8, width=8), ("dark", "light"))
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label", "file_name")}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    custom = {"preprocessing": config.preprocessing_json()}
    rows = [{"image": image.encode(image.COLOUR, "PNG"), "label": b"dark", "file_name": b"a"}]
    with tft_beam.Context(temp_dir=f"{folder}-tmp"):
        graph = (rows, metadata) | tft_beam.AnalyzeDataset(lambda x: preprocessing_fn(x, custom))
        _ = graph | tft_beam.WriteTransformFn(f"{folder}-transform")
    metadata_io.write_metadata(metadata, f"{folder}-transform/metadata")
    inputs = keras.Input((8, 8, 3))
    logits = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    export(keras.Model(inputs, logits), TFTransformOutput(f"{folder}-transform"), config, folder)
    return tf.saved_model.load(folder).signatures
