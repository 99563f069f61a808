import pytest

from benchmarks import reproduce, runs
from benchmarks.runs import Epoch, Run
from trainer_module.schedule.scaling import TrainingSpec


def test_a_page_has_verdict_method_figure_and_tables_in_that_order(tmp_path, hardware):
    pytest.importorskip("matplotlib", reason="the plot needs the development requirements")
    found = [
        Run(
            name,
            seed,
            {},
            tuple(
                Epoch(i, i * step, i / 2.0, 0.5 + i / 10, 0.5 + i / 20, 0.1, 32, action)
                for i, action in enumerate(("lr_decay", "none", "stop"), 1)
            ),
            0.7 + seed / 100,
            "plateau",
        )
        for name, step in (("lr_decay", 100), ("batch_increase", 30))
        for seed in (0, 1)
    ]
    side_by_side = runs.comparison(found, TrainingSpec(1000, "sgd", 0.9))
    page = reproduce.write(
        tmp_path, "data", "Data", "So it was done.", side_by_side, runs.TEST, hardware
    )
    text = page.read_text()
    parts = [
        "# Data: the strategies side by side",
        "batch_increase took 0.30 of lr_decay's updates",
        "So it was done.",
        "avx2",
        "(data.png)",
        "## Totals",
        "make reproduce",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert (tmp_path / "data.png").stat().st_size > 10_000
