"""Loads what the validator found and puts it to the gate."""

from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx import types
from tfx.components.example_validator import executor as validator
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from components.anomaly_gate import logic

LABEL_KEY = "label"


class Executor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Raises where the data breaks the schema, and writes nothing."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Judge all splits.

        Args:
            input_dict: "anomalies", "statistics" and "schema", one artifact each.
            output_dict: Empty.
            exec_properties: "label", the name of the label feature.

        Raises:
            AnomalyError: The data breaks the schema, a split is empty, or the label never varies.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        one = artifact_utils.get_single_instance
        anomalies = one(input_dict[standard_component_specs.ANOMALIES_KEY])
        statistics = one(input_dict[standard_component_specs.STATISTICS_KEY])
        schema = one(input_dict[standard_component_specs.SCHEMA_KEY])
        logic.check(
            {s: _anomalies(anomalies, s) for s in _splits(anomalies)},
            {
                s: stats_artifact_utils.load_statistics(statistics, s).proto()
                for s in _splits(statistics)
            },
            _schema(schema),
            exec_properties[LABEL_KEY],
        )


def _splits(artifact: types.Artifact) -> list[str]:
    splits: list[str] = artifact_utils.decode_split_names(artifact.split_names)
    return splits


def _anomalies(artifact: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    uri = artifact_utils.get_split_uri([artifact], split)
    content = io_utils.read_bytes_file(f"{uri}/{validator.DEFAULT_FILE_NAME}")
    return anomalies_pb2.Anomalies.FromString(content)


def _schema(artifact: types.Artifact) -> schema_pb2.Schema:
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(artifact.uri))
