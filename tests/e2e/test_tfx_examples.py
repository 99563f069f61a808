"""TFX's own examples with our Trainer, and with `train` inside TFX's: docs/components.md, tested.

The examples are those of the installed package, changed by the diffs that the page shows. Their
folders come first on the path of their packages, as in a clone of TFX in which they were edited.
"""

import csv
import difflib
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from trainer_module import environment

environment.prepare()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_model_analysis as tfma  # noqa: E402
import tfx.examples  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from tfx import v1 as tfx_v1  # noqa: E402

from components.plateau_trainer.component import PlateauTrainer  # noqa: E402
from trainer_module import PlateauConfig, ScheduleConfig, history  # noqa: E402
from trainer_module.parameters import parameters  # noqa: E402

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs/components.md"
PACKAGES = Path(tfx.__path__[0]).parent
EXAMPLES = Path(tfx.examples.__path__[0])
MAX_CHANGED = 10


class Example(NamedTuple):
    """An example of TFX.

    Attributes:
        folder: Its folder below `tfx/examples`.
        module: Its module with `run_fn` and `preprocessing_fn`.
        pipeline: Its module that makes the pipeline, from which the evaluation is taken.
        monitor: Metric of its `compile` that steers the schedule.
        label: Column of the label.
    """

    folder: str
    module: str
    pipeline: str
    monitor: str
    label: str


TESTED = {
    "penguin": Example(
        "penguin", "penguin_utils_keras", "penguin_pipeline_local",
        "val_sparse_categorical_accuracy", "species",
    ),
    "mnist": Example(
        "mnist", "mnist_utils_native_keras", "mnist_pipeline_native_keras",
        "val_sparse_categorical_accuracy", "image_class",
    ),
    "imdb": Example(
        "imdb", "imdb_utils_native_keras", "imdb_pipeline_native_keras", "val_accuracy", "label"
    ),
    "taxi": Example(
        "chicago_taxi_pipeline", "taxi_utils_native_keras", "taxi_pipeline_native_keras",
        "val_binary_accuracy", "tips",
    ),
}  # fmt: skip


def diffs(name: str) -> str:
    """The diff of an example as the page shows it."""
    section = PAGE.read_text().split(f"### {name}\n")[1]
    return "".join(re.findall(r"```diff\n(.*?)```", section.split("\n### ")[0], re.DOTALL))


@pytest.fixture(params=TESTED)
def name(request, tmp_path, monkeypatch) -> str:
    """The name of an example whose package is the edited one."""
    example = TESTED[request.param]
    diff = diffs(request.param)
    edited = tmp_path / "edited"
    for path in re.findall(r"^\+\+\+ (\S+)", diff, re.MULTILINE):
        (edited / path).parent.mkdir(parents=True, exist_ok=True)
        (edited / path).write_text((PACKAGES / path).read_text())
    subprocess.run(
        ["git", "apply", "-p0", "--unidiff-zero"], input=diff.encode(), cwd=edited, check=True
    )
    package = importlib.import_module(f"tfx.examples.{example.folder}")
    monkeypatch.setattr(
        package, "__path__", [str(edited / "tfx/examples" / example.folder), *package.__path__]
    )
    yield request.param
    for module in [m for m in sys.modules if m.startswith(f"tfx.examples.{example.folder}.")]:
        del sys.modules[module]


def changed_lines(before: str, after: str) -> int:
    """Lines that a person changes: replaced, added or removed."""
    matcher = difflib.SequenceMatcher(a=before.splitlines(), b=after.splitlines(), autojunk=False)
    return sum(
        max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal"
    )


