"""ServingPusher: TFX's Pusher with atomic, rising versions and no second push of a model."""

from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.proto import pusher_pb2
from tfx.types import component_spec, standard_artifacts, standard_component_specs

from components.serving_pusher import executor

_KEYS = standard_component_specs


class ServingPusherSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """What TFX's Pusher takes, and the statistics of the model's data."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        _KEYS.PUSH_DESTINATION_KEY: _KEYS.PusherSpec.PARAMETERS[_KEYS.PUSH_DESTINATION_KEY],
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        **_KEYS.PusherSpec.INPUTS,
        _KEYS.STATISTICS_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = _KEYS.PusherSpec.OUTPUTS


class ServingPusher(base_component.BaseComponent):  # type: ignore[misc]
    """Pushes a blessed model as TFX's Pusher does, to a folder that TensorFlow Serving watches.

    In a local folder a new version appears atomically, its number is higher than all others
    whatever the clock says, and a model that is served already is not pushed again.
    """

    SPEC_CLASS = ServingPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        push_destination: pusher_pb2.PushDestination | data_types.RuntimeParameter,
        *,
        model_blessing: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
        statistics: types.BaseChannel | None = None,
    ) -> None:
        """Constructs the component.

        Args:
            model: Model to push.
            push_destination: Where to. The value of a runtime parameter may be a plain folder.
            model_blessing: ModelBlessing without which it is not pushed.
            infra_blessing: InfraBlessing without which it is not pushed.
            statistics: ExampleStatistics of the data it was trained on, kept beside the versions
                for `components.latest_blessed`; a local folder only.
        """
        optional = {
            _KEYS.MODEL_BLESSING_KEY: model_blessing,
            _KEYS.INFRA_BLESSING_KEY: infra_blessing,
            _KEYS.STATISTICS_KEY: statistics,
        }
        super().__init__(
            spec=ServingPusherSpec(
                model=model,
                push_destination=push_destination,
                **{key: channel for key, channel in optional.items() if channel is not None},
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )
