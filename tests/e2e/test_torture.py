"""Each component killed, robbed of its output, or left without disk. Run by `make torture`."""

import shutil

import pytest
from faults import (
    ARGS,
    STARTING,
    again,
    assert_consistent,
    assert_pushed_whole,
    assert_same_model,
    fill_during,
    kill,
    lose,
    moments,
    seconds_of,
    small_disk,
)

from components.serving_pusher import versions
from runs import plateau

pytestmark = pytest.mark.torture

COMPONENTS = (
    "ImageExampleGen",
    "InlineSchemaGen",
    "LatestBlessedModel",
    "LatestBlessedStatistics",
    "StatisticsGen",
    "DriftGate",
    "ExampleValidator",
    "AnomalyGate",
    "Transform",
    "Trainer",
    "Evaluator",
    "Servable",
    "Pusher",
    "TrainingReport",
)


OUTPUTS = (
    ("ImageExampleGen", "examples"),
    ("InlineSchemaGen", "schema"),
    ("StatisticsGen", "statistics"),
    ("DriftGate", "drift"),
    ("ExampleValidator", "anomalies"),
    ("Transform", "transform_graph"),
    ("Transform", "updated_analyzer_cache"),
    ("Trainer", "model"),
    ("Trainer", "model_run"),
    ("Trainer", "training_history"),
    ("Evaluator", "evaluation"),
    ("Evaluator", "blessing"),
    ("Servable", "blessing"),
    ("Pusher", "pushed_model"),
    ("TrainingReport", "report"),
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    done = plateau(*ARGS, output=tmp_path_factory.mktemp("unbroken") / "run")
    assert done.status == 0, done.out + done.err
    return done


def test_the_list_of_components_is_that_of_the_pipeline(unbroken):
    assert set(seconds_of(unbroken)) == set(COMPONENTS)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_in_each_component_in_turn_it_comes_to_the_same_model(seed, unbroken, tmp_path):
    output = tmp_path / "run"
    hit = []
    for component, delay in moments({STARTING: 5.0, **seconds_of(unbroken)}, seed):
        hit.append((component, f"{delay:.3f} s", kill(output, component, delay)))
        assert_pushed_whole(output, unbroken.pushed[0])
    print(*hit, sep="\n")
    assert sum(where is not None for *_, where in hit) >= len(COMPONENTS)
    done = again(output)
    assert len(done.pushed) == 1
    assert_same_model(done.pushed[0], unbroken.pushed[0])
    assert_consistent(output, unbroken.output)


@pytest.mark.parametrize("component", [STARTING, *COMPONENTS])
def test_a_full_disk_is_named_and_with_room_the_run_goes_on(component, unbroken, tmp_path):
    delay = seconds_of(unbroken).get(component, 0) / 2
    with small_disk(tmp_path / "disk", "96m") as disk:
        output = disk / "run"
        done, ballast = fill_during(disk, component, delay)
        print(done.err)
        assert done.status == 1, done.out
        assert "disk" in done.err or "No space left on device" in done.err
        assert str(output) in done.err
        assert "Traceback" not in done.err
        assert not versions.versions(output / "pushed") or component == "TrainingReport"
        ballast.unlink()
        done = again(output)
        assert len(done.pushed) == 1
        assert_same_model(done.pushed[0], unbroken.pushed[0])
        assert_consistent(output, unbroken.output)


@pytest.fixture(scope="module")
def settled(unbroken, tmp_path_factory):
    """A folder in which the same command finds every result in the cache."""
    output = tmp_path_factory.mktemp("settled") / "run"
    for _ in range(3):
        done = again(output)
    assert done.component("Evaluator") == "cached"
    return output


@pytest.mark.parametrize(("component", "key"), OUTPUTS)
def test_a_deleted_artifact_is_made_again(component, key, settled, unbroken):
    lose(settled, component, key, shutil.rmtree)
    done = again(settled)
    assert done.component(component) == "run"
    assert_same_model(done.pushed[-1], unbroken.pushed[0])
    assert_consistent(settled, unbroken.output)
