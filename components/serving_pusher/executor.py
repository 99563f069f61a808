"""Executor of ServingPusher: pushes a blessed model atomically as a new version."""

from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.pusher import executor as pusher
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

from components.serving_pusher import versions


class Executor(pusher.Executor):  # type: ignore[misc]
    """TFX's executor, but for how a model gets into a local folder."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model if it is blessed.

        Args:
            input_dict: "model" and the blessings; "statistics" if they are to be kept.
            output_dict: "pushed_model".
            exec_properties: "push_destination": a PushDestination as JSON or, as in a run of a
                compiled pipeline, a folder.

        Raises:
            OSError: The destination cannot be written; it is as it was.
        """
        destination = _destination(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY])
        folder = destination.filesystem.base_directory
        if not folder or "://" in folder:
            # Renaming is not atomic on object stores; there, TFX copies saved_model.pb last.
            text = proto_utils.proto_to_json(destination)
            properties = {**exec_properties, standard_component_specs.PUSH_DESTINATION_KEY: text}
            super().Do(input_dict, output_dict, properties)
            return
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.PUSHED_MODEL_KEY]
        )
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        model = self.GetModelPath(input_dict)
        optional = input_dict.get(standard_component_specs.STATISTICS_KEY)
        statistics = Path(artifact_utils.get_single_uri(optional)) if optional else None
        version = versions.push(Path(model), Path(folder), statistics=statistics)
        io_utils.copy_dir(model, pushed.uri)
        self._MarkPushed(pushed, pushed_destination=str(version), pushed_version=version.name)


def _destination(value: str) -> pusher_pb2.PushDestination:
    destination = pusher_pb2.PushDestination()
    if value.lstrip().startswith("{"):
        proto_utils.json_to_proto(value, destination)
    else:
        destination.filesystem.base_directory = value
    return destination
