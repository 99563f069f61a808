from pathlib import Path

import pytest

from pipeline import presets
from pipeline.data import dataset
from trainer_module.config import TableFeatures, TrainConfig


@pytest.mark.parametrize("name", presets.PRESETS)
def test_preset_is_a_whole_run_under_its_own_name(name: str) -> None:
    preset = presets.get(name)
    run = preset.build()
    assert run.name == name
    assert run.folder == Path("runs") / name
    assert preset.purpose.endswith((".", "?"))
    assert dataset.needs_data(run) == ("--data" in preset.data)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_preset_survives_the_way_to_the_trainer(name: str) -> None:
    run = presets.get(name).build()
    classes = run.classes if isinstance(run.features, TableFeatures) else ("a", "b", "c")
    train = TrainConfig(
        run.features, classes, run.network, run.optimization, run.schedule, run.loop
    )
    assert TrainConfig.from_json(train.to_json()) == train


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'imagenet'.*digits, cifar10, cifar10-vgg16, taxi"):
        presets.get("imagenet")


def test_vgg16_is_the_published_experiment() -> None:
    run = presets.get("cifar10-vgg16").build()
    assert run.network.model == "vgg16"
    assert (run.optimization.optimizer, run.optimization.learning_rate) == ("sgd", 0.001)
    assert run.optimization.momentum == 0.9
    assert (run.schedule.strategy, run.schedule.factor, run.schedule.actions) == ("lr_decay", 4, 2)
