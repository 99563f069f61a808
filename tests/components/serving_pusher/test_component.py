from pathlib import Path

import pytest

from trainer_module.util import environment

environment.prepare()

from tfx import types  # noqa: E402
from tfx import v1 as tfx  # noqa: E402
from tfx.types import standard_artifacts  # noqa: E402
from tfx.utils import proto_utils  # noqa: E402

from components.serving_pusher.component import ServingPusher  # noqa: E402
from components.serving_pusher.executor import Executor  # noqa: E402

pytestmark = pytest.mark.component


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def artifact(kind: type, folder: Path) -> list[types.Artifact]:
    made = kind()
    made.uri = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [made]


def destination(folder: Path) -> tfx.proto.PushDestination:
    return tfx.proto.PushDestination(
        filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(folder))
    )


def push(tmp_path: Path, blessed: bool, infra: str = "INFRA_BLESSED") -> types.Artifact:
    model = artifact(standard_artifacts.Model, tmp_path / "model")
    serving = tmp_path / "model/Format-Serving"
    serving.mkdir(exist_ok=True)
    (serving / "saved_model.pb").write_text("graph")
    blessing = artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    blessing[0].set_int_custom_property("blessed", int(blessed))
    infra_blessing = artifact(standard_artifacts.InfraBlessing, tmp_path / "infra")
    infra_blessing[0].set_string_custom_property("blessing_status", infra)
    infra_blessing[0].set_int_custom_property("blessed", int(infra == "INFRA_BLESSED"))
    pushed = artifact(standard_artifacts.PushedModel, tmp_path / "artifact")
    Executor().Do(
        {"model": model, "model_blessing": blessing, "infra_blessing": infra_blessing},
        {"pushed_model": pushed},
        {"push_destination": proto_utils.proto_to_json(destination(tmp_path / "pushed"))},
    )
    return pushed[0]


def test_a_blessed_model_is_pushed_once(tmp_path: Path) -> None:
    first, second = push(tmp_path, True), push(tmp_path, True)
    assert first.get_int_custom_property("pushed") == 1
    where = first.get_string_custom_property("pushed_destination")
    assert second.get_string_custom_property("pushed_destination") == where
    assert names(tmp_path / "pushed") == [Path(where).name]
    assert first.get_string_custom_property("pushed_version") == Path(where).name
    assert (Path(first.uri) / "saved_model.pb").read_text() == "graph"


@pytest.mark.parametrize(("blessed", "infra"), [(False, "INFRA_BLESSED"), (True, "not")])
def test_both_blessings_are_needed(tmp_path: Path, blessed: bool, infra: str) -> None:
    assert push(tmp_path, blessed, infra).get_int_custom_property("pushed") == 0
    assert not (tmp_path / "pushed").exists()


def test_somebody_elses_pipeline_and_kubeflow(tmp_path: Path) -> None:
    model = tfx.dsl.Importer(source_uri="uri", artifact_type=standard_artifacts.Model).with_id(
        "model"
    )
    pusher = ServingPusher(
        model=model.outputs["result"], push_destination=destination(tmp_path / "pushed")
    )
    pipeline = tfx.dsl.Pipeline("foreign", "root", components=[model, pusher])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config, output_dir=str(tmp_path))
    executors = runner.run(pipeline)["pipelineSpec"]["deploymentSpec"]["executors"]
    command = executors["ServingPusher_executor"]["container"]["args"]
    assert "components.serving_pusher.executor.Executor" in command
