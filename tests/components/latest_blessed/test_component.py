from pathlib import Path

import pytest

from trainer_module.util import environment

environment.prepare()

from tfx import v1 as tfx  # noqa: E402
from tfx.types import standard_artifacts  # noqa: E402

import schemas  # noqa: E402
from components.artifacts import ABSENT  # noqa: E402
from components.gate import GateError  # noqa: E402
from components.latest_blessed.component import CopyLatest, LatestBlessed  # noqa: E402
from components.serving_pusher import versions as serving  # noqa: E402

pytestmark = pytest.mark.component


def look(
    tmp_path: Path, **known: object
) -> tuple[standard_artifacts.Model, standard_artifacts.ExampleStatistics]:
    model, statistics = standard_artifacts.Model(), standard_artifacts.ExampleStatistics()
    model.uri, statistics.uri = str(tmp_path / "out/model"), str(tmp_path / "out/statistics")
    CopyLatest.test_call(
        pushed=str(tmp_path / "pushed"), model=model, statistics=statistics, **known
    )
    return model, statistics


def test_before_the_first_push_both_say_that_they_are_absent(tmp_path: Path) -> None:
    for artifact in look(tmp_path):
        assert artifact.get_int_custom_property(ABSENT) == 1
        assert list(Path(artifact.uri).iterdir()) == []


def test_what_was_pushed_comes_back(tmp_path: Path) -> None:
    source, statistics = tmp_path / "source", tmp_path / "statistics"
    for path in (source, statistics / "Split-train", statistics / "Split-test"):
        path.mkdir(parents=True)
        (path / "saved_model.pb").write_text(path.name)
    serving.push(source, tmp_path / "pushed", statistics=statistics)
    model, found = look(tmp_path)
    assert model.get_int_custom_property(ABSENT) == found.get_int_custom_property(ABSENT) == 0
    assert (Path(model.uri) / "Format-Serving/saved_model.pb").read_text() == "source"
    assert found.split_names == '["test", "train"]'
    assert (Path(found.uri) / "Split-test/saved_model.pb").read_text() == "Split-test"


def test_a_model_of_other_classes_stops_the_run_unless_it_may_change(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / schemas.CLASSES_FILE).parent.mkdir(parents=True)
    (source / schemas.CLASSES_FILE).write_text('{"kind": "images", "classes": ["cat", "dog"]}')
    (source / "saved_model.pb").write_text("model")
    known = {"known": '{"kind": "images", "classes": ["car", "bus"]}'}
    look(tmp_path / "none", **known, allow_class_change=0)
    serving.push(source, tmp_path / "pushed")
    with pytest.raises(GateError, match="images, 'cat', 'dog'"):
        look(tmp_path, **known, allow_class_change=0)
    look(tmp_path, **known, allow_class_change=1)
    same = {"known": '{"kind": "images", "classes": ["dog", "cat"]}'}
    look(tmp_path, **same, allow_class_change=0)


def test_somebody_elses_pipeline_and_kubeflow(tmp_path: Path) -> None:
    latest = LatestBlessed(
        tfx.dsl.experimental.RuntimeParameter(name="pushed", ptype=str, default="/models")
    )
    example = tfx.dsl.Importer(source_uri="uri", artifact_type=standard_artifacts.Examples).with_id(
        "examples"
    )
    evaluator = tfx.components.Evaluator(
        examples=example.outputs["result"],
        model=latest.outputs["model"],
        baseline_model=latest.outputs["model"],
    )
    pipeline = tfx.dsl.Pipeline("foreign", "root", components=[example, latest, evaluator])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config)
    compiled = runner.run(pipeline, write_out=False)
    assert "LatestBlessed" in compiled["pipelineSpec"]["root"]["dag"]["tasks"]
