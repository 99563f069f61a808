"""The schema that the data of a table's run has to follow."""

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from trainer_module.config import TableFeatures


def of_table(schema: str, features: TableFeatures) -> str:
    """Returns a schema of the columns that a run uses, in the terms of CsvExampleGen.

    Columns that no flag uses are left out, so that they are neither parsed nor validated. Where
    TFDV infers that a column has one value if any, CsvExampleGen writes an empty cell as a feature
    without values: the least number of values of such a column is none. Each row has a label.

    Args:
        schema: TFMD schema as text (.pbtxt).
        features: How columns are used.
    """
    parsed = text_format.Parse(schema, schema_pb2.Schema())
    labels = features.labels
    used = {*features.inputs, *labels}
    kept = [feature for feature in parsed.feature if feature.name in used]
    for field in ("feature", "sparse_feature", "weighted_feature"):
        parsed.ClearField(field)
    for feature in kept:
        # A flag uses it, at whatever stage the schema has it.
        feature.ClearField("lifecycle_stage")
        feature.ClearField("deprecated")
        if feature.name in labels:
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
