import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.metadata import lineage, runs
from pipeline.metadata.lineage import Detail, Origin
from pipeline.metadata.runs import short_id
from schemas import columns
from schemas.columns import Input

UNTOUCHED = ("ImageExampleGen", "InlineSchemaGen", "Transform")


def read(archive: Any, wanted: str | None = None) -> Detail:
    return lineage.read([archive.output], wanted)


def tree(origin: Origin) -> dict[str, Any]:
    return {key: (source.type, source.run, tree(source)) for key, source in origin.sources}


@pytest.fixture
def two(archive: Any) -> Any:
    """A run, and another one with new training on the same data."""
    archive.run("first", version=100)
    archive.run("second", version=200, cached=UNTOUCHED)
    return archive


def test_lineage_goes_back_from_the_pushed_model_through_the_cache(two: Any) -> None:
    origin = read(two).lineage
    first, second = short_id("first"), short_id("second")
    assert origin is not None
    assert (origin.type, origin.component, origin.note) == ("PushedModel", "Pusher", "version 200")
    assert origin.run == second
    examples = ("Examples", first, {})
    graph = ("TransformGraph", first, {"examples": examples, "schema": ("Schema", first, {})})
    assert tree(origin) == {
        "model": (
            "Model",
            second,
            {"examples": examples, "transform_graph": graph, "base_model": ("Model", first, {})},
        ),
        "model_blessing": ("ModelBlessing", second, {}),
        "infra_blessing": ("InfraBlessing", second, {}),
    }


def test_lineage_says_where_and_what(two: Any) -> None:
    origin = read(two).lineage
    assert origin is not None
    sources = dict(dict(origin.sources)["model"].sources)
    assert sources["examples"].note == "22ae517f"
    assert sources["examples"].component == "ImageExampleGen"
    folder = two.output / "artifacts"
    assert sources["examples"].path == folder / "ImageExampleGen" / "examples" / "1"
    assert dict(origin.sources)["model"].path == folder / "Trainer" / "model" / "2"


def test_the_blessing_says_what_the_model_was_compared_with(archive: Any) -> None:
    def verdict() -> str:
        origin = read(archive).lineage
        assert origin is not None
        return dict(origin.sources)["model_blessing"].note

    archive.run("first", version=100)
    assert verdict() == "blessed, compared with no other model"
    baseline = {"blessed": 1, "baseline_model_id": archive.latest["model"].id}
    archive.run("second", version=200, properties={"blessing": baseline})
    assert verdict() == f"blessed, compared with the model of run {short_id('first')}"


def test_lineage_of_a_model_that_was_not_pushed_begins_with_it(archive: Any) -> None:
    archive.run("a", blessed=False)
    origin = read(archive).lineage
    assert origin is not None
    assert origin.type == "Model"


def test_a_run_without_a_model_has_no_lineage(archive: Any) -> None:
    archive.run("a", failed="Trainer")
    found = read(archive)
    assert found.lineage is None
    assert (found.config, found.code) == ({}, "")
    assert found.data["input_fingerprint"] == "images:22ae517f4a3d44a5,code:d1a23d"


def test_steps_name_what_they_made_and_in_which_run(two: Any) -> None:
    steps = {step.component: step for step in read(two).steps}
    assert [steps[name].state for name in ("Transform", "Trainer")] == ["cached", "complete"]
    (graph,) = steps["Transform"].made
    assert (graph.key, graph.type, graph.run) == (
        "transform_graph",
        "TransformGraph",
        short_id("first"),
    )
    assert {made.run for made in steps["Trainer"].made} == {short_id("second")}


def test_a_step_that_did_not_end_has_no_seconds(archive: Any) -> None:
    archive.run("a", killed="Trainer")
    *ended, last = read(archive).steps
    assert (last.component, last.state, last.seconds, last.made) == (
        "Trainer",
        "interrupted",
        None,
        (),
    )
    assert all(step.seconds is not None for step in ended)


