import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline import presets
from pipeline.config import GateConfig, RunConfig
from trainer_module.config import ImageFeatures, TableFeatures, TrainConfig
from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.util.checks import UserError


def image_run(**changes: Any) -> RunConfig:
    run = RunConfig(name="x", features=ImageFeatures(), output=Path("out"))
    return dataclasses.replace(run, **changes)


def test_train_config_carries_every_part_the_trainer_reads() -> None:
    run = image_run(classes=("cat", "dog"))
    train = run.train_config()
    for field in dataclasses.fields(TrainConfig):
        assert getattr(train, field.name) == getattr(run, field.name)


def test_train_config_needs_classes() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        image_run().train_config()


def test_table_without_classes_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="`classes` must name two"):
        image_run(features=TableFeatures(numeric=("a",)), classes=("only",))


def test_gates_are_those_of_the_task() -> None:
    schedule = ScheduleConfig(plateau=PlateauConfig(monitor="val_loss", mode="min"))
    number = {
        "features": TableFeatures(numeric=("a",), task="regression"),
        "schedule": schedule,
    }
    assert image_run(**number, gates=GateConfig(max_mae=1.0)).classes == ()
    refused = [
        (number, {"min_accuracy": 0.5, "max_mae": 1.0}, "`min_accuracy`", "a regression", "min_r2"),
        (number, {"allow_class_change": True}, "`allow_class_change`", "a regression", "min_r2"),
        ({}, {"min_r2": 0.5, "max_mae": 1}, "`min_r2`, `max_mae`", "a class", "min_accuracy"),
        ({"classes": tuple("abc")}, {"min_f1": 0.5}, "`min_f1`", "3 classes", "min_class_accuracy"),
    ]
    for fields, gates, names, task, instead in refused:
        # The gates of this case, and no others.
        message = f"^{names} must be left out for {task}[^`]*`{instead}`[^`]*(`max_mae`[^`]*)?$"
        with pytest.raises(ValueError, match=message):
            image_run(**fields, gates=GateConfig(**gates))
    with pytest.raises(ValueError, match="`monitor` must be one of loss, mae, val_loss, val_mae"):
        image_run(features=number["features"])


def test_group_by_is_an_expression_and_for_images() -> None:
    with pytest.raises(ValueError, match="`group_by` must be a regular expression"):
        image_run(group_by="(")
    table = {"features": TableFeatures(numeric=("a",)), "classes": ("no", "yes")}
    with pytest.raises(ValueError, match="`group_by` is for images, got 'a'"):
        image_run(group_by="a", **table)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_accuracy", 2),
        ("min_class_accuracy", -0.1),
        ("max_accuracy_drop", 2),
        ("max_drift", -0.1),
        ("max_skew", 2),
        ("max_latency", 0),
        ("max_model_mib", float("inf")),
        ("min_class_examples", -1),
    ],
)
def test_every_gate_has_a_range(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"`{field}` must be .*got {value}"):
        GateConfig(**{field: value})


@pytest.mark.parametrize("value", [0, 1])
def test_gate_bounds_are_inclusive(value: float) -> None:
    assert GateConfig(min_accuracy=value).min_accuracy == value


@pytest.mark.parametrize(
    ("preset", "data", "output", "folder"),
    [
        ("images", None, None, "runs/images"),
        ("images", "some/trucks/", None, "runs/trucks"),
        ("images", "some/trucks/../cars", None, "runs/cars"),
        ("images", "/", None, "runs/images"),
        ("images", "~nobody-of-that-name/x", None, "runs/images"),
        ("images", "some/trucks", "runs/images", "runs/images"),
        ("cifar10", "some/trucks", None, "runs/cifar10"),
        ("digits", None, None, "runs/digits"),
        # A file that is there.
        ("images", __file__, None, "runs/test_config"),
    ],
)
def test_the_default_output_is_named_after_the_data_folder_or_the_preset(
    preset: str, data: str | None, output: str | None, folder: str
) -> None:
    run = dataclasses.replace(
        presets.get(preset).build(),
        data=None if data is None else Path(data),
        output=None if output is None else Path(output),
    )
    assert run.folder == Path(folder)
    assert output is not None or run.title == run.folder.name
