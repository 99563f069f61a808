import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.metadata import runs, store, versions
from pipeline.metadata.runs import Run

RETRAINED = ("ImageExampleGen", "InlineSchemaGen", "Transform")
ALL = (*RETRAINED, "Trainer", "Evaluator", "Servable", "Pusher", "TrainingReport")
CONFIG = {"schedule": {"strategy": "lr_decay"}, "loop": {"batch_size": 32}}


def only(archive: Any) -> Run:
    (run,) = runs.read(archive.output).runs
    return run


def test_a_finished_run(archive: Any) -> None:
    archive.run(
        "2026-01-01T10:00:00",
        version=100,
        properties={
            "Trainer": {"strategy": "hybrid"},
            "training_history": {"monitor": "val_accuracy", "best_value": 0.9944},
            "evaluation": {"test_accuracy": 0.9972},
        },
    )
    run = only(archive)
    assert run == Run(
        id=runs.short_id("2026-01-01T10:00:00"),
        name="2026-01-01T10:00:00",
        began=run.began,
        pipeline="plateau-digits-0a1b2c3d",
        state="finished",
        data="22ae517f",
        strategy="hybrid",
        monitor="val_accuracy",
        best_value=0.9944,
        test_accuracy=0.9972,
        blessed=True,
        pushed=100,
        served=True,
        cached=0,
        steps=8,
    )


def test_a_run_that_recorded_less(archive: Any) -> None:
    archive.run("a", version=100)
    run = only(archive)
    assert (run.strategy, run.monitor, run.best_value, run.test_accuracy) == ("", "", None, None)


@pytest.mark.parametrize(
    "properties",
    [
        {"custom_config": json.dumps({"train_config": json.dumps(CONFIG), "code": "6871"})},
        {"train_config": json.dumps(CONFIG), "code": "6871"},
        {"train_config": json.dumps({"loop": {}}), "strategy": "lr_decay", "code": "6871"},
    ],
)
def test_strategy_and_code_of_either_trainer(properties: dict[str, str], archive: Any) -> None:
    archive.run("a", version=100, properties={"Trainer": properties})
    assert only(archive).strategy == "lr_decay"
    assert runs.code(properties) == "6871"


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_config_that_is_no_json_object_is_none(text: str) -> None:
    assert runs.train_config({"train_config": text}) == {}


def test_a_cached_run_has_what_the_earlier_one_made(archive: Any) -> None:
    archive.run("first", version=100, properties={"training_history": {"best_value": 0.5}})
    archive.run("second", version=None, cached=ALL)
    second, first = runs.read(archive.output).runs
    assert (second.name, second.state, second.cached, second.steps) == ("second", "finished", 8, 8)
    assert (second.pushed, second.best_value, second.blessed) == (100, 0.5, True)
    assert second.served
    assert first.served


def test_a_failed_run(archive: Any) -> None:
    archive.run("a", failed="Trainer")
    run = only(archive)
    assert (run.state, run.steps, run.blessed, run.pushed) == ("failed", 4, None, None)


def test_an_unblessed_run(archive: Any) -> None:
    archive.run("a", blessed=False)
    run = only(archive)
    assert (run.state, run.blessed, run.pushed, run.served) == ("finished", False, None, False)


@pytest.mark.parametrize(
    ("infra", "blessed"),
    [
        ({"blessed": 0}, False),
        ({"blessed": 1}, True),
        ({"blessing_status": "INFRA_NOT_BLESSED"}, False),
        ({"blessing_status": "INFRA_BLESSED"}, True),
    ],
)
def test_a_model_that_could_not_be_served_is_not_blessed(
    archive: Any, infra: dict[str, Any], blessed: bool
) -> None:
    # What tried to serve it stands beside the evaluation.
    archive.run("a", version=100, properties={"infra_blessing": infra})
    assert only(archive).blessed is blessed


def test_a_run_whose_process_died_is_interrupted_and_one_at_work_is_running(archive: Any) -> None:
    archive.run("first", killed="Trainer")
    archive.run("second", killed="Evaluator")
    assert [run.state for run in runs.read(archive.output).runs] == ["interrupted", "interrupted"]
    busy = runs.read(archive.output, is_busy=lambda output: output == archive.output)
    assert [run.state for run in busy.runs] == ["running", "interrupted"]
    assert [run.state for run in runs.read(archive.output).runs] == ["interrupted", "interrupted"]


def test_a_run_between_two_components_is_running(archive: Any) -> None:
    archive.run("first", killed="ImageExampleGen")
    ended = archive.store.get_executions()[0]
    ended.last_known_state = ended.COMPLETE
    archive.store.put_executions([ended])
    assert only(archive).state == "interrupted"
    assert runs.read(archive.output, is_busy=lambda _: True).runs[0].state == "running"


