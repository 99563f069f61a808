"""AnomalyGate: stops the run where ExampleValidator found something."""

from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs

import schemas
from components.anomaly_gate import executor


class AnomalyGateSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """Findings in, nothing out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.LABEL_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        standard_component_specs.ANOMALIES_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleAnomalies
        ),
        standard_component_specs.STATISTICS_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics
        ),
        standard_component_specs.SCHEMA_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Schema
        ),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {}


class AnomalyGate(base_component.BaseComponent):  # type: ignore[misc]
    """Fails, with every problem in words, where the data breaks its schema.

    ExampleValidator only writes down what it finds. Nodes that must not see bad data call
    `add_upstream_node(gate)`.
    """

    SPEC_CLASS = AnomalyGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        anomalies: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        label: str = schemas.LABEL,
    ) -> None:
        """Construct the component.

        Args:
            anomalies: ExampleAnomalies of every split.
            statistics: ExampleStatistics the anomalies were found in.
            schema: Schema they were held against.
            label: Name of the label feature, which must take at least two values in each split.
        """
        super().__init__(
            spec=AnomalyGateSpec(
                anomalies=anomalies, statistics=statistics, schema=schema, label=label
            )
        )
