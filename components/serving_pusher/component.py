"""ServingPusher: TFX's Pusher with whole, monotonic versions and no second push of a model."""

from tfx.components.pusher.component import Pusher
from tfx.dsl.components.base import executor_spec

from components.serving_pusher import executor


class ServingPusher(Pusher):  # type: ignore[misc]
    """Takes what TFX's Pusher takes, and is pushed to in the same way.

    In a local folder a new version appears under its name only when it is complete, its number is
    higher than all that are there whatever the clock says, and a model that is served already is
    not pushed again.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