def test_after_a_rollback_the_run_whose_model_is_served_is_marked(archive: Any) -> None:
    archive.run("first", version=100)
    archive.run("second", version=200)
    assert [run.served for run in runs.read(archive.output).runs] == [True, False]
    versions.apply(versions.plan(archive.output), now=lambda: 300)
    folder = runs.read(archive.output)
    assert [run.served for run in folder.runs] == [False, True]
    assert folder.served is not None
    assert (folder.served.number, folder.served.origin) == (300, 100)


def test_a_run_that_found_its_model_served_by_a_rollback_is_marked(archive: Any) -> None:
    archive.run("first", version=100)
    archive.run("second", version=200)
    versions.apply(versions.plan(archive.output), now=lambda: 300)
    # ServingPusher pushes nothing then, and names the version that is there.
    again = {"pushed": 1, "pushed_version": "300"}
    archive.run("third", cached=RETRAINED, properties={"pushed_model": again})
    folder = runs.read(archive.output)
    assert [(run.pushed, run.served) for run in folder.runs] == [
        (300, True),
        (200, False),
        (100, True),
    ]
    assert folder.served is not None
    assert folder.served.origin == 100


def test_data_of_other_sources_has_a_short_fingerprint_too() -> None:
    table = "split:all,num_files:1,total_bytes:1922812,xor_checksum:1,sum_checksum:2"
    short = runs.short_data({"input_fingerprint": table})
    assert len(short) == 8
    assert short != runs.short_data({"input_fingerprint": table + "0"})
    assert runs.short_data({}) == ""


def test_accuracy_is_that_of_the_runs_own_artifacts(archive: Any) -> None:
    archive.run("first", version=100)
    archive.run("second", version=200, properties={"evaluation": {runs.TEST_ACCURACY: 0.9972}})
    second, first = runs.read(archive.output).runs
    assert (second.test_accuracy, first.test_accuracy) == (0.9972, None)
    assert second.blessed


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_of_an_output_and_all(here: Path, make_archive: Callable[[str], Any]) -> None:
    for name in ("taxi", "digits"):
        make_archive(name)
    make_archive("compare-digits")
    (here / "runs" / "benchmarks").mkdir()
    (here / "runs" / "notes.txt").write_text("a note")
    digits, taxi = Path("runs/digits"), Path("runs/taxi")
    assert runs.folders(None) == (digits, taxi)
    assert runs.folders(here / "runs" / "digits") == (here / "runs" / "digits",)
    assert runs.folders(here) == ()
    with pytest.raises(ValueError, match=r"`output` must be the folder .*got 'no/such'"):
        runs.folders(Path("no/such"))


def test_the_one_folder_that_can_be_meant(here: Path, make_archive: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=r"none under ./runs'. Say which with `output="):
        runs.only_folder(None)
    make_archive("images").run("a", blessed=False)
    make_archive("digits").run("a", version=100)
    assert runs.only_folder(None) == Path("runs/digits")
    assert runs.only_folder(Path("runs/images")) == Path("runs/images")
    make_archive("taxi").run("a", version=100)
    with pytest.raises(ValueError, match=r"got 'runs/digits, runs/taxi'. Say which"):
        runs.only_folder(None)


def test_newest_report(archive: Any, make_archive: Callable[[str], Any]) -> None:
    both = [archive.output, make_archive("taxi").output]
    with pytest.raises(ValueError, match=r"got 'none in .*digits, .*taxi'. Start a run") as error:
        runs.newest_report(both)
    assert "`output`" in str(error.value)
    archive.run("first", version=100)
    archive.run("second", version=200)
    archive.run("third", failed="Trainer")
    report = archive.output / "artifacts" / "TrainingReport" / "html"
    assert runs.newest_report(both) == report / "2" / "report.html"
    (report / "2" / "report.html").unlink()
    assert runs.newest_report(both) == report / "1" / "report.html"


def test_the_newest_report_is_the_last_one_where_the_clock_was_set_back(archive: Any) -> None:
    archive.run("first", version=100)
    with contextlib.closing(sqlite3.connect(store.file_of(archive.output))) as file, file:
        file.execute("UPDATE Context SET create_time_since_epoch = 2000000000000")
    archive.run("second", version=200)
    report = archive.output / "artifacts" / "TrainingReport" / "html"
    assert runs.newest_report([archive.output]) == report / "2" / "report.html"


def test_a_folder_that_moved_finds_its_artifacts(archive: Any, tmp_path: Path) -> None:
    archive.run("first", version=100)
    moved = tmp_path / "elsewhere"
    shutil.move(archive.output, moved)
    report = moved / "artifacts" / "TrainingReport" / "html" / "1" / "report.html"
    assert runs.newest_report([moved]) == report
    (run,) = runs.read(moved).runs
    assert run.served


@pytest.mark.parametrize("word", ["images", "pictures"])
def test_data_of_images_is_known_by_its_fingerprint_in_folders_of_version_0_1_too(
    word: str,
) -> None:
    properties = {"input_fingerprint": f"{word}:22ae517f4a3d44a5,code:d1a23d"}
    assert runs.short_data(properties) == "22ae517f"
