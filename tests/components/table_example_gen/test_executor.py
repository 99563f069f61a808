import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import json_format
from tfx.components.example_gen.csv_example_gen import executor as csv_executor
from tfx.proto import example_gen_pb2
from tfx.types import Artifact, standard_artifacts

from components.table_example_gen.executor import Executor, has_label

pytestmark = pytest.mark.component


def ingest(executor: type[Any], data: Path, out: Path, labels: list[str]) -> Artifact:
    artifact = standard_artifacts.Examples()
    artifact.uri = str(out)
    splits = [
        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=share)
        for name, share in (("train", 2), ("test", 1))
    ]
    pattern = example_gen_pb2.Input.Split(name="all", pattern="*.csv")
    output = example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits))
    properties = {
        "input_base": str(data),
        "input_config": json_format.MessageToJson(example_gen_pb2.Input(splits=[pattern])),
        "output_config": json_format.MessageToJson(output),
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP,
        "labels": json.dumps(labels),
    }
    executor().Do({}, {"examples": [artifact]}, properties)
    return artifact


def read(out: Path) -> dict[str, dict[int, bool]]:
    """Whether each row has a label, by split and number."""
    found: dict[str, dict[int, bool]] = {}
    for split in ("train", "test"):
        files = [str(file) for file in out.glob(f"Split-{split}/*.gz")]
        records = tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
        rows = [tf.train.Example.FromString(record) for record in records]
        found[split] = {
            row.features.feature["x"].int64_list.value[0]: has_label(row, ["label"]) for row in rows
        }
    return found


def test_rows_without_a_label_are_left_out_and_the_others_stay_where_they_were(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [f"{i},{'' if i % 5 == 0 else i % 2}" for i in range(100)]
    (data / "a.csv").write_text("\n".join(["x,label", *rows]) + "\n")
    ingest(csv_executor.Executor, data, tmp_path / "all", [])
    artifact = ingest(Executor, data, tmp_path / "out", ["label"])
    assert artifact.get_int_custom_property("unlabelled_rows") == 20
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"Split-train", "Split-test"}
    before, after = read(tmp_path / "all"), read(tmp_path / "out")
    assert sum(map(len, before.values())) == 100
    assert after == {
        split: {number: True for number, labelled in rows.items() if labelled}
        for split, rows in before.items()
    }
    assert sum(map(len, after.values())) == 80


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"tips": [1.0], "fare": [2.0]}, True),
        ({"tips": [1.0], "fare": []}, False),
        ({"tips": [1.0]}, False),
        ({"tips": [float("nan")], "fare": [2.0]}, False),
        ({"tips": [1.0], "fare": [float("inf")]}, False),
    ],
)
def test_a_ratio_needs_both_of_its_numbers(row: Mapping[str, list[float]], expected: bool) -> None:
    features = {
        name: tf.train.Feature(float_list=tf.train.FloatList(value=values))
        for name, values in row.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    assert has_label(example, ["tips", "fare"]) is expected
