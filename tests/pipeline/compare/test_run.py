import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import presets
from pipeline.cli import main
from pipeline.compare import run as compare
from pipeline.compare.run import CompareConfig
from pipeline.compare.statistics import Comparison
from pipeline.data import dataset
from pipeline.metadata import store
from pipeline.runners import local, lock
from schemas.images import image_schema_text
from tests.trials import trial
from trainer_module.util.checks import UserError


def config(**changes: Any) -> CompareConfig:
    return dataclasses.replace(compare.default(presets.get("digits").build()), **changes)


def test_each_seed_begins_with_another_strategy_and_only_those_two_differ() -> None:
    made = config(strategies=("lr_decay", "hybrid"), seeds=3)
    found = compare.turns(made)
    assert [(turn.strategy, turn.seed) for turn in found] == [
        ("lr_decay", 0),
        ("hybrid", 0),
        ("hybrid", 1),
        ("lr_decay", 1),
        ("lr_decay", 2),
        ("hybrid", 2),
    ]
    for turn in found:
        assert turn.config.schedule.strategy == turn.strategy
        assert turn.config.loop.seed == turn.seed
        same = dataclasses.replace(turn.config, schedule=made.run.schedule, loop=made.run.loop)
        assert same == made.run


@pytest.mark.component
def test_every_run_uses_the_engine_of_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[CompareConfig] = []

    def stop(config: CompareConfig, *_: object) -> None:
        made.append(config)
        raise UserError("the test", "must stop", "here")

    monkeypatch.setattr(compare, "run", stop)
    monkeypatch.chdir(tmp_path)
    assert main.main(["compare", "digits", "--beam", "direct:2", "--seeds", "1"]) == 1
    assert "must stop" in capsys.readouterr().err
    for turn in compare.turns(made[0]):
        run = dataclasses.replace(turn.config, classes=("0", "1"))
        size = dataset.TrainingSize(100, 100, "a test")
        data = dataset.Dataset(
            tmp_path, tmp_path, run.classes, image_schema_text(run.classes), size
        )
        compiled = local.compile_pipeline(run, data, tmp_path)
        assert b"--direct_num_workers=2" in compiled.SerializeToString()


def test_seeds_count_from_the_one_given() -> None:
    run = presets.get("digits").build()
    run = dataclasses.replace(run, loop=dataclasses.replace(run.loop, seed=40))
    assert {turn.seed for turn in compare.turns(config(run=run, seeds=2))} == {40, 41}


def test_a_comparison_keeps_apart_from_the_runs_of_its_preset() -> None:
    run = presets.get("digits").build()
    assert compare.apart(run).folder == Path("runs/compare-digits")
    given = dataclasses.replace(run, output=Path("elsewhere"))
    assert compare.apart(given) == given


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--strategies", "hybrid"), "--strategies must be at least two, got ('hybrid',)"),
        (("--strategies", "auto", "auto"), "--strategies must differ"),
        (("--strategies", "auto", "warmup"), "invalid choice"),
        (("--seeds", "0"), "--seeds must be at least 1, got 0"),
        (("--strategy", "auto"), "Name them with --strategies"),
        (("--plan", "lr/2"), "--plan must be left out of a comparison"),
        (("--warm-start",), "--warm-start must be left out of a comparison"),
        (("--tune", "3"), "--tune must be left out of a comparison"),
        (("--patience", "0"), "--patience must be at least 1, got 0"),
        (("--model", "gpt"), "--model must be one of"),
    ],
)
def test_bad_usage_exits_2_and_says_why(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert main.main(["compare", "digits", *flags]) == 2
    captured = capsys.readouterr()
    assert message in " ".join((captured.out + captured.err).replace("│", " ").split())


def test_a_preset_without_data_asks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["compare", "cifar10"]) == 2
    assert "needs data. Say where with --data PATH" in " ".join(capsys.readouterr().err.split())


def test_help_has_the_flags_of_a_run_and_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["compare", "digits", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for flag in ("--strategies", "--seeds", "--patience", "--learning-rate", "--data"):
        assert flag in text
    assert "the others are measured against the first" in text


def test_an_output_in_use_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with lock.hold(tmp_path):
        assert main.main(["compare", "digits", "--output", str(tmp_path)]) == 1
    assert "only one run at a time" in " ".join(capsys.readouterr().err.split())


def test_an_evaluation_is_found_again_for_a_cached_model(archive: Any) -> None:
    archive.run("one")
    archive.run("two", cached=["ImageExampleGen", "InlineSchemaGen", "Transform", "Trainer"])
    archive.run("three", failed="Evaluator")
    records = store.read(store.file_of(archive.output))
    trained, evaluated = compare.outcome(records, "one")
    assert trained.type == "components.TrainingHistory"
    assert evaluated is not None
    again, newest = compare.outcome(records, "two")
    assert again == trained
    assert newest is not None
    # Trained anew, and never evaluated.
    other, missing = compare.outcome(records, "three")
    assert other.id != trained.id
    assert missing is None


def test_all_three_files_are_written_whole_and_the_settings_leave_out_what_differs(
    tmp_path: Path,
) -> None:
    made = config(strategies=("lr_decay", "auto"), seeds=1)
    comparison = Comparison((trial("lr_decay", test=0.6), trial("auto", test=0.6)))
    page = compare.write(
        comparison,
        tmp_path / "comparison",
        title="digits",
        command="plateau compare digits",
        settings=compare._settings(made),
    )
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "comparison.html",
        "comparison.json",
    ]
    record = json.loads(page.with_suffix(".json").read_text())
    assert record["command"] == "plateau compare digits"
    assert record["config"]["seeds"] == [0]
    assert record["config"]["strategies"] == ["lr_decay", "auto"]
    assert record["config"]["schedule"]["factor"] == 8
    assert "strategy" not in record["config"]["schedule"]
    assert [run["test_accuracy"] for run in record["runs"]] == [0.6, 0.6]


def test_data_that_cannot_be_used_stops_before_training(tmp_path: Path) -> None:
    run = dataclasses.replace(
        presets.get("images").build(), data=tmp_path / "none", output=tmp_path / "out"
    )
    with pytest.raises(UserError, match="`data` must exist"):
        compare.run(CompareConfig(run), Console(quiet=True), "")
    assert not (tmp_path / "out" / "artifacts").exists()
