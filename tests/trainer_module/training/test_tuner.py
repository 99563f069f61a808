import math
from dataclasses import replace

import pytest

from examples import IMAGE_CONFIG
from trainer_module.config import LoopConfig, NetworkConfig, tuned
from trainer_module.schedule.schedule import NonFiniteError
from trainer_module.training.tuner import LoopTuner, space

DEFAULTS = {
    "learning_rate": IMAGE_CONFIG.optimization.learning_rate,
    "batch_size": IMAGE_CONFIG.loop.batch_size,
    "patience": IMAGE_CONFIG.schedule.plateau.patience,
    "width_multiplier": IMAGE_CONFIG.network.width_multiplier,
}


def search(folder, train, trials):
    tuner = LoopTuner(IMAGE_CONFIG, 10_000, train, trials=trials, directory=str(folder))
    tuner.search(verbose=0)
    return tuner


def close_to(rate):
    """A score that is best at a learning rate."""
    return lambda values: -abs(math.log(values["learning_rate"] / rate))


def test_the_first_trial_is_the_config_itself_and_the_best_is_found(tmp_path, capsys):
    tried = []
    best = DEFAULTS["learning_rate"] * 5
    tuner = search(
        tmp_path, lambda values: tried.append(dict(values)) or close_to(best)(values), trials=8
    )
    assert tried[0] == DEFAULTS
    assert len(tried) == 8
    found = tuner.get_best_hyperparameters()[0].values
    assert found == max(tried, key=close_to(best))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[7].split()[:2] == ["trial", "8/8"]


def test_whatever_is_tried_is_a_config(tmp_path):
    search(tmp_path, lambda values: float(tuned(IMAGE_CONFIG, values) is not None), trials=12)


def test_a_search_that_was_ended_goes_on(tmp_path):
    tried = []

    def killed_at_the_third(values):
        tried.append(dict(values))
        if len(tried) == 3:
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, killed_at_the_third, trials=5)
    search(tmp_path, lambda values: tried.append(dict(values)) or 0.5, trials=5)
    # The third is tried again, the first two are not.
    assert tried[3] == tried[2]
    assert len(tried) == 3 + 3


def test_trials_that_diverge_are_passed_over(tmp_path, capsys):
    def diverges(values):
        if values != DEFAULTS:
            raise NonFiniteError("loss is nan", "nan", "Lower it.")
        return 0.5

    tuner = search(tmp_path, diverges, trials=6)
    assert tuner.get_best_hyperparameters()[0].values == DEFAULTS
    assert capsys.readouterr().out.count("failed: loss is nan") == 5


def test_the_space_stays_within_the_cap_and_what_a_config_allows():
    config = replace(
        IMAGE_CONFIG,
        loop=LoopConfig(batch_size=32),
        network=NetworkConfig(width_multiplier=0.06),
    )
    values = {p.name: getattr(p, "values", None) for p in space(config, 500).space}
    assert values["batch_size"] == [16, 32, 50]
    assert values["width_multiplier"] == [0.05, 0.06, 0.12]
    assert space(config, 20).get("batch_size") == 32
