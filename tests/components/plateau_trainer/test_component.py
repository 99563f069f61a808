import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from trainer_module.util import environment

environment.prepare()

import tensorflow as tf  # noqa: E402
from ml_metadata.metadata_store import MetadataStore  # noqa: E402
from tfx import types  # noqa: E402
from tfx import v1 as tfx  # noqa: E402
from tfx.types import channel_utils, standard_artifacts  # noqa: E402

from components.artifacts import TrainingHistory  # noqa: E402
from components.image_example_gen.component import ImageExampleGen  # noqa: E402
from components.inline_schema_gen.component import InlineSchemaGen  # noqa: E402
from components.plateau_trainer import parameters as logic  # noqa: E402
from components.plateau_trainer.component import PlateauTrainer  # noqa: E402
from components.plateau_trainer.executor import Executor  # noqa: E402
from schemas.images import image_schema_text  # noqa: E402
from trainer_module import history  # noqa: E402
from trainer_module.config import (  # noqa: E402
    ImageFeatures,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
)
from trainer_module.schedule.parameters import parameters  # noqa: E402
from trainer_module.schedule.plateau import PlateauConfig  # noqa: E402
from trainer_module.schedule.schedule import ScheduleConfig  # noqa: E402

pytestmark = pytest.mark.component

CONFIG = TrainConfig(
    features=ImageFeatures(height=8, width=8, channels=1),
    classes=("dark", "light"),
    network=NetworkConfig(model="cnn", width_multiplier=0.05),
    optimization=OptimizerConfig(learning_rate=0.01),
    schedule=ScheduleConfig(
        plateau=PlateauConfig(patience=1), strategy="lr_decay", actions=1, max_epochs=6
    ),
    loop=LoopConfig(batch_size=8),
)
SPLIT_NAMES = '["train", "eval", "test"]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of somebody else's, run once."""
    folder = tmp_path_factory.mktemp("foreign")
    for split, number in (("train", 32), ("val", 8), ("test", 8)):
        for i in range(number):
            name, value = (("dark", 3 * i), ("light", 255 - 3 * i))[i % 2]
            path = folder / "data" / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), value).save(path)

    examples = ImageExampleGen(input_base=str(folder / "data"))
    imported = InlineSchemaGen(image_schema_text(CONFIG.classes))
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=imported.outputs["schema"],
        preprocessing_fn="trainer_module.preprocessing.preprocessing_fn",
        custom_config={"preprocessing": CONFIG.preprocessing_json()},
        materialize=False,
        disable_statistics=True,
    )
    trainer = PlateauTrainer(
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        config=CONFIG,
    )
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="foreign",
        pipeline_root=str(folder / "root"),
        components=[examples, imported, transform, trainer],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.db")
        ),
    )
    tfx.orchestration.LocalDagRunner().run(pipeline)
    return folder


def outputs(folder: Path) -> dict[str, list[types.Artifact]]:
    kinds = {
        "model": standard_artifacts.Model,
        "model_run": standard_artifacts.ModelRun,
        "training_history": TrainingHistory,
    }
    made = {}
    for name, kind in kinds.items():
        (folder / name).mkdir(parents=True)
        made[name] = [kind()]
        made[name][0].uri = str(folder / name)
    return made


def inputs(folder: Path, **more: tuple[type, str]) -> dict[str, list[types.Artifact]]:
    (examples_uri,) = (folder / "root/ImageExampleGen/examples").iterdir()
    (graph_uri,) = (folder / "root/Transform/transform_graph").iterdir()
    examples, graph = standard_artifacts.Examples(), standard_artifacts.TransformGraph()
    examples.uri, graph.uri = str(examples_uri), str(graph_uri)
    examples.split_names = SPLIT_NAMES
    made = {"examples": [examples], "transform_graph": [graph]}
    for name, (kind, uri) in more.items():
        made[name] = [kind()]
        made[name][0].uri = uri
    return made


def properties(config: TrainConfig) -> dict[str, object]:
    return {
        "train_config": logic.without_schedule(config),
        "train_args": '{"splits": ["train"]}',
        "eval_args": '{"splits": ["eval"]}',
        **parameters(config.schedule),
    }


def model_of(folder: Path) -> str:
    (uri,) = (folder / "root/PlateauTrainer/model").iterdir()
    return str(uri)


def weights(model_uri: str) -> list[float]:
    reader = tf.train.load_checkpoint(f"{model_uri}/Format-Serving/variables/variables")
    return reader.get_tensor("variables/0/.ATTRIBUTES/VARIABLE_VALUE").ravel().tolist()


def test_the_history_is_an_artifact_with_a_summary(folder: Path) -> None:
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(
        str(folder / "metadata.db")
    )
    store = MetadataStore(connection)
    (artifact,) = store.get_artifacts_by_type("components.TrainingHistory")
    record = history.read(Path(artifact.uri) / history.FILE_NAME)
    assert record.config["schedule"]["strategy"] == "lr_decay"
    found = artifact.custom_properties
    assert found["epochs"].int_value == len(record.epochs) <= 6
    assert found["stop_reason"].string_value == record.stop_reason != ""
    assert found["best_value"].double_value == pytest.approx(
        record.best.metrics["val_accuracy"], abs=1e-6
    )
    (execution,) = store.get_executions_by_type(
        "components.plateau_trainer.component.PlateauTrainer"
    )
    assert execution.custom_properties["patience"].int_value == 1
    assert execution.custom_properties["strategy"].string_value == "lr_decay"


def test_a_base_model_is_started_from(folder: Path, tmp_path: Path) -> None:
    still = replace(
        CONFIG,
        optimization=OptimizerConfig(learning_rate=1e-6),
        schedule=ScheduleConfig(max_epochs=1),
    )
    base = model_of(folder)
    made = outputs(tmp_path)
    given = inputs(folder, base_model=(standard_artifacts.Model, base))
    Executor().Do(given, made, properties(still))
    assert weights(made["model"][0].uri) == pytest.approx(weights(base), abs=1e-4)
    fresh = outputs(tmp_path / "fresh")
    Executor().Do(inputs(folder), fresh, properties(still))
    assert weights(fresh["model"][0].uri) != pytest.approx(weights(base), abs=1e-4)


def test_a_base_model_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    other = replace(CONFIG, network=NetworkConfig(model="cnn", width_multiplier=0.1))
    given = inputs(folder, base_model=(standard_artifacts.Model, model_of(folder)))
    with pytest.raises(ValueError, match=r"base model must have weights of the shapes"):
        Executor().Do(given, outputs(tmp_path), properties(other))
    assert not list((tmp_path / "training_history").iterdir())


def test_what_a_tuner_found_takes_the_place_of_the_config(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    found = {"space": [], "values": {"batch_size": 4, "learning_rate": 0.002}}
    (tmp_path / "best/best_hyperparameters.txt").write_text(json.dumps(found))
    given = inputs(
        folder, hyperparameters=(standard_artifacts.HyperParameters, str(tmp_path / "best"))
    )
    made = outputs(tmp_path)
    Executor().Do(given, made, properties(CONFIG))
    record = history.read(tmp_path / "training_history" / history.FILE_NAME)
    assert record.epochs[0].batch_size == 4
    assert record.epochs[0].learning_rate == 0.002
    assert made["training_history"][0].get_int_custom_property("epochs") == len(record.epochs)


def channels() -> dict[str, types.BaseChannel]:
    return {
        "examples": channel_utils.as_channel([standard_artifacts.Examples()]),
        "transform_graph": channel_utils.as_channel([standard_artifacts.TransformGraph()]),
    }


def test_it_compiles_for_kubeflow_with_runtime_parameters(tmp_path: Path) -> None:
    parameter = tfx.dsl.experimental.RuntimeParameter
    importers = [
        tfx.dsl.Importer(source_uri="uri", artifact_type=kind).with_id(node)
        for kind, node in (
            (standard_artifacts.Examples, "examples"),
            (standard_artifacts.TransformGraph, "transform_graph"),
        )
    ]
    trainer = PlateauTrainer(
        **{node.id: node.outputs["result"] for node in importers},
        config=CONFIG,
        runtime={
            "patience": parameter("patience", int),
            "strategy": parameter("strategy", str),
        },
    )
    pipeline = tfx.dsl.Pipeline("trainer", "root", components=[*importers, trainer])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config, output_dir=str(tmp_path))
    spec = runner.run(pipeline)["pipelineSpec"]
    given = spec["root"]["dag"]["tasks"]["PlateauTrainer"]["inputs"]["parameters"]
    assert given["patience"] == {"componentInputParameter": "patience"}
    assert (
        "training_history" in spec["components"]["PlateauTrainer"]["outputDefinitions"]["artifacts"]
    )


@pytest.mark.parametrize(("name", "kind"), [("pateince", int), ("patience", str)])
def test_a_runtime_parameter_must_fit_the_schedule(name: str, kind: type) -> None:
    parameter = tfx.dsl.experimental.RuntimeParameter(name, kind)
    with pytest.raises(ValueError, match=r"must name fields of the schedule.*patience: int"):
        PlateauTrainer(**channels(), config=CONFIG, runtime={name: parameter})


MODULE = """
import keras
import numpy as np
import tensorflow as tf

