import pytest

from benchmarks import runs
from benchmarks.runs import Epoch, Run
from trainer_module.schedule.scaling import TrainingSpec

SETTINGS = {"images": 100}


def run(contestant, seed, accuracies, steps=10, final=0.8, settings=SETTINGS, decided=()):
    """A run of `steps` updates and steps / 10 seconds an epoch."""
    epochs = tuple(
        Epoch(
            i,
            i * steps,
            i * steps / 10,
            value,
            value,
            0.1,
            32,
            "lr_decay" if i in decided else "none",
        )
        for i, value in enumerate(accuracies, 1)
    )
    return Run(contestant, seed, settings, epochs, final, "plateau")


def by_name(rows):
    return {row.what.partition(",")[0]: row for row in rows}


def test_what_was_appended_is_read_back(tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    first, second = run("a", 0, [0.5, 0.6]), run("b", 0, [0.7])
    runs.append(path, first)
    runs.append(path, second)
    assert runs.read(path, SETTINGS) == [first, second]


def test_runs_of_other_settings_and_broken_lines_do_not_count(tmp_path):
    path = tmp_path / "runs.jsonl"
    runs.append(path, run("a", 0, [0.5]))
    runs.append(path, run("a", 1, [0.5], settings={"images": 200}))
    with path.open("a") as file:
        file.write('{"contestant": "a", "se')
    assert [found.seed for found in runs.read(path, SETTINGS)] == [0]


def test_a_run_appended_after_a_broken_line_is_kept(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"contestant": "a", "se')
    runs.append(path, run("a", 0, [0.5]))
    assert [found.seed for found in runs.read(path, SETTINGS)] == [0]


def test_no_file_is_no_runs(tmp_path):
    assert runs.read(tmp_path / "none", SETTINGS) == []


def test_whole_runs_are_compared_seed_by_seed():
    found = [
        run("own", 0, [0.5, 0.8], steps=4),
        run("own", 1, [0.5, 0.8], steps=2),
        run("other", 1, [0.5, 0.8], steps=10),
        run("other", 0, [0.5, 0.8], steps=10),
        run("own", 2, [0.5, 0.8]),
    ]
    rows = by_name(runs.compare(found, "own", "other", {"updates": 0.45}))
    assert rows["updates of a whole run"].values == pytest.approx((0.4, 0.2))
    assert rows["updates of a whole run"].reached is True
    assert rows["seconds of a whole run"].reached is None


def test_updates_to_the_same_accuracy_take_the_highest_level_both_reached():
    own, other = run("own", 0, [0.5, 0.7, 0.9]), run("other", 0, [0.6, 0.7, 0.7, 0.8], steps=20)
    rows = by_name(runs.compare_on_the_way([own, other], "own", "other"))
    # Level 0.8: own reaches it in epoch 3 (30 updates), other in epoch 4 (80).
    assert rows["updates to the same test accuracy"].values == pytest.approx((30 / 80,))


def test_without_a_common_seed_there_is_nothing_to_compare():
    found = [run("own", 0, [0.5]), run("other", 1, [0.5])]
    assert runs.compare(found, "own", "other", {}) == []
    assert runs.compare_on_the_way(found, "own", "other") == []


@pytest.mark.parametrize(
    ("own", "other", "reached"),
    [
        ((0.80, 0.82), (0.81, 0.83), True),
        ((0.70, 0.72), (0.81, 0.83), False),
        ((0.90, 0.92), (0.81, 0.83), True),
        ((0.80, 0.80), (0.80, 0.80), True),
        ((0.79, 0.79), (0.80, 0.80), False),
    ],
)
def test_accuracy_may_lack_no_more_than_the_spread(own, other, reached):
    found = [
        run(name, seed, [0.5], final=value)
        for name, values in (("own", own), ("other", other))
        for seed, value in enumerate(values)
    ]
    row = by_name(runs.compare(found, "own", "other", {"accuracy": 1.0}))[
        "test accuracy that own lacks"
    ]
    assert row.reached is reached


def test_one_seed_shows_no_spread_to_judge_by():
    found = [run("own", 0, [0.5], final=0.7), run("other", 0, [0.5], final=0.75)]
    targets = {"updates": 0.45, "accuracy": 1.0}
    rows = by_name(runs.compare(found, "own", "other", targets))
    assert rows["updates of a whole run"].reached is None
    row = rows["test accuracy that own lacks"]
    assert row.reached is None and row.values == pytest.approx((0.05,))


def test_runs_side_by_side_have_noise_scale_examples_and_a_best_epoch():
    epochs = (
        Epoch(1, 10, 1.0, 0.5, 0.4, 0.1, 10, "none"),
        Epoch(2, 20, 2.0, 0.7, 0.6, 0.1, 10, "batch_increase"),
        Epoch(3, 22, 3.0, 0.6, 0.5, 0.1, 50, "stop"),
    )
    found = runs.comparison(
        [Run("own", 0, {}, epochs, 0.6, "plateau")], TrainingSpec(100, "sgd", 0.0)
    )
    (trial,) = found.trials
    assert [record.examples for record in trial.history.epochs] == [100, 200, 300]
    # Smith & Le 2018: eps (N/B - 1).
    assert [r.update_noise for r in trial.history.epochs] == pytest.approx([0.9, 0.9, 0.1])
    assert trial.best.epoch == 2
    assert [record.epoch for record in trial.history.decisions] == [2, 3]
    assert found.totals[0].costs["updates"].values == (22,)
