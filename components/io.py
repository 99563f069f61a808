"""Standard artifacts read as messages of TFDV and TFMD, and texts written beside them."""

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.components.example_validator import executor as validator
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from trainer_module.util.checks import require


def splits(artifact: types.Artifact) -> list[str]:
    """Returns the names of an artifact's splits."""
    names: list[str] = artifact_utils.decode_split_names(artifact.split_names)
    return names


def judged_split(artifact: types.Artifact) -> str:
    """Returns the split that gates use by default: `test`, or TFX's `eval` without one."""
    return "test" if "test" in splits(artifact) else "eval"


def anomalies(artifact: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    """Returns the anomalies that ExampleValidator wrote for a split."""
    uri = artifact_utils.get_split_uri([artifact], split)
    content = io_utils.read_bytes_file(f"{uri}/{validator.DEFAULT_FILE_NAME}")
    return anomalies_pb2.Anomalies.FromString(content)


def statistics(artifact: types.Artifact, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Returns the statistics that StatisticsGen wrote for a split.

    Raises:
        UserError: There is no such split.
    """
    require(
        split in splits(artifact),
        f"statistics must have the split {split!r}",
        f"{', '.join(splits(artifact)) or 'none'} in {artifact.uri}",
        "Name another split, or have StatisticsGen write it.",
    )
    return stats_artifact_utils.load_statistics(artifact, split).proto()


def write(path: str, text: str) -> None:
    """Writes a text file atomically; its folder is created if it does not exist."""
    folder, _, name = path.rpartition("/")
    fileio.makedirs(folder)
    temporary = f"{folder}/.{name}.part"
    with fileio.open(temporary, "wb") as file:
        file.write(text.encode())
    fileio.rename(temporary, path, overwrite=True)


def schema(artifact: types.Artifact) -> schema_pb2.Schema:
    """Returns the schema of a Schema artifact."""
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(artifact.uri))
