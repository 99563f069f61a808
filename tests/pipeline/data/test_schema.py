"""A schema that TensorFlow Data Validation infers, from the file to the gate."""

import tarfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.data import schema as contract
from pipeline.data.csv_check import check_table
from trainer_module.config import TableFeatures

HEADER = "id,age,town,alive,note,nothing,fare,label\n"
ROWS = [
    # An optional number, an optional word, one of two values, and columns that no flag uses: with
    # one value a row, of two kinds, without any.
    f"{i},{'' if i % 7 == 0 else i % 90},{['Ulm', 'Bonn', ''][i % 3]},{i % 2},"
    f"{'x' if i == 300 else i},,{i / 4},{['no', 'yes'][i % 2]}\n"
    for i in range(400)
]
FEATURES = TableFeatures(numeric=("age", "fare"), categorical=("town", "alive"))


def infer(folder: Path) -> str:
    import tensorflow_data_validation as tfdv

    statistics = tfdv.generate_statistics_from_csv(f"{folder}/*.csv")
    return str(text_format.MessageToString(tfdv.infer_schema(statistics), as_utf8=True))


def anomalies(folder: Path, schema: str, work: Path, label: str = "label") -> list[str]:
    """What the gate says of the table as CsvExampleGen reads it."""
    import apache_beam as beam
    import tensorflow_data_validation as tfdv
    from tfx.components.example_gen.csv_example_gen.executor import _CsvToExample

    from components.anomaly_gate.anomalies import find_problems

    records = str(work / "records")
    with beam.Pipeline() as pipeline:
        _ = (
            pipeline
            | _CsvToExample({"input_base": str(folder)}, "*.csv")
            | beam.Map(lambda example: example.SerializeToString())
            | beam.io.WriteToTFRecord(records, shard_name_template="")
        )
    statistics = tfdv.generate_statistics_from_tfrecord(records)
    parsed = text_format.Parse(schema, schema_pb2.Schema())
    found = tfdv.validate_statistics(statistics, parsed)
    return [str(p) for p in find_problems({"all": found}, {"all": statistics}, parsed, label)]


@pytest.mark.component
def test_a_schema_that_tfdv_infers_is_accepted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.csv").write_text(HEADER + "".join(ROWS))
    inferred = infer(data)
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(inferred)
    assert check_table(data, schema, FEATURES, ("no", "yes")) == 400
    assert anomalies(data, contract.of_table(inferred, FEATURES), tmp_path) == []
    assert any("age" in line for line in anomalies(data, inferred, tmp_path)), "as TFDV has it"
    # A later file, whose columns that nobody uses are others, without names or twice there.
    later = "\ufeffID,age,,town,alive,more,more,fare,label\n"
    later += "x,1,?,Ulm,0,y,1,2.5,no\n" * 9 + "x,1,,Ulm,1,2,y,2.5,yes\n"
    (data / "a.csv").write_text(later)
    assert check_table(data, schema, FEATURES, ("no", "yes")) == 10
    assert anomalies(data, contract.of_table(inferred, FEATURES), tmp_path) == []


@pytest.mark.component
@pytest.mark.parametrize(
    ("name", "features", "classes"),
    [
        (
            "titanic",
            TableFeatures(
                numeric=("age", "fare"), categorical=("sex", "embarked", "deck"), label="survived"
            ),
            ("0", "1"),
        ),
        (
            "iris",
            TableFeatures(numeric=("sepal length (cm)", "petal width (cm)"), label="target"),
            ("setosa", "versicolor", "virginica"),
        ),
    ],
)
def test_tables_of_others(
    shared_data: Path,
    tmp_path: Path,
    name: str,
    features: TableFeatures,
    classes: tuple[str, ...],
) -> None:
    with tarfile.open(shared_data / "tables.tar.gz") as archive:
        archive.extract(f"tables/{name}.csv", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / f"tables/{name}.csv").rename(tmp_path / "data/a.csv")
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(infer(tmp_path / "data"))
    assert check_table(tmp_path / "data", schema, features, classes) > 100
    text = contract.of_table(schema.read_text(), features)
    assert anomalies(tmp_path / "data", text, tmp_path, features.label) == []


def test_what_is_left_of_a_schema() -> None:
    features = TableFeatures(numeric=("a", "b"), label="c", label_over="d")
    text = contract.of_table(
        """
        feature { name: "a" type: INT value_count { min: 1 max: 1 } presence { min_count: 1 } }
        feature { name: "b" type: FLOAT value_count { min: 1 max: 1 }
                  presence { min_fraction: 1 min_count: 1 } lifecycle_stage: DEPRECATED }
        feature { name: "c" type: FLOAT presence { min_count: 1 } }
        feature { name: "d" type: INT }
        feature { name: "unused" type: STRUCT }
        weighted_feature { name: "w" feature { step: "a" } weight_feature { step: "unused" } }
        """,
        features,
    )
    schema = text_format.Parse(text, schema_pb2.Schema())
    kept: dict[str, Any] = {feature.name: feature for feature in schema.feature}
    assert list(kept) == ["a", "b", "c", "d"]
    assert (kept["a"].value_count.min, kept["b"].value_count.min) == (0, 1)
    assert not kept["b"].lifecycle_stage
    assert kept["c"].presence.min_fraction == kept["d"].presence.min_fraction == 1
    assert kept["c"].float_domain.disallow_nan
    assert not schema.weighted_feature
