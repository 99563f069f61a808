import pytest
from PIL import Image

from benchmarks import plot, runs
from benchmarks.runs import Epoch, Run
from trainer_module.schedule.scaling import TrainingSpec


def test_draws_every_contestant_with_its_decisions(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot needs the development requirements")
    found = [
        Run(
            name,
            seed,
            {},
            tuple(
                Epoch(i, i * 10, i / 2, 0.5, 0.1 * i, 0.1, 32, action)
                for i, action in enumerate(("none", "lr_decay", "stop"), 1)
            ),
            0.5,
            "plateau",
        )
        for name in ("a", "b")
        for seed in (0, 1)
    ]
    path = tmp_path / "new" / "plot.png"
    plot.draw(runs.comparison(found, TrainingSpec(100, "sgd", 0.9)), runs.TEST, path, "title")
    with Image.open(path) as image:
        colors = image.convert("RGB").getcolors(2**24)
    assert colors is not None
    drawn = {color for _, color in colors}
    # The first two colours of Matplotlib's cycle: each contestant's mean and marks are there.
    assert {(31, 119, 180), (255, 127, 14)} <= drawn