def test_parameters_of_tfx_trainer_come_from_its_custom_config(archive: Any) -> None:
    config = {
        "classes": ["a", "b"],
        "schedule": {"strategy": "hybrid", "plateau": {"patience": 3}},
    }
    custom = {"train_config": json.dumps(config), "code": "6871"}
    properties = {"custom_config": json.dumps(custom), "run_fn": "entry.run_fn", "train_args": "{}"}
    archive.run("a", version=100, properties={"Trainer": properties})
    found = read(archive)
    assert found.code == "6871"
    assert found.config == {
        "classes": {"classes": ["a", "b"]},
        "schedule": {"strategy": "hybrid", "patience": 3},
        "parameters": {"run_fn": "entry.run_fn"},
    }


def test_parameters_of_plateau_trainer_are_its_own(archive: Any) -> None:
    properties = {
        "train_config": json.dumps({"loop": {"batch_size": 32}}),
        "code": "6871",
        "strategy": "hybrid",
        "patience": 3,
    }
    archive.run("a", version=100, properties={"Trainer": properties})
    found = read(archive)
    assert found.code == "6871"
    assert found.config == {
        "loop": {"batch_size": 32},
        "schedule": {"strategy": "hybrid", "patience": 3},
    }


def test_parameters_of_a_trainer_that_failed(archive: Any) -> None:
    properties = {"train_config": json.dumps({"loop": {"batch_size": 32}}), "strategy": "hybrid"}
    archive.run("a", failed="Trainer", properties={"Trainer": properties})
    found = read(archive)
    assert found.run.strategy == "hybrid"
    assert found.config == {"loop": {"batch_size": 32}, "schedule": {"strategy": "hybrid"}}


def test_parameters_are_those_of_the_run_that_trained(archive: Any) -> None:
    archive.run("first", version=100, properties={"Trainer": {"strategy": "hybrid"}})
    archive.run("second", version=200, cached=(*UNTOUCHED, "Trainer"))
    assert read(archive).config == {"schedule": {"strategy": "hybrid"}}


def test_columns_that_are_served_under_other_names(archive: Any) -> None:
    archive.run("a", version=100)
    assert read(archive).renamed == {}
    inputs = {"fat": Input("% fat", "float32", None), "age": Input("age", "int64", 0)}
    file = Path(archive.latest["model"].uri, "Format-Serving", columns.FILE)
    file.parent.mkdir(parents=True)
    file.write_text(columns.to_json(inputs))
    assert read(archive).renamed == {"fat": "% fat"}


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (None, "2026-01-02T10:00:00"),
        (short_id("2026-01-01T10:00:00"), "2026-01-01T10:00:00"),
        (short_id("2026-01-01T10:00:00")[:4].upper(), "2026-01-01T10:00:00"),
        ("2026-01-01", "2026-01-01T10:00:00"),
    ],
)
def test_a_run_is_meant_by_the_beginning_of_its_id_or_time(
    archive: Any, wanted: str | None, name: str
) -> None:
    archive.run("2026-01-01T10:00:00", version=100)
    archive.run("2026-01-02T10:00:00", version=200)
    assert read(archive, wanted).run.name == name


def test_no_run_or_several_of_an_id(archive: Any, make_archive: Callable[[str], Any]) -> None:
    other = make_archive("taxi")
    with pytest.raises(ValueError, match=r"must be a run to show, got 'none in .*digits'. Start"):
        read(archive)
    archive.run("2026-01-01T10:00:00", version=100)
    other.run("2026-01-01T11:00:00", version=100)
    with pytest.raises(ValueError, match=r"got 'zzz, which no run has'. `plateau runs` lists them"):
        read(archive, "zzz")
    with pytest.raises(ValueError, match="got '2026-01-01, which begins") as error:
        lineage.read([archive.output, other.output], "2026-01-01")
    for run in (*runs.read(archive.output).runs, *runs.read(other.output).runs):
        assert run.id in str(error.value)


def test_the_log_is_the_last_one_begun_before_the_run(archive: Any) -> None:
    archive.run("a", version=100)
    assert read(archive).log is None
    logs = archive.output / "logs"
    logs.mkdir()
    for name in ("20010101-000000", "20020202-000000", "99990101-000000"):
        (logs / f"{name}.log").write_text("")
    assert read(archive).log == Path(logs / "20020202-000000.log")