def data(name: str, folder: Path) -> Path:
    """A little of the data of an example, in the form that its ExampleGen reads."""
    folder.mkdir()
    if name == "imdb":
        text = (EXAMPLES / "imdb/data/imdb_small_with_labels.txt").read_text()
        (folder / "data.csv").write_text(text)
    elif name == "taxi":
        source = EXAMPLES / "chicago_taxi_pipeline/data/simple/data.csv"
        lines = source.read_text().splitlines(keepends=True)
        (folder / "data.csv").write_text("".join(lines[:1201]))
    elif name == "penguin":
        # The rows of the test data of TFX's components.
        source = EXAMPLES.parent / "components/testdata/penguin/data"
        records = tf.data.TFRecordDataset(
            sorted(map(str, source.glob("Split-*/*.gz"))), compression_type="GZIP"
        )
        rows = [values(record) for record in records.as_numpy_iterator()]
        with (folder / "data.csv").open("w") as file:
            writer = csv.DictWriter(file, sorted(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        # MNIST is not in the package: digits of scikit-learn at its size.
        digits = load_digits()
        with tf.io.TFRecordWriter(str(folder / "digits.tfrecord")) as file:
            for image, label in zip(digits.images[:600], digits.target[:600], strict=True):
                large = tf.image.resize(image[..., None] / 16 - 0.5, (28, 28))
                floats = tf.train.FloatList(value=np.ravel(large))
                features = {
                    "image_floats": tf.train.Feature(float_list=floats),
                    "image_class": tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[int(label)])
                    ),
                }
                message = tf.train.Example(features=tf.train.Features(feature=features))
                file.write(message.SerializeToString())
    return folder


def values(record: bytes) -> dict[str, float]:
    features = tf.train.Example.FromString(record).features.feature
    found = {}
    for key, feature in features.items():
        (found[key],) = getattr(feature, feature.WhichOneof("kind")).value
    return found


def schedule_of(example: Example) -> ScheduleConfig:
    """A run of two epochs, which is enough to plateau with a patience of one."""
    plateau = PlateauConfig(monitor=example.monitor, patience=1, min_delta=1.0)
    return ScheduleConfig(plateau=plateau, strategy="lr_decay", max_epochs=3)


def original_evaluation(example: Example, folder: Path) -> tfma.EvalConfig:
    """The evaluation that the example's own pipeline is made with."""
    module = importlib.import_module(f"tfx.examples.{example.folder}.{example.pipeline}")
    arguments = {
        "pipeline_name": "original",
        "pipeline_root": str(folder),
        "data_root": str(folder),
        "module_file": str(folder / "module.py"),
        "serving_model_dir": str(folder),
        "metadata_path": str(folder / "metadata.db"),
        "beam_pipeline_args": [],
    }
    if example.folder == "penguin":
        arguments |= dict.fromkeys(
            ("user_provided_schema_path", "examplegen_input_config",
             "examplegen_range_config_date", "resolver_range_config")
        )  # fmt: skip
        arguments |= dict.fromkeys(
            ("enable_tuning", "enable_bulk_inferrer", "enable_example_diff",
             "enable_transform_input_cache"), False
        )  # fmt: skip
        pipeline = module.create_pipeline(accuracy_threshold=0.0, **arguments)
    else:
        pipeline = module._create_pipeline(**arguments)
    (evaluator,) = [c for c in pipeline.components if type(c).__name__ == "Evaluator"]
    return json_format.Parse(evaluator.exec_properties["eval_config"], tfma.EvalConfig())


