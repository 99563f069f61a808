"""Small real data for the tests of this folder."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from trainer_module.config import ImageFeatures, TableFeatures, TrainConfig
from trainer_module.history import EpochRecord, History

IMAGE_CONFIG = TrainConfig(features=ImageFeatures(height=8, width=8), classes=("dark", "light"))
TABLE_CONFIG = TrainConfig(
    features=TableFeatures(
        numeric=("miles",),
        bucketized=("hour",),
        categorical=("company",),
        buckets=3,
        vocabulary_size=4,
        label="tips",
        label_over="fare",
        label_ratio=0.2,
    ),
    classes=("small", "big"),
)


def picture(value: int, size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "RGB"):
    data = io.BytesIO()
    color = value if mode == "L" else (value, value, value)
    Image.new(mode, size, color).save(data, kind)
    return data.getvalue()


def example(**features):
    import tensorflow as tf

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    named = {name: feature(value) for name, value in features.items() if value is not None}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write_records(path: Path, records: Sequence[bytes]) -> str:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        for record in records:
            writer.write(record)
    return str(path)


def analyze(folder: Path, config: TrainConfig, spec: Mapping, rows: Sequence[Mapping]):
    """Run the preprocessing graph's analyzers on rows, with TensorFlow Transform itself."""
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils

    from trainer_module.preprocessing import preprocessing_fn

    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    custom = {"preprocessing": config.preprocessing_json()}
    with tft_beam.Context(temp_dir=str(folder / "tmp")):
        graph = (rows, metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, custom)
        )
        out = folder / "transform"
        graph | tft_beam.WriteTransformFn(str(out))
    metadata_io.write_metadata(metadata, str(out / "metadata"))
    return tft.TFTransformOutput(os.fspath(out))


TABLE_ROWS = [
    {"miles": 1.0, "hour": 1, "company": b"A", "tips": 0.0, "fare": 10.0},
    {"miles": 3.0, "hour": 5, "company": b"A", "tips": 3.0, "fare": 10.0},
    {"miles": 5.0, "hour": 9, "company": b"B", "tips": 2.0, "fare": 10.0},
    {"miles": None, "hour": 7, "company": None, "tips": 9.0, "fare": 10.0},
]


def record(epoch, action="none", best=False):
    return EpochRecord(
        epoch=epoch,
        metrics={"accuracy": 0.2 * epoch, "val_accuracy": 0.1 * epoch},
        learning_rate=0.05,
        batch_size=64,
        update_noise=12.5,
        simple_noise_scale=99.0 if epoch > 1 else None,
        updates=10 * epoch,
        examples=640 * epoch,
        seconds=1.5 * epoch,
        action=action,
        reason="[red]why" if action != "none" else "",
        best=best,
    )


HISTORY = History(
    config={"batch_size": 64},
    monitor="val_accuracy",
    mode="max",
    epochs=(record(1, best=True), record(2, best=True), record(3, "batch_increase")),
    stop_reason="enough",
    traces={"train_step": 1},
)
