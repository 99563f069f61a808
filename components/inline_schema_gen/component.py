"""InlineSchemaGen: a schema that is part of the pipeline itself."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Schema

from schemas import parameter
from trainer_module.util import files
from trainer_module.util.checks import UserError

FILE_NAME = "schema.pbtxt"


@component  # type: ignore[untyped-decorator]
def WriteSchema(text: Parameter[str], schema: OutputArtifact[Schema]) -> None:  # noqa: N802
    """Writes the text of a parameter, compressed if it is long, as a Schema artifact."""
    folder = Path(schema.uri)
    folder.mkdir(parents=True, exist_ok=True)
    with files.atomic(folder / FILE_NAME) as temporary:
        temporary.write_text(parameter.text(text), encoding="utf-8")


class InlineSchemaGen(WriteSchema):  # type: ignore[misc, valid-type]
    """Writes a schema that is a parameter.

    TFX's ImportSchemaGen takes a path, which a container may not see, and whose content the cache
    does not. Here the text is compiled into the pipeline and is part of the cache key.
    """

    def __init__(self, schema: str) -> None:
        """Constructs the component.

        Args:
            schema: TFMD schema as text (.pbtxt).

        Raises:
            UserError: It is no such text.
        """
        try:
            text_format.Parse(schema, schema_pb2.Schema())
        except text_format.ParseError as error:
            raise UserError(
                f"`schema` must be a TFMD schema as text ({error})",
                schema[:60],
                "Give the content of a .pbtxt file, not its path.",
            ) from error
        super().__init__(text=parameter.compressed(schema))
