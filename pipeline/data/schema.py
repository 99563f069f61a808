"""Schemas of a run: read from a file, checked against classes, cut to the columns that are used."""

import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

import schemas
from trainer_module.config import TableFeatures
from trainer_module.util.checks import UserError, require
from trainer_module.util.text import listed

MAX_BYTES = 16 * 1024**2


def read(path: str | os.PathLike[str]) -> schema_pb2.Schema:
    """Returns the TFMD schema in a text file (.pbtxt).

    Raises:
        UserError: It cannot be read, is no schema, or has more than `MAX_BYTES`.
    """
    schema = schema_pb2.Schema()
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        text_format.Parse(content.decode("utf-8"), schema)
    # The parser lets through what the reading of single numbers and texts raises.
    except (OSError, ValueError, RecursionError, text_format.ParseError) as error:
        rule = f"{path}: the schema must be a readable TFMD schema as text"
        raise UserError(rule, str(error), "Check `schema`.") from error
    return schema


def values(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> tuple[str, ...]:
    """Returns the values in the domain of a feature, sorted; none if it has no such domain."""
    named = {domain.name: domain.value for domain in schema.string_domain}
    return tuple(sorted(feature.string_domain.value or named.get(feature.domain, ())))


def labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the values of the label in a schema of images, in the order of the label indices.

    Raises:
        UserError: As `read`.
    """
    schema = read(path)
    return next((values(schema, f) for f in schema.feature if f.name == schemas.LABEL), ())


def check_classes(
    folder: str | os.PathLike[str], classes: Sequence[str], path: str | os.PathLike[str]
) -> None:
    """Checks the class folders of an image folder against a schema.

    Args:
        folder: The data folder.
        classes: Names of its class folders.
        path: TFMD schema as text (.pbtxt).

    Raises:
        UserError: The schema is none of images, or a class is not among its labels.
    """
    names = [feature.name for feature in read(path).feature]
    needed = (schemas.IMAGE, schemas.LABEL, schemas.FILE_NAME)
    require(
        set(needed) <= set(names),
        f"{path}: the schema of images must describe {', '.join(needed)}",
        listed(names),
        "Check `schema`, or leave it out.",
    )
    known = labels(path)
    unknown = [name for name in classes if known and name not in known]
    require(
        not unknown,
        f"{folder}: each class folder must be among the labels of the schema "
        f"{Path(path).name} ({listed(known, 20)})",
        unknown,
        "Rename the folders, name another `schema`, or run a preset without one, as images.",
    )


def of_table(schema: str, features: TableFeatures) -> str:
    """Returns a schema of the columns that a run uses, in the terms of CsvExampleGen.

    Columns that the features do not use are left out, so that they are neither parsed nor
    validated. Where TFDV infers that a column has one value if any, CsvExampleGen writes an empty
    cell as a feature without values: the least number of values of such a column is none. Each row
    has a label.

    Args:
        schema: TFMD schema as text (.pbtxt).
        features: How columns are used.
    """
    parsed = text_format.Parse(schema, schema_pb2.Schema())
    used = {*features.inputs, *features.labels}
    kept = [feature for feature in parsed.feature if feature.name in used]
    for field in ("feature", "sparse_feature", "weighted_feature"):
        parsed.ClearField(field)
    for feature in kept:
        # It is used, at whatever stage the schema has it.
        feature.ClearField("lifecycle_stage")
        feature.ClearField("deprecated")
        if feature.name in features.labels:
            feature.presence.min_fraction = 1
            feature.presence.min_count = 1
            if feature.type == schema_pb2.FLOAT:
                feature.float_domain.disallow_nan = True
                feature.float_domain.disallow_inf = True
        elif feature.presence.min_fraction < 1 and feature.HasField("value_count"):
            feature.value_count.min = 0
    parsed.feature.extend(kept)
    text: str = text_format.MessageToString(parsed, as_utf8=True)
    return text
