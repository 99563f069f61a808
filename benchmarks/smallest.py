"""The smallest TFX pipeline for the job of `plateau run digits`, as TFX's documentation has it.

`python -m benchmarks.smallest IMAGES OUTPUT EPOCHS MIN_ACCURACY` runs it once.
"""

import sys
import time
from pathlib import Path

import tensorflow as tf
from tensorflow_model_analysis.proto import config_pb2
from tfx import v1 as tfx

MODULE = Path(__file__).parent / "module_file" / "digits_module.py"
SPLITS = ("train", "eval", "test")
# An epoch of the 1,078 and 360 images in batches of 32.
TRAIN_STEPS, EVAL_STEPS = 33, 11


def write_records(images: Path, folder: Path) -> None:
    """Write `<folder>/<split>.tfrecord`, since TFX has no component that reads images."""
    folder.mkdir(parents=True)
    for split in SPLITS:
        with tf.io.TFRecordWriter(str(folder / f"{split}.tfrecord")) as writer:
            for path in sorted((images / split).glob("*/*.png")):
                image = tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[path.read_bytes()]),
                )
                label = tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[int(path.parent.name)])
                )
                features = tf.train.Features(feature={"image": image, "label": label})
                writer.write(tf.train.Example(features=features).SerializeToString())


def create_pipeline(
    records: Path, output: Path, epochs: int, min_accuracy: float
) -> tfx.dsl.Pipeline:
    """The components that the documentation of TFX goes through, each as it does."""
    example_gen = tfx.components.ImportExampleGen(
        input_base=str(records),
        input_config=tfx.proto.Input(
            splits=[
                tfx.proto.Input.Split(name=split, pattern=f"{split}.tfrecord") for split in SPLITS
            ]
        ),
    )
    statistics_gen = tfx.components.StatisticsGen(examples=example_gen.outputs["examples"])
    schema_gen = tfx.components.SchemaGen(statistics=statistics_gen.outputs["statistics"])
    example_validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    transform = tfx.components.Transform(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        module_file=str(MODULE),
    )
    trainer = tfx.components.Trainer(
        module_file=str(MODULE),
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema_gen.outputs["schema"],
        train_args=tfx.proto.TrainArgs(splits=["train"], num_steps=TRAIN_STEPS),
        eval_args=tfx.proto.EvalArgs(splits=["eval"], num_steps=EVAL_STEPS),
        custom_config={"epochs": epochs},
    )
    baseline = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id("LatestBlessedModel")
    evaluator = tfx.components.Evaluator(
        examples=example_gen.outputs["examples"],
        example_splits=["test"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["model"],
        eval_config=eval_config(min_accuracy),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(output / "pushed"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="smallest",
        pipeline_root=str(output / "artifacts"),
        components=[
            example_gen,
            statistics_gen,
            schema_gen,
            example_validator,
            transform,
            trainer,
            baseline,
            evaluator,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(output / "metadata.sqlite")
        ),
    )


def eval_config(min_accuracy: float) -> config_pb2.EvalConfig:
    """Accuracy over all test examples and by class, bounded over all of them."""
    threshold = config_pb2.MetricThreshold(
        value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": min_accuracy}),
        change_threshold=config_pb2.GenericChangeThreshold(
            direction=config_pb2.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -0.02}
        ),
    )
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default",
                preprocessing_function_names=["transform_features"],
                label_key="label_xf",
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["label"])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name="ExampleCount"),
                    config_pb2.MetricConfig(
                        class_name="SparseCategoricalAccuracy",
                        per_slice_thresholds=[
                            config_pb2.PerSliceMetricThreshold(
                                slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold
                            )
                        ],
                    ),
                    config_pb2.MetricConfig(
                        class_name="SparseCategoricalCrossentropy",
                        config='{"from_logits": true}',
                    ),
                    config_pb2.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
                ]
            )
        ],
    )


if __name__ == "__main__":
    folder, target, epochs, min_accuracy = sys.argv[1:]
    records = Path(target) / "records"
    began = time.monotonic()
    if not records.exists():
        write_records(Path(folder), records)
    # No component does this part of the job.
    print(f"records {time.monotonic() - began:.3f}")
    pipeline = create_pipeline(records, Path(target), int(epochs), float(min_accuracy))
    tfx.orchestration.LocalDagRunner().run(pipeline)
