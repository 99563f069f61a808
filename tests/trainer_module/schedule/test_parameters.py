import dataclasses

import pytest
from hypothesis import given
from schedules import SCHEDULES

from trainer_module.schedule import parameters
from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.schedule import ScheduleConfig


@given(SCHEDULES)
def test_a_schedule_survives_its_way_through_flat_parameters(schedule):
    flat = parameters.parameters(schedule)
    kinds = parameters.parameter_types()
    assert all(type(value) is kinds[name][0] for name, value in flat.items())
    assert parameters.schedule({**flat, "code": "of somebody else"}) == schedule


def test_kubeflow_gives_whole_numbers_as_floats():
    assert parameters.schedule({"patience": 7.0}) == ScheduleConfig(
        plateau=PlateauConfig(patience=7)
    )


def test_a_value_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`patience` must be at least 0"):
        parameters.schedule({"patience": -1})


def test_every_field_of_the_schedule_is_a_parameter_of_a_plain_type():
    kinds = parameters.parameter_types()
    fields = {
        f.name for owner in (PlateauConfig, ScheduleConfig) for f in dataclasses.fields(owner)
    }
    assert set(kinds) == fields - {"plateau"}
    assert {kind for kind, _ in kinds.values()} == {int, float, str}
    assert kinds["plan"] == (str, True)
    assert kinds["patience"] == (int, False)
