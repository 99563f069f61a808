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

from trainer_module.util import environment

environment.prepare()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_model_analysis as tfma  # noqa: E402
import tfx.examples  # noqa: E402
from absl import flags  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from tfx import v1 as tfx_v1  # noqa: E402
from tfx.components.trainer.fn_args_utils import FnArgs  # noqa: E402

from components.plateau_trainer.component import PlateauTrainer  # noqa: E402
from trainer_module import PlateauConfig, ScheduleConfig, history  # noqa: E402
from trainer_module.schedule.parameters import parameters  # noqa: E402

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


def edited(name: str, folder: Path) -> list[Path]:
    """Writes the files of an example as the diff of the page changes them."""
    diff = diffs(name)
    paths = [Path(path) for path in re.findall(r"^\+\+\+ (\S+)", diff, re.MULTILINE)]
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text((PACKAGES / path).read_text())
    command = ["git", "apply", "-p0", "--unidiff-zero"]
    subprocess.run(command, input=diff.encode(), cwd=folder, check=True)
    return paths


@pytest.fixture(params=TESTED)
def name(request, tmp_path, monkeypatch) -> str:
    """The name of an example whose package is the edited one."""
    folder = TESTED[request.param].folder
    edited(request.param, tmp_path / "edited")
    package = importlib.import_module(f"tfx.examples.{folder}")
    found = [str(tmp_path / "edited/tfx/examples" / folder), *package.__path__]
    monkeypatch.setattr(package, "__path__", found)
    yield request.param
    for module in [m for m in sys.modules if m.startswith(f"tfx.examples.{folder}.")]:
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
        lines = (EXAMPLES / "imdb/data/imdb_small_with_labels.txt").read_text().splitlines(True)
        (folder / "data.csv").write_text("".join(lines[:49]))
    elif name == "taxi":
        source = EXAMPLES / "chicago_taxi_pipeline/data/simple/data.csv"
        lines = source.read_text().splitlines(keepends=True)
        # All data has one pickup tract; without it, the schema would be another.
        column = lines[0].split(",").index("pickup_census_tract")
        (tract,) = [line for line in lines[1:] if line.split(",")[column]]
        (folder / "data.csv").write_text("".join([*lines[:801], tract]))
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
    known = set(flags.FLAGS)
    module = importlib.import_module(f"tfx.examples.{example.folder}.{example.pipeline}")
    # Beam's job server in a later test has a flag of the same name.
    for name in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, name)
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
    gen = getattr(tfx_v1.components, type_of(name))(
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
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "schema": schema.outputs["schema"],
    }
    run_fn = {"run_fn": f"{path}.run_fn"}
    # TFX makes a package of a file, which takes longer than all else: one example is enough.
    file = {"module_file": importlib.import_module(path).__file__} if name == "imdb" else run_fn
    ours = PlateauTrainer(
        **inputs, **file, schedule=schedule, checkpoints=str(folder / "checkpoints")
    )
    theirs = tfx_v1.components.Trainer(
        **inputs, **run_fn, custom_config={"schedule": parameters(schedule)}
    )
    evaluator = tfx_v1.components.Evaluator(
        examples=examples,
        model=ours.outputs["model"],
        eval_config=original_evaluation(example, folder),
        example_splits=["eval"],
    )
    inferrer = tfx_v1.components.BulkInferrer(
        examples=examples,
        model=ours.outputs["model"],
        data_spec=tfx_v1.proto.DataSpec(example_splits=["eval"]),
        model_spec=tfx_v1.proto.ModelSpec(),
    )
    pipeline = tfx_v1.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=str(folder / "root"),
        components=[gen, statistics, schema, transform, ours, theirs, evaluator, inferrer],
        metadata_connection_config=tfx_v1.orchestration.metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.db")
        ),
    )
    tfx_v1.orchestration.LocalDagRunner().run(pipeline)
    return folder / "root"


