"""DriftGate: stops the run where new data lies too far from what the last model was trained on."""

from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs

from components.artifacts import DataDrift
from components.drift_gate import executor


class DriftGateSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """Statistics now and then in, distances out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.SPLIT_KEY: component_spec.ExecutionParameter(type=str),
        executor.OTHER_SPLIT_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.MAX_DRIFT_KEY: component_spec.ExecutionParameter(type=float, optional=True),
        executor.MAX_SKEW_KEY: component_spec.ExecutionParameter(type=float, optional=True),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        standard_component_specs.STATISTICS_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics
        ),
        standard_component_specs.SCHEMA_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Schema
        ),
        executor.BASELINE_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {
        executor.DRIFT_KEY: component_spec.ChannelParameter(type=DataDrift),
    }


class DriftGate(base_component.BaseComponent):  # type: ignore[misc]
    """Measures drift against the last blessed model's data, and skew between two splits.

    Nodes that must not see data beyond the bounds call `add_upstream_node(gate)`. The output
    `drift` holds `drift.json`: every distance with its bound, the largest first.
    """

    SPEC_CLASS = DriftGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        baseline_statistics: types.BaseChannel | None = None,
        *,
        max_drift: float | None = None,
        max_skew: float | None = None,
        split: str = "train",
        other_split: str | None = None,
    ) -> None:
        """Construct the component.

        Args:
            statistics: ExampleStatistics of the new data.
            schema: Its schema.
            baseline_statistics: ExampleStatistics of the last blessed run, as from a Resolver with
                `components.drift_gate.baseline`; may be empty, and then there is no drift.
            max_drift: Largest distance (0 to 1) of any feature from the baseline; measured only,
                if not given. Of categorical features it is TFDV's L-infinity distance, of numeric
                ones the Kolmogorov-Smirnov distance; from both the sampling error is taken off.
            max_skew: Largest distance (0 to 1) of any feature between the splits.
            split: Split to compare with its baseline.
            other_split: Split to compare it with for skew; `test` if not given, or `eval` where the
                statistics have no `test`.
        """
        super().__init__(
            spec=DriftGateSpec(
                statistics=statistics,
                schema=schema,
                baseline_statistics=baseline_statistics,
                max_drift=max_drift,
                max_skew=max_skew,
                split=split,
                other_split=other_split,
                drift=types.Channel(type=DataDrift),
            )
        )
