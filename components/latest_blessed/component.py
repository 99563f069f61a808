"""LatestBlessed: the last blessed model where no ML Metadata can be queried."""

import json
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import component_spec, standard_artifacts

from components.known_classes import Known
from components.latest_blessed import executor
from schemas import parameter


class LatestBlessedSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """A folder in, a model and the statistics of its data out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.FOLDER_KEY: component_spec.ExecutionParameter(type=str),
        executor.KIND_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.CLASSES_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.ALLOW_KEY: component_spec.ExecutionParameter(type=int, optional=True),
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
    (`components.container` does not). Its result must not be cached.
    """

    SPEC_CLASS = LatestBlessedSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        pushed: str | data_types.RuntimeParameter,
        *,
        known: Known | None = None,
        allow_class_change: bool = False,
    ) -> None:
        """Constructs the component.

        Args:
            pushed: Folder of pushed models.
            known: Classes of the new model; if not None, the component fails where the last
                blessed model knows other classes.
            allow_class_change: Whether a model of images may have other classes.
        """
        gate = {}
        if known is not None:
            gate = {
                executor.KIND_KEY: known.kind,
                executor.CLASSES_KEY: parameter.compressed(json.dumps(known.classes)),
                executor.ALLOW_KEY: int(allow_class_change),
            }
        super().__init__(
            spec=LatestBlessedSpec(
                pushed=pushed,
                **gate,
                model=types.Channel(type=standard_artifacts.Model),
                statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
            )
        )
