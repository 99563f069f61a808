import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pipeline.metadata import store as metadata
from pipeline.metadata.store import Records


def records(archive: Any) -> Records:
    return metadata.read(metadata.file_of(archive.output))


def test_a_run_is_read_with_its_executions_in_order(archive: Any) -> None:
    archive.run("2026-01-01T10:00:00.5", version=100, properties={"Trainer": {"patience": 3}})
    (run,) = records(archive).runs
    assert run.id == "2026-01-01T10:00:00.5"
    assert run.pipeline == "plateau-digits-0a1b2c3d"
    assert [e.component for e in run.executions] == [
        "ImageExampleGen",
        "InlineSchemaGen",
        "Transform",
        "Trainer",
        "Evaluator",
        "Servable",
        "Pusher",
        "TrainingReport",
    ]
    assert {e.state for e in run.executions} == {"complete"}
    assert {e.run for e in run.executions} == {run.id}
    assert run.executions[3].properties == {"patience": 3}
    assert all(e.seconds >= 0 for e in run.executions)


def test_inputs_and_outputs_are_artifacts_by_key(archive: Any) -> None:
    archive.run("a", version=100)
    found = records(archive)
    trainer = found.runs[0].executions[3]
    assert {key: a.type for key, a in trainer.inputs} == {
        "examples": "Examples",
        "transform_graph": "TransformGraph",
    }
    (model, _) = (artifact for _, artifact in trainer.outputs)
    assert model.uri.endswith("artifacts/Trainer/model/1")
    pushed = dict(found.runs[0].outputs)["pushed_model"]
    assert pushed.properties["pushed"] == 1
    assert pushed.properties["pushed_version"] == "100"


def test_the_maker_of_a_cached_artifact_is_the_run_that_made_it(archive: Any) -> None:
    archive.run("first", version=100)
    archive.run("second", version=200, cached=("ImageExampleGen", "Trainer"))
    found = records(archive)
    assert [run.id for run in found.runs] == ["first", "second"]
    made = dict(found.runs[1].outputs)
    makers = {key: found.maker(artifact.id) for key, artifact in made.items()}
    runs = {key: maker.run for key, maker in makers.items() if maker}
    assert (runs["examples"], runs["model"], runs["blessing"]) == ("first", "first", "second")
    assert found.maker(10_000) is None


def test_values_keep_their_types(archive: Any) -> None:
    values = {"whole": 3, "real": 0.25, "text": "x"}
    archive.run("a", version=100, properties={"training_history": values})
    found = records(archive)
    history = dict(found.runs[0].outputs)["training_history"]
    assert history.properties == values
    assert [type(v) for _, v in sorted(history.properties.items())] == [float, str, int]


def test_an_artifact_read_under_two_keys_is_found_under_both(archive: Any) -> None:
    archive.run("first", version=100)
    archive.run("second", version=200, cached=("Trainer",))
    found = records(archive)
    evaluator = found.runs[1].executions[4]
    read = {key: artifact.id for key, artifact in evaluator.inputs}
    assert read["model"] == read["baseline_model"]


def test_nothing_takes_less_than_no_time_where_the_clock_was_set_back(archive: Any) -> None:
    archive.run("a", version=100)
    with contextlib.closing(sqlite3.connect(metadata.file_of(archive.output))) as file, file:
        file.execute("UPDATE Execution SET create_time_since_epoch = 2000000000000")
    assert {e.seconds for e in records(archive).runs[0].executions} == {0}


def test_no_runs_yet(archive: Any) -> None:
    assert records(archive) == Records({}, {}, ())


def test_reading_does_not_write(archive: Any) -> None:
    archive.run("a", version=100)
    file = metadata.file_of(archive.output)
    before = file.read_bytes()
    records(archive)
    store = metadata.connect(file)
    with pytest.raises(Exception, match=r"(?i)read.?only"):
        store.put_artifacts([archive.latest["model"].__class__(type_id=1)])
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"not a database at all", b""])
def test_a_file_that_is_missing_or_no_metadata_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    file = metadata.file_of(tmp_path)
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match="another folder with `output`") as error:
        metadata.read(file)
    assert str(tmp_path) in str(error.value)
