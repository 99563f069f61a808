"""Loads what the validator found and puts it to the gate."""

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils, standard_component_specs

from components import io
from components.anomaly_gate import anomalies as logic

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
            gate.GateError: The data breaks the schema, a split is empty, or the label never varies.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        one = artifact_utils.get_single_instance
        anomalies = one(input_dict[standard_component_specs.ANOMALIES_KEY])
        statistics = one(input_dict[standard_component_specs.STATISTICS_KEY])
        schema = one(input_dict[standard_component_specs.SCHEMA_KEY])
        logic.check(
            {s: io.anomalies(anomalies, s) for s in io.splits(anomalies)},
            {s: io.statistics(statistics, s) for s in io.splits(statistics)},
            io.schema(schema),
            exec_properties[LABEL_KEY],
        )
