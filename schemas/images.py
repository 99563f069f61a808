"""The schema of image examples, for any list of classes."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

import schemas


def image_schema(classes: Sequence[str]) -> schema_pb2.Schema:
    """Schema of what ImageExampleGen writes: three scalars in every example.

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


def write_image_schema(classes: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Write `image_schema(classes)` as text, whole or not at all; unchanged text stays untouched.

    Args:
        classes: As for `image_schema`.
        path: The .pbtxt file; missing folders are made.

    Returns:
        The path.

    Raises:
        ValueError: As `image_schema`.
    """
    path = Path(path)
    text = text_format.MessageToString(image_schema(classes), as_utf8=True)
    # Importers hash what they import: a new time on equal text should invalidate nothing.
    if path.is_file() and path.read_text("utf-8") == text:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    return path
