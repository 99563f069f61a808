"""LatestBlessed: the last blessed model where no ML Metadata can be asked."""

from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import component_spec, standard_artifacts

from components.latest_blessed import executor


class LatestBlessedSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """A folder in, a model and the statistics of its data out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.FOLDER_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, Any]] = {}
    OUTPUTS: ClassVar[dict[str, Any]] = {
        executor.MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        executor.STATISTICS_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics
        ),
    }


class LatestBlessed(base_component.BaseComponent):  # type: ignore[misc]
    """Takes the newest version that ServingPusher wrote, since only blessed models are pushed.

    Open-source Kubeflow Pipelines runs no Resolver, so an ordinary component looks. An ordinary
    component cannot leave an output out either: before the first push its outputs are empty and
    their custom property `absent` is 1, and whatever runs the tasks must not hand them on
    (`pipeline.kubeflow_task` does not). Its result must not be cached.
    """

    SPEC_CLASS = LatestBlessedSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, pushed: str | data_types.RuntimeParameter) -> None:
        """Construct the component.

        Args:
            pushed: Folder of pushed models.
        """
        super().__init__(
            spec=LatestBlessedSpec(
                pushed=pushed,
                model=types.Channel(type=standard_artifacts.Model),
                statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
            )
        )
