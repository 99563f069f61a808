import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer_module.util import environment

environment.prepare()

import pandas as pd  # noqa: E402
import tensorflow_data_validation as tfdv  # noqa: E402
from ml_metadata.metadata_store import MetadataStore  # noqa: E402
from ml_metadata.proto import metadata_store_pb2 as mlmd  # noqa: E402
from tfx import types  # noqa: E402
from tfx import v1 as tfx  # noqa: E402
from tfx.types import artifact_utils, standard_artifacts  # noqa: E402

from components import io  # noqa: E402
from components.artifacts import DataDrift  # noqa: E402
from components.drift_gate.baseline import LatestBlessedStatistics  # noqa: E402
from components.drift_gate.component import DriftGate  # noqa: E402
from components.gate import GateError  # noqa: E402
from schemas.images import image_schema_text  # noqa: E402

pytestmark = pytest.mark.component


def statistics(folder: Path, **cats: int) -> standard_artifacts.ExampleStatistics:
    """Statistics of a hundred labels in each split, so many of them cats."""
    artifact = standard_artifacts.ExampleStatistics()
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(list(cats))
    for split, number in cats.items():
        frame = pd.DataFrame({"label": ["cat"] * number + ["dog"] * (100 - number)})
        path = folder / f"Split-{split}/FeatureStats.pb"
        path.parent.mkdir(parents=True)
        path.write_bytes(tfdv.generate_statistics_from_dataframe(frame).SerializeToString())
    return artifact


def one(kind: type, folder: Path) -> types.Artifact:
    artifact = kind()
    artifact.uri = str(folder)
    return artifact


def do(
    tmp_path: Path, baseline: types.Artifact | None, splits: tuple[str, str], **bounds: float
) -> list[dict[str, object]]:
    (tmp_path / "schema").mkdir(parents=True)
    (tmp_path / "schema/schema.pbtxt").write_text(image_schema_text(["cat", "dog"]))
    DriftGate.test_call(
        statistics=statistics(tmp_path / "present", train=60, test=50),
        schema=one(standard_artifacts.Schema, tmp_path / "schema"),
        baseline_statistics=baseline,
        drift=one(DataDrift, tmp_path / "drift"),
        split=splits[0],
        other_split=splits[1],
        **bounds,
    )
    distances: list[dict[str, object]] = json.loads((tmp_path / "drift/drift.json").read_text())
    return distances


def test_without_a_blessed_model_there_is_skew_only(tmp_path: Path) -> None:
    (skew,) = do(tmp_path, None, ("train", "test"), max_drift=0.01, max_skew=0.2)
    assert skew["metric"] == "skew"
    assert str(skew["note"]).startswith("L-infinity distance 0.1000 less")


def test_data_that_moved_too_far_stops_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    before = statistics(tmp_path / "before", train=95, test=50)
    with pytest.raises(GateError, match=r"drift of label is 0\.1579, must be <= 0\.1000"):
        do(tmp_path, before, ("train", "test"), max_drift=0.1)
    assert not (tmp_path / "drift").exists()
    other = tmp_path / "again"
    drift, skew = do(other, before, ("train", "test"), max_drift=0.16)
    assert (drift["metric"], skew["metric"]) == ("drift", "skew")


@pytest.mark.parametrize("judged", ["test", "eval"])
def test_the_other_split_is_test_or_eval_where_there_is_none(tmp_path: Path, judged: str) -> None:
    present = statistics(tmp_path, **{"train": 90, "eval": 90, judged: 10})
    assert io.judged_split(present) == judged


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have the split 'live', got 'train, test"):
        do(tmp_path, None, ("train", "live"))


@pytest.fixture
def store() -> Iterator[MetadataStore]:
    config = mlmd.ConnectionConfig()
    config.fake_database.SetInParent()
    yield MetadataStore(config)


def publish(
    store: MetadataStore, run: str, blessed: bool
) -> tuple[list[types.Artifact], list[types.Artifact]]:
    """The statistics and the blessing of one run, put into ML Metadata.

    As in TFX, those of StatisticsGen name their splits, and those of Transform, later, do not.
    """
    context = mlmd.Context(
        type_id=store.put_context_type(mlmd.ContextType(name="pipeline_run")), name=run
    )
    (context_id,) = store.put_contexts([context])
    made = []
    for kind, splits in (
        (standard_artifacts.ExampleStatistics, '["train", "eval"]'),
        (standard_artifacts.ModelBlessing, None),
        (standard_artifacts.ExampleStatistics, ""),
    ):
        artifact = kind()
        if splits:
            artifact.split_names = splits
        artifact.set_int_custom_property("blessed", int(blessed))
        artifact.type_id = store.put_artifact_type(artifact.artifact_type)
        (artifact.id,) = store.put_artifacts([artifact.mlmd_artifact])
        link = mlmd.Attribution(artifact_id=artifact.id, context_id=context_id)
        store.put_attributions_and_associations([link], [])
        made.append(artifact)
    return [made[0], made[2]], [made[1]]


def test_the_baseline_is_of_the_last_run_that_was_blessed(store: MetadataStore) -> None:
    runs = [publish(store, f"run{i}", blessed) for i, blessed in enumerate((True, True, False))]
    channels = {
        "statistics": [a for found, _ in runs for a in found],
        "model_blessing": [a for _, found in runs for a in found],
    }
    found = LatestBlessedStatistics().resolve_artifacts(store, channels)
    assert [a.id for a in found["statistics"]] == [runs[1][0][0].id]
    assert [a.id for a in found["model_blessing"]] == [runs[1][1][0].id]


def test_no_blessed_model_is_no_baseline(store: MetadataStore) -> None:
    found, blessings = publish(store, "run", False)
    strategy = LatestBlessedStatistics()
    nothing = {"statistics": [], "model_blessing": []}
    given = {"statistics": found, "model_blessing": blessings}
    assert strategy.resolve_artifacts(store, given) == nothing
    assert strategy.resolve_artifacts(store, {**given, "model_blessing": []}) == nothing


def test_it_compiles_for_kubeflow(tmp_path: Path) -> None:
    importers = [
        tfx.dsl.Importer(source_uri="uri", artifact_type=kind).with_id(node)
        for kind, node in (
            (standard_artifacts.ExampleStatistics, "statistics"),
            (standard_artifacts.Schema, "schema"),
        )
    ]
    gate = DriftGate(**{node.id: node.outputs["result"] for node in importers}, max_drift=0.25)
    pipeline = tfx.dsl.Pipeline("gate", "root", components=[*importers, gate])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config, output_dir=str(tmp_path))
    tasks = runner.run(pipeline)["pipelineSpec"]["root"]["dag"]["tasks"]
    given = tasks["DriftGate"]["inputs"]["parameters"]
    assert given["max_drift"]["runtimeValue"]["constantValue"] == {"doubleValue": 0.25}
