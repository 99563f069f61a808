import dataclasses
import json

from hypothesis import given
from schedules import SCHEDULES

from components.plateau_trainer.parameters import assemble, summary, without_schedule
from trainer_module.config import ImageFeatures, TrainConfig
from trainer_module.history import EpochRecord, History
from trainer_module.schedule.parameters import parameters

CONFIG = TrainConfig(features=ImageFeatures(height=8, width=8), classes=("dark", "light"))


@given(SCHEDULES)
def test_a_config_survives_too(schedule):
    config = dataclasses.replace(CONFIG, schedule=schedule)
    assert assemble(without_schedule(config), parameters(schedule)) == config


def record(epoch, value, *, best, action="none"):
    return EpochRecord(
        epoch, {"val_accuracy": value}, 0.1, 32, 1.0, None, 10 * epoch, 320 * epoch, 1.5 * epoch,
        action, "a reason", best,
    )  # fmt: skip


def history(*epochs):
    return History(json.loads("{}"), "val_accuracy", "max", epochs, "enough")


def test_the_summary_of_a_run():
    found = summary(
        history(
            record(1, 0.5, best=True),
            record(2, 0.75, best=True, action="lr_decay"),
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
    assert "best_value" not in summary(history(record(1, float("nan"), best=False)))
