import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.training_report import data

SCHEMA = text_format.Parse(
    """
    feature { name: "label" type: BYTES domain: "classes" presence { min_fraction: 1 } }
    feature { name: "hour" type: INT int_domain { min: 0 max: 23 } }
    feature { name: "fare" type: FLOAT float_domain { min: 0 } }
    feature { name: "note" type: BYTES }
    string_domain { name: "classes" value: "cat" value: "dog" }
    """,
    schema_pb2.Schema(),
)


def statistics(feature: str, examples: int = 5) -> statistics_pb2.DatasetFeatureStatisticsList:
    return text_format.Parse(
        f"datasets {{ num_examples: {examples} features {{ {feature} }} }}",
        statistics_pb2.DatasetFeatureStatisticsList(),
    )


def labels(**counts: int) -> statistics_pb2.DatasetFeatureStatisticsList:
    buckets = "".join(
        f'buckets {{ label: "{name}" sample_count: {count} }}' for name, count in counts.items()
    )
    return statistics(
        f"""path {{ step: "label" }} type: STRING
        string_stats {{ unique: {len(counts)} rank_histogram {{ {buckets} }} }}""",
        sum(counts.values()),
    )


def test_examples_by_split_and_class_in_the_order_of_the_classes() -> None:
    found = data.summarise(
        {"train": labels(dog=6, cat=2), "test": labels(cat=1, wolf=1)},
        SCHEMA,
        "label",
        ("cat", "dog", "bird"),
    )
    assert found.examples == {"train": 8, "test": 2}
    assert found.classes == {
        "train": {"cat": 2, "dog": 6, "bird": 0, "wolf": 0},
        "test": {"cat": 1, "dog": 0, "bird": 0, "wolf": 1},
    }
    assert list(found.classes["train"]) == ["cat", "dog", "bird", "wolf"]
    assert found.why_no_classes == ""


@pytest.mark.parametrize(
    ("split", "why"),
    [
        (statistics('name: "label" type: FLOAT num_stats { mean: 1 }'), "is a number"),
        (statistics('name: "fare" type: FLOAT num_stats { mean: 1 }'), "have no feature 'label'"),
        (
            statistics(
                """name: "label" type: STRING string_stats { unique: 3000
                rank_histogram { buckets { label: "a" sample_count: 1 } } }"""
            ),
            "only the 1 most frequent of 3,000 values",
        ),
    ],
    ids=["number", "absent", "cut off"],
)
def test_what_the_statistics_do_not_tell_is_said(
    split: statistics_pb2.DatasetFeatureStatisticsList, why: str
) -> None:
    found = data.summarise({"train": labels(cat=1), "test": split}, SCHEMA, "label", ("cat",))
    assert found.classes == {}
    assert why in found.why_no_classes
    assert found.examples == {"train": 1, "test": 5}


def test_the_schema_in_words() -> None:
    found = data.summarise({"train": labels(cat=1)}, SCHEMA, "label", ())
    assert found.features == (
        data.Feature("label", "BYTES", True, "2 values"),
        data.Feature("hour", "INT", False, "0 to 23"),
        data.Feature("fare", "FLOAT", False, "at least 0"),
        data.Feature("note", "BYTES", False, ""),
    )
