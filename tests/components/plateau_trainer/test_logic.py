import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.plateau_trainer import logic
from trainer_module.config import ImageFeatures, TrainConfig
from trainer_module.history import EpochRecord, History
from trainer_module.plateau import PlateauConfig
from trainer_module.schedule import ScheduleConfig

SCHEDULES = st.builds(
    ScheduleConfig,
    plateau=st.builds(
        PlateauConfig,
        patience=st.integers(1, 50),
        min_delta=st.floats(0, 1),
        cooldown=st.integers(0, 5),
        smoothing=st.sampled_from(["none", "ema", "median"]),
    ),
    strategy=st.sampled_from(["lr_decay", "batch_increase", "hybrid", "auto"]),
    plan=st.sampled_from([None, "batch*2, lr/5"]),
    factor=st.floats(1.5, 8),
    max_batch_size=st.none() | st.integers(1024, 4096),
    time_budget=st.none() | st.floats(1, 1e6),
)
CONFIG = TrainConfig(features=ImageFeatures(height=8, width=8), classes=("dark", "light"))


@settings(deadline=None)
@given(SCHEDULES)
def test_a_schedule_survives_its_way_through_flat_parameters(schedule):
    flat = logic.parameters(schedule)
    kinds = logic.parameter_types()
    assert all(type(value) is kinds[name][0] for name, value in flat.items())
    assert logic.schedule({**flat, "code": "of somebody else"}) == schedule


@settings(deadline=None)
@given(SCHEDULES)
def test_a_config_survives_too(schedule):
    config = dataclasses.replace(CONFIG, schedule=schedule)
    assert logic.assemble(logic.without_schedule(config), logic.parameters(schedule)) == config


def test_kubeflow_gives_whole_numbers_as_floats():
    assert logic.schedule({"patience": 7.0}) == ScheduleConfig(plateau=PlateauConfig(patience=7))


def test_a_value_out_of_range_is_refused():
    with pytest.raises(ValueError, match="patience must be at least 1"):
        logic.schedule({"patience": -1})


def test_every_field_of_the_schedule_is_a_parameter_of_a_plain_type():
    kinds = logic.parameter_types()
    fields = {
        f.name for owner in (PlateauConfig, ScheduleConfig) for f in dataclasses.fields(owner)
    }
    assert set(kinds) == fields - {"plateau"}
    assert {kind for kind, _ in kinds.values()} == {int, float, str}
    assert kinds["plan"] == (str, True)
    assert kinds["patience"] == (int, False)


def record(epoch, value, *, best, action="none"):
    return EpochRecord(
        epoch, {"val_accuracy": value}, 0.1, 32, 1.0, None, 10 * epoch, 320 * epoch, 1.5 * epoch,
        action, "a reason", best,
    )  # fmt: skip


def history(*epochs):
    return History(json.loads("{}"), "val_accuracy", "max", epochs, "enough")


def test_the_summary_of_a_run():
    found = logic.summary(
        history(
            record(1, 0.5, best=True),
            record(2, 0.75, best=True, action="decay_lr"),
            record(3, 0.7, best=False, action="stop"),
        )
    )
    assert found == {
        "monitor": "val_accuracy",
        "best_value": 0.75,
        "best_epoch": 2,
        "epochs": 3,
        "actions": 1,
        "updates": 30,
        "examples": 960,
        "seconds": 4.5,
        "stop_reason": "enough",
    }


def test_a_run_without_a_finite_value_has_no_best():
    assert "best_value" not in logic.summary(history(record(1, float("nan"), best=False)))
