"""Loads the statistics, measures, writes the distances, and lets the run go on or not."""

from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils, standard_component_specs

from components import io
from components.drift_gate import distances, drift

BASELINE_KEY = "baseline_statistics"
DRIFT_KEY = "drift"
SPLIT_KEY, OTHER_SPLIT_KEY = "split", "other_split"
MAX_DRIFT_KEY, MAX_SKEW_KEY = "max_drift", "max_skew"


class Executor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Measures drift and skew; raises where a bound is broken."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Measure.

        Args:
            input_dict: "statistics" and "schema", one artifact each; "baseline_statistics", one or
                none.
            output_dict: "drift", one artifact: a list of distances as JSON.
            exec_properties: The splits to compare, and the bounds.

        Raises:
            gate.GateError: A distance is beyond its threshold.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        one = artifact_utils.get_single_instance
        statistics = one(input_dict[standard_component_specs.STATISTICS_KEY])
        schema = one(input_dict[standard_component_specs.SCHEMA_KEY])
        baseline = input_dict.get(BASELINE_KEY)
        split = exec_properties[SPLIT_KEY]
        other = exec_properties.get(OTHER_SPLIT_KEY) or io.judged_split(statistics)
        found = distances.distances(
            io.schema(schema),
            _load(statistics, split),
            baseline=_load(one(baseline), split) if baseline else None,
            other_split=_load(statistics, other),
            max_drift=exec_properties.get(MAX_DRIFT_KEY),
            max_skew=exec_properties.get(MAX_SKEW_KEY),
        )
        distances.check(found)
        folder = Path(one(output_dict[DRIFT_KEY]).uri)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{drift.FILE_NAME}"
        temporary.write_text(drift.to_json(found))
        temporary.replace(folder / drift.FILE_NAME)


def _load(artifact: types.Artifact, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    known = io.splits(artifact)
    if split not in known:
        raise ValueError(
            f"statistics must have the split {split!r}, got {', '.join(known) or 'none'} in "
            f"{artifact.uri}. Name another split, or have StatisticsGen write it."
        )
    return io.statistics(artifact, split)