def run_pipeline(name: str, folder: Path) -> Path:
    """Runs an example: its data steps, both Trainers, its evaluation, a BulkInferrer."""
    example = TESTED[name]
    path = f"tfx.examples.{example.folder}.{example.module}"
    source = str(data(name, folder / "data"))
    split_of = tfx_v1.proto.SplitConfig.Split
    splits = [split_of(name="train", hash_buckets=3), split_of(name="eval", hash_buckets=1)]
    kind = (
        tfx_v1.components.ImportExampleGen if name == "mnist" else tfx_v1.components.CsvExampleGen
    )
    gen = kind(
        input_base=source,
        output_config=tfx_v1.proto.Output(split_config=tfx_v1.proto.SplitConfig(splits=splits)),
    )
    examples = gen.outputs["examples"]
    statistics = tfx_v1.components.StatisticsGen(examples=examples)
    schema = tfx_v1.components.SchemaGen(
        statistics=statistics.outputs["statistics"], infer_feature_shape=True
    )
    transform = tfx_v1.components.Transform(
        examples=examples,
        schema=schema.outputs["schema"],
        preprocessing_fn=f"{path}.preprocessing_fn",
        disable_statistics=True,
    )
    schedule = schedule_of(example)
    inputs = {
        "run_fn": f"{path}.run_fn",
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "schema": schema.outputs["schema"],
    }
    ours = PlateauTrainer(**inputs, schedule=schedule, checkpoints=str(folder / "checkpoints"))
    theirs = tfx_v1.components.Trainer(**inputs, custom_config={"schedule": parameters(schedule)})
    components = [gen, statistics, schema, transform, ours, theirs]
    for trainer in (ours, theirs):
        evaluator = tfx_v1.components.Evaluator(
            examples=examples,
            model=trainer.outputs["model"],
            eval_config=original_evaluation(example, folder),
            example_splits=["eval"],
        ).with_id(f"Evaluator.{trainer.id}")
        components.append(evaluator)
    inferrer = tfx_v1.components.BulkInferrer(
        examples=examples,
        model=ours.outputs["model"],
        data_spec=tfx_v1.proto.DataSpec(example_splits=["eval"]),
        model_spec=tfx_v1.proto.ModelSpec(),
    )
    pipeline = tfx_v1.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=str(folder / "root"),
        components=[*components, inferrer],
        metadata_connection_config=tfx_v1.orchestration.metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.db")
        ),
    )
    tfx_v1.orchestration.LocalDagRunner().run(pipeline)
    return folder / "root"


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_an_example_of_tfx_trains_and_is_evaluated_as_before(name, tmp_path):
    root = run_pipeline(name, tmp_path)
    example = TESTED[name]
    records = {}
    for trainer in ("PlateauTrainer", "Trainer"):
        run = only(root / trainer / "model_run")
        records[trainer] = history.read(run / history.FILE_NAME)
        assert list((run / "tensorboard").iterdir())
        record = records[trainer]
        assert record.monitor == example.monitor
        assert [r.action for r in record.epochs][1] == "decay_lr"
        assert record.epochs[-1].learning_rate < record.epochs[0].learning_rate
        evaluation = only(root / f"Evaluator.{trainer}" / "evaluation")
        (metrics,) = [m for _, m in tfma.load_eval_result(str(evaluation)).slicing_metrics]
        found = {
            key: value for m in metrics.values() for v in m.values() for key, value in v.items()
        }
        measured = float(
            found[
                example.monitor.removeprefix("val_").replace(
                    "accuracy", "binary_accuracy" if name == "imdb" else "accuracy"
                )
            ]["doubleValue"]
        )
        # The evaluation of the served model is that of the loop, on the same examples.
        assert measured == pytest.approx(record.best.metrics[example.monitor], abs=1e-6)
        model = only(root / trainer / "model") / "Format-Serving"
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            graph = tf.compat.v1.saved_model.load(session, ["serve"], str(model))
            assert "serving_default" in graph.signature_def
    kept = only(root / "PlateauTrainer/training_history") / history.FILE_NAME
    assert history.read(kept) == records["PlateauTrainer"]
    assert list((tmp_path / "checkpoints").glob("*/epoch-*.npz"))
    inferred = list((root / "BulkInferrer/inference_result").glob("**/*.gz"))
    count = sum(1 for _ in tf.data.TFRecordDataset(list(map(str, inferred)), "GZIP"))
    assert count > 0


@pytest.mark.parametrize("example", TESTED)
def test_few_lines_of_an_example_change(example, tmp_path):
    diff = diffs(example)
    before = {p: (PACKAGES / p).read_text() for p in re.findall(r"^\+\+\+ (\S+)", diff, re.M)}
    for path, text in before.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    subprocess.run(
        ["git", "apply", "-p0", "--unidiff-zero"], input=diff.encode(), cwd=tmp_path, check=True
    )
    changed = sum(changed_lines(text, (tmp_path / p).read_text()) for p, text in before.items())
    assert 0 < changed <= MAX_CHANGED
