"""Schema of image examples, for any list of classes."""

from collections.abc import Sequence

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

import schemas


def image_schema(classes: Sequence[str]) -> schema_pb2.Schema:
    """Returns the schema of the examples of ImageExampleGen: three scalars each.

    Args:
        classes: Every class name; a label that is none of them is an anomaly.

    Raises:
        ValueError: Fewer than two classes, or two equal ones.
    """
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(
            f"classes must be two or more different names, got {list(classes)!r}. "
            "Give each class once."
        )
    schema = schema_pb2.Schema()
    for name in (schemas.IMAGE, schemas.LABEL, schemas.FILE_NAME):
        feature = schema.feature.add(name=name, type=schema_pb2.BYTES)
        feature.presence.min_fraction = 1.0
        feature.presence.min_count = 1
        feature.shape.SetInParent()
        if name == schemas.LABEL:
            feature.domain = schemas.LABEL
    schema.string_domain.add(name=schemas.LABEL, value=sorted(classes))
    return schema


def image_schema_text(classes: Sequence[str]) -> str:
    """Returns `image_schema(classes)` as text (.pbtxt)."""
    return str(text_format.MessageToString(image_schema(classes), as_utf8=True))
