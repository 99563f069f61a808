"""The names of our artifact types, by the rules of TFX and of Kubeflow."""

import subprocess
import sys
from pathlib import Path

import pytest

import components
from components import artifacts

ROOT = Path(__file__).parents[2]
TYPES = [
    value
    for value in vars(artifacts).values()
    if isinstance(value, type) and value.__module__ == artifacts.__name__
]
RESTORED = """
import sys
from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint
from tfx.types import artifact_utils
from tfx.utils import import_utils

for name in sys.argv[1:]:
    schema = pb.ArtifactTypeSchema(instance_schema=f"title: {name}\\ntype: object\\n")
    listed = pb.ArtifactList(artifacts=[pb.RuntimeArtifact(uri="/a", type=schema)])
    [artifact] = entrypoint.parse_raw_artifact_dict({"a": listed})["a"]
    assert artifact.type_name == name, artifact
    assert import_utils.import_class_by_path(name) is type(artifact)
    stored = artifact_utils.deserialize_artifact(mlmd.ArtifactType(name=name))
    assert type(stored) is type(artifact), stored
"""


def test_kubeflow_takes_the_names():
    from tfx.orchestration.kubeflow.v2 import compiler_utils

    assert len(TYPES) >= 3
    for kind in TYPES:
        assert f"title: {kind.TYPE_NAME}\n" in compiler_utils.get_artifact_schema(kind)


@pytest.mark.component
def test_tfx_restores_the_classes_by_their_names_alone():
    """In a process that has imported nothing of ours; TFX's own entrypoint knows nothing more."""
    names = [kind.TYPE_NAME for kind in TYPES]
    done = subprocess.run(
        [sys.executable, "-c", RESTORED, *names], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_listed_before_they_are_imported():
    code = "import sys, components; print(*dir(components)); sys.exit('tfx' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == components.__all__


def test_every_component_and_artifact_type_is_public():
    folders = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
    homes = {name: getattr(components, name).__module__ for name in components.__all__}
    assert {f"components.{folder}.component" for folder in folders} == {
        home for home in homes.values() if home.endswith(".component")
    }
    assert all(getattr(components, kind.__name__) is kind for kind in TYPES)