def type_of(name: str) -> str:
    """The ExampleGen of an example."""
    return "ImportExampleGen" if name == "mnist" else "CsvExampleGen"


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def measured(root: Path) -> dict[str, float]:
    """What the Evaluator found, by metric."""
    result = tfma.load_eval_result(str(only(root / "Evaluator/evaluation")))
    ((_, outputs),) = result.slicing_metrics
    return {
        name: value["doubleValue"]
        for output in outputs.values()
        for metrics in output.values()
        for name, value in metrics.items()
        if "doubleValue" in value
    }


def predictions(model: Path, records: list[bytes]) -> np.ndarray:
    """The answer of a model to serialized Examples, by the loader of TensorFlow 1."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(model))
        signature = graph.signature_def["serving_default"]
        (fed,), (output,) = signature.inputs.values(), signature.outputs.values()
        return session.run(output.name, {fed.name: records})


def test_an_example_of_tfx_trains_and_is_evaluated_as_before(name, tmp_path):
    root = run_pipeline(name, tmp_path)
    example = TESTED[name]
    files = list(map(str, (root / type_of(name) / "examples").glob("*/Split-eval/*.gz")))
    raw = list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())
    for trainer in ("PlateauTrainer", "Trainer"):
        run = only(root / trainer / "model_run")
        record = history.read(run / history.FILE_NAME)
        assert list((run / "tensorboard").iterdir())
        assert record.monitor == example.monitor
        assert [r.action for r in record.epochs][1] == "lr_decay"
        assert record.epochs[2].learning_rate < record.epochs[1].learning_rate
        answers = predictions(only(root / trainer / "model") / "Format-Serving", raw)
        assert answers.shape == (len(raw), {"penguin": 3, "mnist": 10}.get(name, 1))
        if trainer == "PlateauTrainer":
            kept = only(root / trainer / "training_history") / history.FILE_NAME
            assert history.read(kept) == record
            # The served model is the best epoch's: its evaluation is that of the loop.
            found = measured(root)
            metric = "binary_accuracy" if name == "imdb" else example.monitor.removeprefix("val_")
            best = record.best.metrics[example.monitor]
            assert found[metric] == pytest.approx(best, abs=1e-6)
    assert list((tmp_path / "checkpoints").glob("*/epoch-*.npz"))
    inferred = list(map(str, (root / "BulkInferrer/inference_result").glob("**/*.gz")))
    assert sum(1 for _ in tf.data.TFRecordDataset(inferred, "GZIP")) == len(raw)


@pytest.mark.parametrize("name", TESTED)
def test_few_lines_of_an_example_change(name, tmp_path):
    changed = sum(
        changed_lines((PACKAGES / path).read_text(), (tmp_path / path).read_text())
        for path in edited(name, tmp_path)
    )
    assert f"| {name} | {changed} |" in PAGE.read_text()
    assert 0 < changed <= MAX_CHANGED


def test_the_fragments_of_the_page_run(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    spec = tf.TensorSpec([None, 2], name="x")
    gen = tfx_v1.components.CsvExampleGen(input_base=str(tmp_path))
    schema_gen = tfx_v1.components.ImportSchemaGen(schema_file="schema.pbtxt")
    transform = tfx_v1.components.Transform(
        examples=gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="a.b",
    )
    names = {
        "module_file": str(tmp_path / "module.py"),
        "transform": transform,
        "schema_gen": schema_gen,
        "model": model,
        "serve": tf.function(model, input_signature=[spec]),
        "fn_args": FnArgs(serving_model_dir=str(tmp_path / "model")),
    }
    trainers = []
    for fragment in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.M):
        exec(fragment, names)
        trainers.append(type(names.get("trainer")).__name__)
    assert trainers == ["PlateauTrainer", "Trainer", "Trainer"]
    assert tf.saved_model.contains_saved_model(str(tmp_path / "model"))
