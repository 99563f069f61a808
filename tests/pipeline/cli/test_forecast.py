import dataclasses
from typing import Any

import pytest

from pipeline import presets
from pipeline.cli.forecast import Plan, PlanConfig, make_plan
from trainer_module.schedule.plateau import PlateauConfig


def plan(preset: str = "cifar10", examples: int | None = 50_000, **schedule: Any) -> Plan:
    run = presets.get(preset).build()
    run = dataclasses.replace(run, schedule=dataclasses.replace(run.schedule, **schedule))
    return make_plan(PlanConfig(run, examples))


def test_published_experiment() -> None:
    stages = plan("cifar10-vgg16").stages
    assert [stage.learning_rate for stage in stages] == [0.001, 0.00025, 0.0000625]
    assert {stage.batch_size for stage in stages} == {128}
    assert {stage.steps_per_epoch for stage in stages} == {390}


def test_examples_given_need_no_data() -> None:
    found = plan()
    assert (found.size.count, found.size.source) == (50_000, "--examples")
    with pytest.raises(ValueError, match="`data` must be given"):
        plan(examples=None)


def test_digits_are_counted() -> None:
    assert plan("digits", None).size.count == 1078


def test_stop_rule_in_words() -> None:
    watched = PlateauConfig(monitor="val_loss", mode="min", patience=1)
    text = plan(plateau=watched, actions=3, max_epochs=70, time_budget=60.0).sentences[0]
    assert text == (
        "A plateau is an epoch without a better val_loss; plateau 4 stops the run, "
        "and so do 70 epochs or 60 s of training."
    )


def test_a_plan_that_ends_at_its_limits_says_so() -> None:
    found = plan(strategy="lr_decay", actions=3, min_learning_rate=0.005)
    assert [stage.learning_rate for stage in found.stages] == [0.025, 0.00625, 0.005]
    assert "Plateau 3 can change nothing" in found.sentences[-1]
    assert "plateau 3 stops" in found.sentences[0]


def test_auto_says_that_it_measures() -> None:
    assert "unmeasured" in plan(strategy="auto").sentences[-1]
    assert not any("measure" in each for each in plan(strategy="auto", plan="lr/2").sentences)


def test_a_warm_up_comes_before_the_first_stage() -> None:
    found = plan(warmup_epochs=5, warmup_fraction=0.5)
    usual = plan()
    assert found.stages[0].learning_rate == usual.stages[0].learning_rate / 2
    assert found.stages[1:] == usual.stages
    assert found.sentences[:3] == usual.sentences
    assert "linearly from the start to epoch 6" in found.sentences[-1]
