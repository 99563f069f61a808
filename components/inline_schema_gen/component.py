"""InlineSchemaGen: a schema that is part of the pipeline itself."""

from typing import Any, ClassVar

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs

from components.inline_schema_gen import executor
from schemas import parameter


class InlineSchemaGenSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """Text in, schema out."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.TEXT_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, Any]] = {}
    OUTPUTS: ClassVar[dict[str, Any]] = {
        standard_component_specs.SCHEMA_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Schema
        ),
    }


class InlineSchemaGen(base_component.BaseComponent):  # type: ignore[misc]
    """Writes the schema it was given.

    TFX's ImportSchemaGen takes a path, which a container may not see, and whose content the cache
    does not. Here the text is a parameter: it is compiled into the pipeline and is part of the
    cache key.
    """

    SPEC_CLASS = InlineSchemaGenSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, schema: str) -> None:
        """Construct the component.

        Args:
            schema: TFMD schema as text (.pbtxt).

        Raises:
            ValueError: It is no such text.
        """
        try:
            text_format.Parse(schema, schema_pb2.Schema())
        except text_format.ParseError as error:
            raise ValueError(
                f"schema must be a TFMD schema as text, got {schema[:60]!r} ({error}). "
                "Give the content of a .pbtxt file, not its path."
            ) from error
        super().__init__(
            spec=InlineSchemaGenSpec(
                text=parameter.compressed(schema),
                schema=types.Channel(type=standard_artifacts.Schema),
            )
        )
