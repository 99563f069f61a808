import json

import pytest

from trainer_module.config import (
    ImageFeatures,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    TableFeatures,
    TrainConfig,
    tuned,
)
from trainer_module.schedule.schedule import ScheduleConfig

CONFIGS = [
    TrainConfig(features=ImageFeatures(augment="light", flip=False), classes=("a", "b")),
    TrainConfig(
        features=TableFeatures(numeric=("x",), label_over="y", label_ratio=0.1),
        classes=("a", "b"),
        schedule=ScheduleConfig(strategy="lr_decay", max_batch_size=9, time_budget=1.5),
    ),
    TrainConfig(TableFeatures(numeric=("x",), task="regression", label_scale="log"), classes=()),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_survives_json(config):
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seed": 0', '"seed": -1'),
        ('"seed": 0', '"sed": 0'),
        ('"seed": 0, ', ""),
        ('"seed": 0', '"seed": "many"'),
        ('"optimizer": "sgd"', '"optimizer": "magic"'),
    ],
)
def test_refuses_json_that_is_not_a_config_of_this_version(old, new):
    text = CONFIGS[0].to_json()
    assert old in text + ", "
    with pytest.raises(ValueError):
        TrainConfig.from_json(text.replace(old, new))


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "[" * 100_000, '{"classes": ["\\ud800"]}', "x" * 10**6],
    ids=["empty", "NaN", "deep", "half a character", "long"],
)
def test_json_that_is_no_config_is_named_in_short(text):
    with pytest.raises(ValueError, match=r"a saved config must be JSON .* Write it again") as error:
        TrainConfig.from_json(text)
    assert len(str(error.value)) < 2000


def test_a_field_that_is_missing_or_unknown_is_named():
    fields = json.loads(CONFIGS[0].to_json())
    fields["classes"] = ["x" * 5000, "y"]
    del fields["loop"]["seed"]
    fields["network"]["deep"] = {"er": 1}
    with pytest.raises(ValueError, match=r"got \['loop.seed', 'network.deep.er'\]") as error:
        TrainConfig.from_json(json.dumps(fields))
    assert len(str(error.value)) < 300


def test_preprocessing_part_changes_with_features_only():
    base = CONFIGS[0]
    other = TrainConfig(base.features, base.classes, schedule=ScheduleConfig(actions=9))
    wider = TrainConfig(ImageFeatures(width=32), base.classes)
    assert base.preprocessing_json() == other.preprocessing_json()
    assert base.preprocessing_json() != wider.preprocessing_json()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageFeatures(height=4), r"`height` must be at least 8 .*`height=64`"),
        (lambda: TableFeatures(), "at least one feature column"),
        (lambda: TableFeatures(numeric=("x",), buckets=1001), "`buckets` must be at least 2 and"),
        (lambda: LoopConfig(steps_per_call=257), "`steps_per_call` must be .* at most 256"),
        (lambda: LoopConfig(micro_batch=0), "`micro_batch` must be at least 1, got 0. Leave"),
        (lambda: NetworkConfig(dropout=1.0), "`dropout` must be at least 0 and below 1, got 1.0"),
        (lambda: OptimizerConfig(learning_rate=0.0), "`learning_rate` must be above 0 and"),
        (lambda: TrainConfig(ImageFeatures(), ("only",)), "at least two classes"),
        (lambda: TrainConfig(ImageFeatures(), ("a", "a")), "class names must differ"),
        (lambda: TrainConfig(CONFIGS[2].features, ("a", "b")), "a regression has no `classes`"),
        (
            lambda: TableFeatures(numeric=("x",), label_scale="log"),
            "`label_scale` is for regression",
        ),
        (
            lambda: TableFeatures(numeric=("x",), task="regression", label_over="y"),
            "`label_over` is for classification",
        ),
    ],
)
def test_bad_values_are_named_with_rule_and_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("base", CONFIGS)
def test_tuned_values_go_where_they_belong(base):
    values = {"learning_rate": 0.5, "batch_size": 9, "patience": 2, "width_multiplier": 0.5}
    config = tuned(base, values)
    assert config.optimization.learning_rate == 0.5
    assert config.loop.batch_size == 9
    assert config.schedule.plateau.patience == 2
    assert config.network.width_multiplier == 0.5
    assert tuned(base, {}) == base
    with pytest.raises(ValueError, match="batch_size"):
        tuned(base, {"batch_size": 0})


def test_an_unknown_tuned_value_is_refused():
    with pytest.raises(ValueError, match=r"must be some of learning_rate.*got .'depth'"):
        tuned(CONFIGS[0], {"depth": 3, "patience": 2})