from trainer_module import export_model, train, trainer_arguments

DATA = tf.data.Dataset.from_tensor_slices((np.eye(8, dtype="float32"), np.eye(8)[:, :1])).batch(4)


def run_fn(fn_args):
    {reads}
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    {trains}

    @tf.function(input_signature=[tf.TensorSpec([None, 8], name="x")])
    def serve(x):
        return model(x)

    export_model(model, fn_args.serving_model_dir, {{"serving_default": serve}})
"""
TRAINS = "train(model, model.optimizer, DATA, DATA, batch_size=4, **trainer_arguments(fn_args))"


def foreign(folder: Path, given: dict[str, list[types.Artifact]], reads: str, trains: str) -> None:
    """Runs a module of somebody else's in the executor."""
    (folder / "module.py").write_text(MODULE.format(reads=reads, trains=trains))
    schedule = ScheduleConfig(max_epochs=2, plateau=PlateauConfig(patience=3))
    Executor().Do(
        given,
        outputs(folder),
        {
            "module_file": str(folder / "module.py"),
            "custom_config": '{"mine": 7}',
            "train_args": '{"splits": ["train"]}',
            "eval_args": '{"splits": ["eval"]}',
            **parameters(schedule),
        },
    )


@pytest.fixture
def with_hyperparameters(tmp_path: Path) -> dict[str, list[types.Artifact]]:
    for split in ("train", "eval"):
        (tmp_path / "examples" / f"Split-{split}").mkdir(parents=True)
    (tmp_path / "best").mkdir()
    (tmp_path / "best/best_hyperparameters.txt").write_text('{"values": {"units": 3}}')
    examples, found = standard_artifacts.Examples(), standard_artifacts.HyperParameters()
    examples.uri, found.uri = str(tmp_path / "examples"), str(tmp_path / "best")
    examples.split_names = '["train", "eval"]'
    return {"examples": [examples], "hyperparameters": [found]}


