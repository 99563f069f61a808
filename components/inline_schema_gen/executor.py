"""Writes the text of a parameter as a Schema artifact."""

from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils, standard_component_specs

from schemas import parameter

TEXT_KEY = "text"
FILE_NAME = "schema.pbtxt"


class Executor(base_executor.BaseExecutor):  # type: ignore[misc]
    """From text to artifact."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the schema.

        Args:
            input_dict: Empty.
            output_dict: "schema", one artifact.
            exec_properties: "text", the schema as text, compressed if it is long.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        uri = artifact_utils.get_single_uri(output_dict[standard_component_specs.SCHEMA_KEY])
        folder = Path(uri)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder.parent / f".{folder.name}.{FILE_NAME}"
        temporary.write_text(parameter.text(exec_properties[TEXT_KEY]), encoding="utf-8")
        temporary.replace(folder / FILE_NAME)
