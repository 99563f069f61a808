import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx import v1 as tfx

from components.servable.component import Servable

pytestmark = pytest.mark.component

ARTIFACTS = tfx.types.standard_artifacts


def importer(node: str, kind: type, uri: str, **given: Any) -> Any:
    return tfx.dsl.Importer(source_uri=uri, artifact_type=kind, **given).with_id(node)


@pytest.fixture
def run(tmp_path: Path, examples: Path) -> Callable[[Path], list[Path]]:
    """Runs a pipeline that imports a model and examples; gives what was pushed."""

    def go(model: Path) -> list[Path]:
        imported = importer("model", ARTIFACTS.Model, str(model))
        data = importer(
            "examples",
            ARTIFACTS.Examples,
            str(examples.parents[1]),
            properties={"split_names": json.dumps(["test"])},
        )
        config = config_pb2.EvalConfig(
            model_specs=[
                config_pb2.ModelSpec(
                    signature_name="serving_default",
                    preprocessing_function_names=["labels"],
                    label_key="label_xf",
                    prediction_key="probabilities",
                )
            ],
            slicing_specs=[config_pb2.SlicingSpec()],
            metrics_specs=[
                config_pb2.MetricsSpec(
                    metrics=[
                        config_pb2.MetricConfig(class_name="ExampleCount"),
                        config_pb2.MetricConfig(
                            class_name="SparseCategoricalAccuracy", config='{"name": "accuracy"}'
                        ),
                        config_pb2.MetricConfig(
                            class_name="SparseCategoricalCrossentropy",
                            config='{"name": "crossentropy"}',
                        ),
                    ]
                )
            ],
        )
        evaluator = tfx.components.Evaluator(
            examples=data.outputs["result"],
            model=imported.outputs["result"],
            eval_config=config,
            example_splits=["test"],
        )
        servable = Servable(
            model=imported.outputs["result"],
            examples=data.outputs["result"],
            evaluation=evaluator.outputs["evaluation"],
            timeout_s=300,
        )
        pusher = tfx.components.Pusher(
            model=imported.outputs["result"],
            infra_blessing=servable.outputs["blessing"],
            push_destination=tfx.proto.PushDestination(
                filesystem=tfx.proto.PushDestination.Filesystem(
                    base_directory=str(tmp_path / "pushed")
                )
            ),
        )
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="foreign",
            pipeline_root=str(tmp_path / "root"),
            components=[imported, data, evaluator, servable, pusher],
            metadata_connection_config=(
                tfx.orchestration.metadata.sqlite_metadata_connection_config(
                    str(tmp_path / "metadata.db")
                )
            ),
        )
        tfx.orchestration.LocalDagRunner().run(pipeline)
        return sorted((tmp_path / "pushed").glob("*/saved_model.pb"))

    return go


def results(tmp_path: Path) -> dict[str, Any]:
    (file,) = (tmp_path / "root" / "Servable").rglob("servable.json")
    return {check["rule"]: check for check in json.loads(file.read_text())["checks"]}


def test_a_good_model_is_pushed(
    run: Callable[[Path], list[Path]], export: Any, make_model: Any, tmp_path: Path
) -> None:
    assert len(run(export(make_model()).parent)) == 1
    checks = results(tmp_path)
    for name in ("accuracy", "accuracy by class name", "cross-entropy"):
        assert checks[name]["passed"], checks[name]
    assert checks["accuracy"]["value"] == "0.750000"


def test_a_model_that_cannot_be_served_is_not_pushed(
    run: Callable[[Path], list[Path]], export: Any, make_model: Any, tmp_path: Path
) -> None:
    """It normalises by its batch, so that what it says depends on who else asks."""

    def by_batch(x: Any) -> Any:
        return {"probabilities": tf.nn.softmax(x - tf.reduce_mean(x, axis=0))}

    assert run(export(make_model(by_batch)).parent) == []
    assert results(tmp_path)["batch of 1"]["passed"] is False


@pytest.mark.parametrize("limits", [{}, {"max_latency_ms_p99": 20, "max_model_mib": 0.5}])
@pytest.mark.parametrize("evaluated", [True, False])
def test_it_compiles_for_kubeflow(
    tmp_path: Path, limits: dict[str, float], evaluated: bool
) -> None:
    kinds = {"model": ARTIFACTS.Model, "examples": ARTIFACTS.Examples}
    if evaluated:
        kinds["evaluation"] = ARTIFACTS.ModelEvaluation
    nodes = {name: importer(name, kind, "uri") for name, kind in kinds.items()}
    inputs = {name: node.outputs["result"] for name, node in nodes.items()}
    servable = Servable(**inputs, **limits, leave_out=["other"])
    pusher = tfx.components.Pusher(
        model=inputs["model"],
        infra_blessing=servable.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory="pushed")
        ),
    )
    pipeline = tfx.dsl.Pipeline("servable", "root", components=[*nodes.values(), servable, pusher])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config, output_dir=str(tmp_path))
    tasks = runner.run(pipeline)["pipelineSpec"]["root"]["dag"]["tasks"]
    given = tasks["Servable"]["inputs"]
    assert set(given["artifacts"]) == set(kinds)
    assert "infra_blessing" in tasks["Pusher"]["inputs"]["artifacts"]
    parameters = {
        name: next(iter(value["runtimeValue"]["constantValue"].values()))
        for name, value in given["parameters"].items()
    }
    assert "split" not in parameters, "the executor takes test, or eval without one"
    assert int(parameters["timeout_s"]) == 900
    assert json.loads(parameters["leave_out"]) == ["other"]
    assert {name: parameters[name] for name in limits} == limits
    assert not ({"max_latency_ms_p99", "max_model_mib"} - set(limits)) & set(parameters)


@pytest.mark.parametrize("name", ["max_latency_ms_p99", "max_model_mib", "timeout_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_must_be_positive(name: str, value: float) -> None:
    channel = types.Channel(type=ARTIFACTS.Model)
    examples = types.Channel(type=ARTIFACTS.Examples)
    with pytest.raises(ValueError, match=f"`{name}` must be a positive number, got {value}"):
        Servable(model=channel, examples=examples, **{name: value})
