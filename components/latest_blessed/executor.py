"""Executor of LatestBlessed: copies the last blessed model and its statistics."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components import known_classes
from components.artifacts import ABSENT
from components.serving_pusher import versions
from schemas import parameter

FOLDER_KEY = "pushed"
KIND_KEY, CLASSES_KEY, ALLOW_KEY = "kind", "classes", "allow_class_change"
MODEL_KEY, STATISTICS_KEY = "model", "statistics"


class Executor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Copies the newest pushed model, or marks its outputs as absent."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the newest pushed model and its statistics.

        Args:
            input_dict: Empty.
            output_dict: "model" and "statistics"; the custom property `absent` is 1 where there is
                none yet.
            exec_properties: "pushed", the folder of pushed models; "kind", "classes" (a JSON list,
                compressed if it is long) and "allow_class_change" where classes are to be checked.

        Raises:
            PermissionError: The folder cannot be written, so that the push would fail at the end.
            gate.GateError: The last blessed model knows other classes.
            OSError: The folder cannot be read.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = Path(exec_properties[FOLDER_KEY])
        _check_writable(folder)
        source = versions.latest(folder)
        if source is not None and exec_properties.get(KIND_KEY):
            classes = tuple(json.loads(parameter.text(exec_properties[CLASSES_KEY])))
            known_classes.check(
                source,
                known_classes.Known(exec_properties[KIND_KEY], classes),
                allow_change=bool(exec_properties.get(ALLOW_KEY)),
            )
        kept = versions.statistics_of(source) if source is not None else None
        if kept is not None and not kept.is_dir():
            kept = None
        model = artifact_utils.get_single_instance(output_dict[MODEL_KEY])
        _fill(model, source, Path(path_utils.serving_model_dir(model.uri)))
        statistics = artifact_utils.get_single_instance(output_dict[STATISTICS_KEY])
        _fill(statistics, kept, Path(statistics.uri))
        if kept is not None:
            splits = sorted(path.name.removeprefix("Split-") for path in kept.glob("Split-*"))
            statistics.split_names = artifact_utils.encode_split_names(splits)


def _check_writable(folder: Path) -> None:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _fill(artifact: types.Artifact, source: Path | None, destination: Path) -> None:
    Path(artifact.uri).mkdir(parents=True, exist_ok=True)
    artifact.set_int_custom_property(ABSENT, int(source is None))
    if source is not None:
        shutil.copytree(source, destination, dirs_exist_ok=True)
        artifact.set_string_custom_property("origin", str(source))