def test_a_module_of_ones_own_trains_by_the_schedule(
    with_hyperparameters: dict[str, list[types.Artifact]], tmp_path: Path
) -> None:
    reads = (
        'assert fn_args.hyperparameters["values"] == {"units": 3}\n'
        '    assert fn_args.custom_config["mine"] == 7'
    )
    foreign(tmp_path, with_hyperparameters, reads, TRAINS)
    record = history.read(tmp_path / "training_history" / history.FILE_NAME)
    assert len(record.epochs) == 2
    assert record.config["schedule"]["plateau"]["patience"] == 3
    assert record == history.read(tmp_path / "model_run" / history.FILE_NAME)


@pytest.mark.parametrize(
    ("reads", "trains", "message"),
    [
        ("", TRAINS, r"must use the hyperparameters .*got 'hyperparameters that it has not read'"),
        ("fn_args.hyperparameters", "model.fit(DATA, verbose=0)", "must train by the schedule"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    with_hyperparameters: dict[str, list[types.Artifact]],
    tmp_path: Path,
    reads: str,
    trains: str,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        foreign(tmp_path, with_hyperparameters, reads, trains)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"exactly one of .* must be given, got \[\]"),
        ({"config": CONFIG, "run_fn": "a.b"}, "exactly one of .* must be given"),
        ({"config": CONFIG, "schedule": ScheduleConfig()}, "must be left out with `config`"),
        ({"config": CONFIG, "custom_config": {"a": 1}}, "must be left out with `config`"),
        ({"run_fn": "a.b", "custom_config": {"schedule": {}}}, "leave schedule, checkpoints, code"),
        (
            {"run_fn": "a.b", "train_args": tfx.proto.TrainArgs(num_steps=9)},
            "no num_steps.*got 9.*max_epochs",
        ),
        ({"run_fn": "a.b", "eval_args": tfx.proto.EvalArgs(num_steps=9)}, "no num_steps"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlateauTrainer(**channels(), **arguments)
