import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from PIL import Image
from tfx import v1 as tfx

from components.image_example_gen import folder
from components.image_example_gen.component import ImageExampleGen
from trainer_module.util.checks import UserError

pytestmark = pytest.mark.component


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for i, split in enumerate(folder.SPLITS):
        for j, label in enumerate("ab"):
            paint(root / split / label / "1.png", 10 * i + j)
    return root


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Callable[[], str]:
    """Runs the component in a real pipeline and gives the state of its last execution."""
    database = tmp_path / "metadata.db"
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(database))

    def state(on_bad_image: str = "fail", group_by: str | None = None) -> str:
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="ingest",
            pipeline_root=str(tmp_path / "root"),
            components=[ImageExampleGen(str(data), on_bad_image, group_by)],
            enable_cache=True,
            metadata_connection_config=connection,
        )
        tfx.orchestration.LocalDagRunner().run(pipeline)
        store = MetadataStore(connection)
        last = max(store.get_executions(), key=lambda execution: execution.id)
        return metadata_store_pb2.Execution.State.Name(last.last_known_state)

    return state


def test_cache_follows_the_images_and_the_rule_of_splitting(
    data: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == "COMPLETE"
    assert run() == "CACHED"
    (data / "README").touch()
    assert run() == "CACHED"
    paint(data / "train/a/2.png", 99)
    assert run() == "COMPLETE", "added"
    (data / "train/a/2.png").rename(data / "train/b/2.png")
    assert run() == "COMPLETE", "moved to another class"
    assert run() == "CACHED"
    paint(data / "train/b/2.png", 100)
    assert run() == "COMPLETE", "replaced"
    paint(data / "train/b/3.png", 101)
    assert run() == "COMPLETE"
    (data / "train/b/2.png").unlink()
    assert run() == "COMPLETE", "removed"
    (data / "train/b/3.png").unlink()
    assert run() == "CACHED", "back at the first state"
    assert run("fail", r"^\w+/\w/\d") == "COMPLETE", "grouped"
    assert run("fail", r"^\w+/\w") == "COMPLETE", "grouped in another way"
    assert run("fail", r"^\w+/\w/\d") == "CACHED"
    monkeypatch.setattr("components.image_example_gen.split.RULE", 99)
    assert run("fail", r"^\w+/\w/\d") == "COMPLETE", "another rule"


def test_a_failure_publishes_nothing_and_its_error_is_clean(
    data: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    (data / "train/a/bad.png").touch()
    with pytest.raises(UserError, match=r"bad.png: the file is empty"):
        run()
    assert not list((tmp_path / "root").rglob("*.gz"))
    assert run("skip") == "COMPLETE"
    assert len(list((tmp_path / "root").rglob("*.gz"))) == 3


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="fail or skip, got 'ignore'"):
        ImageExampleGen("data", "ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be a regular expression .*, got '\*'"):
        ImageExampleGen("data", group_by="*")


def test_it_compiles_for_kubeflow(tmp_path: Path) -> None:
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="ingest", pipeline_root="root", components=[ImageExampleGen("data", "skip")]
    )
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(
        config, output_dir=str(tmp_path), output_filename="pipeline.json"
    )
    runner.run(pipeline)
    spec = json.loads((tmp_path / "pipeline.json").read_text())["pipelineSpec"]
    parameters = spec["root"]["dag"]["tasks"]["ImageExampleGen"]["inputs"]["parameters"]
    assert parameters["on_bad_image"]["runtimeValue"] == {"constantValue": {"stringValue": "skip"}}
    assert parameters["split_rule"]["runtimeValue"] == {"constantValue": {"intValue": "2"}}
    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert "components.image_example_gen.executor.Executor" in executor["container"]["args"]
    assert "preCacheCheck" in executor["container"]["lifecycle"]
