import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

import schemas
from schemas.images import image_schema, image_schema_text

CLASSES = {
    "digits": [str(i) for i in range(10)],
    "cifar10": [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ],
}


@pytest.mark.parametrize("name", CLASSES)
def test_committed_schema_is_what_the_function_gives(name: str) -> None:
    path = schemas.committed(name)
    assert path is not None
    assert text_format.Parse(path.read_text(), schema_pb2.Schema()) == image_schema(CLASSES[name])


def test_committed() -> None:
    assert schemas.committed("taxi") is not None
    assert schemas.committed("nothing") is None


def test_text_reads_back_and_does_not_depend_on_the_order_of_classes() -> None:
    classes = ["żółw", 'a "b"', "new\nline"]
    text = image_schema_text(classes)
    assert text_format.Parse(text, schema_pb2.Schema()) == image_schema(classes)
    assert image_schema_text(list(reversed(classes))) == text
    assert "ż" in text


def test_classes_are_checked() -> None:
    for classes in (["one"], ["two", "two"]):
        with pytest.raises(ValueError, match="two or more different names"):
            image_schema(classes)


def validate(*examples: dict[str, list[bytes] | list[int]]) -> anomalies_pb2.Anomalies:
    """What TFDV says to hand-made examples."""
    records = []
    for values in examples:
        example = tf.train.Example()
        for name, value in values.items():
            kind = "int64_list" if isinstance(value[0], int) else "bytes_list"
            getattr(example.features.feature[name], kind).value.extend(value)
        records.append(example.SerializeToString())
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(records)
    statistics = stats_impl.generate_statistics_in_memory(batch)
    return tfdv.validate_statistics(statistics, image_schema(["cat", "dog"]))


def example(**changes: list[bytes] | list[int]) -> dict[str, list[bytes] | list[int]]:
    return {"image": [b"png"], "label": [b"cat"], "file_name": [b"1.png"], **changes}


def test_good_examples_have_no_anomalies() -> None:
    assert not validate(example(), example(label=[b"dog"])).anomaly_info


@pytest.mark.parametrize(
    ("bad", "feature"),
    [
        (example(label=[b"cow"]), "label"),
        (example(label=[b"Cat"]), "label"),
        (example(label=[b"cat", b"dog"]), "label"),
        (example(image=[b"one", b"two"]), "image"),
        ({k: v for k, v in example().items() if k != "label"}, "label"),
        ({k: v for k, v in example().items() if k != "image"}, "image"),
        ({k: v for k, v in example().items() if k != "file_name"}, "file_name"),
        (example(extra=[b"x"]), "extra"),
    ],
)
def test_one_bad_example_is_an_anomaly(
    bad: dict[str, list[bytes] | list[int]], feature: str
) -> None:
    found = validate(*[example()] * 20, bad)
    assert list(found.anomaly_info) == [feature]


def test_labels_of_another_type_are_an_anomaly() -> None:
    found = validate(example(label=[1]), example(label=[0]))
    assert list(found.anomaly_info) == ["label"]
