import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.anomaly_gate import anomalies
from components.gate import GateError
from schemas.images import image_schema

SCHEMA = image_schema(["cat", "dog"])
CLEAN = anomalies_pb2.Anomalies()


def statistics(examples: int = 5, labels: int = 2) -> statistics_pb2.DatasetFeatureStatisticsList:
    text = f"""datasets {{
      num_examples: {examples}
      features {{ path {{ step: "label" }} type: STRING string_stats {{ unique: {labels} }} }}
    }}"""
    return text_format.Parse(text, statistics_pb2.DatasetFeatureStatisticsList())


def anomaly(
    feature: str, kind: str = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"
) -> anomalies_pb2.Anomalies:
    text = f"""anomaly_info {{
      key: "{feature}"
      value {{
        path {{ step: "{feature}" }}
        severity: ERROR
        reason {{ type: {kind} short_description: "Short" description: "Long  \\nstory." }}
      }}
    }}"""
    return text_format.Parse(text, anomalies_pb2.Anomalies())


def test_clean_data_passes() -> None:
    splits = ("train", "eval", "test")
    anomalies.check(
        dict.fromkeys(splits, CLEAN), dict.fromkeys(splits, statistics()), SCHEMA, "label"
    )


def test_an_anomaly_tells_split_feature_rule_and_remedy() -> None:
    with pytest.raises(GateError) as error:
        anomalies.check(
            {"train": CLEAN, "eval": anomaly("label")},
            {"train": statistics(), "eval": statistics()},
            SCHEMA,
            "label",
        )
    assert str(error.value) == (
        "the data must follow its schema, got one problem:\n"
        "  split eval, feature label: Short: Long story (rule: BYTES, in every example, one value "
        "each, one of 'cat', 'dog'). Correct the values, or add them to the feature's domain in "
        "the schema."
    )


def test_every_problem_is_listed() -> None:
    problems = anomalies.find_problems(
        {"train": anomaly("image", "SCHEMA_MISSING_COLUMN"), "eval": anomaly("extra")},
        {"train": statistics(labels=1), "eval": statistics(), "test": statistics(examples=0)},
        SCHEMA,
        "label",
    )
    assert [p.rule for p in problems] == [
        "split train, feature image",
        "split train, feature label",
        "split eval, feature extra",
        "split test",
    ]
    assert "Add the feature" in problems[0].note
    assert "same label" in str(problems[1].value)
    assert problems[2].threshold == "each feature must be in the schema"
    assert "no examples" in str(problems[3].value)


def test_a_split_nobody_validated_does_not_pass() -> None:
    with pytest.raises(GateError, match="not validated"):
        anomalies.check({}, {"train": statistics()}, SCHEMA, "label")
    with pytest.raises(GateError, match="no splits"):
        anomalies.check({}, {}, SCHEMA, "label")


def test_a_label_that_is_no_feature_is_refused() -> None:
    with pytest.raises(GateError, match="one problem") as error:
        anomalies.check({"train": CLEAN}, {"train": statistics()}, SCHEMA, "lable")
    assert (
        "split train, feature lable: there is no such feature (rule: the label must be a feature "
        "of the data). Set `label` to one of 'label'."
    ) in str(error.value)


def test_a_numeric_label_must_vary_too() -> None:
    constant = statistics()
    feature = constant.datasets[0].features[0]
    feature.num_stats.min = feature.num_stats.max = 0.0
    with pytest.raises(GateError, match="same label"):
        anomalies.check({"train": CLEAN}, {"train": constant}, SCHEMA, "label")
    feature.num_stats.max = 0.5
    anomalies.check({"train": CLEAN}, {"train": constant}, SCHEMA, "label")


def test_anomalies_of_the_data_set_as_a_whole() -> None:
    info = anomalies_pb2.Anomalies()
    info.dataset_anomaly_info.description = "Too few examples."
    with pytest.raises(GateError, match=r"split train: .*Too few examples"):
        anomalies.check({"train": info}, {"train": statistics()}, SCHEMA, "label")


def test_a_feature_that_the_schema_does_not_describe_stops_nothing() -> None:
    """It reaches neither Transform nor the model."""
    new = anomaly("extra", "SCHEMA_NEW_COLUMN")
    anomalies.check({"train": new}, {"train": statistics()}, SCHEMA, "label")


@pytest.mark.parametrize(
    ("feature", "rule"),
    [
        ("presence { min_count: 1 } value_count { max: 1 }", "in at least 1 example, at most one"),
        ("presence { min_count: 2 } value_count { min: 1 max: 1 }", "in at least 2 examples, one"),
        ("int_domain { min: 3 }", "INT, at least 3"),
        ("int_domain { max: 3 }", "INT, at most 3"),
        ("int_domain { min: 1 max: 3 }", "INT, 1 to 3"),
    ],
)
def test_rules_in_words(feature: str, rule: str) -> None:
    schema = text_format.Parse(f'feature {{ name: "x" type: INT {feature} }}', schema_pb2.Schema())
    (problem,) = anomalies.find_problems(
        {"train": anomaly("x")}, {"train": statistics()}, schema, "label"
    )
    assert rule in str(problem.threshold)
