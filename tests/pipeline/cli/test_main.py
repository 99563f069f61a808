import io
import json
import re
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.metadata import versions
from pipeline.metadata.runs import short_id
from pipeline.runners import lock

ROOT = Path(__file__).parents[3]
TAXI = ROOT / "schemas" / "taxi.pbtxt"


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = main.main(args)
    captured = capsys.readouterr()
    # Messages are wrapped into boxes of the console's width.
    text = captured.out + captured.err
    return code, " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "a command is missing"),
        (("train",), "unknown command 'train'"),
        (("presets", "digits"), "takes no arguments"),
        (("run", "imagenet"), "Choose one of images, digits, cifar10, cifar10-vgg16, taxi"),
        (("run",), "needs data. Say where with --data PATH"),
        (("run", "cifar10"), "needs data. Say where with --data PATH"),
        (("run", "digits", "--strategy", "warmup"), "'batch_increase', 'hybrid', 'auto'"),
        (("run", "digits", "--patiense", "3"), "Unrecognized options: --patiense"),
        (("run", "digits", "--patiense", "3"), "Perhaps you meant: --patience"),
        (("run", "digits", "--patience", "soon"), "invalid literal for int()"),
        (
            ("run", "digits", "--min-accuracy", "2"),
            "--min-accuracy must be at least 0 and at",
        ),
        (("run", "digits", "--batch-size", "0"), "--batch-size must be at least 1, got 0"),
        (
            ("run", "digits", "--learning-rate", "-1"),
            "got -1.0",
        ),
        (("run", "taxi", "--classes", "one"), "--classes must name two classes or more"),
        (("run", "taxi", "--group-by", "a"), "--group-by is for images, got 'a'"),
        (("run", "digits", "--group-by", "("), "--group-by must be a regular expression ("),
        (
            ("run", "digits", "--on-missing-label", "skip"),
            "--on-missing-label is for tables, got 'skip'",
        ),
        (
            ("compile", "digits", "--output", "o", "--image", "i"),
            "a compiled pipeline has no output folder. Name the file with --file",
        ),
        (("run", "digits", "extra"), "Unrecognized options: extra"),
        (("run", "digits", "--patience", "0"), "--patience must be at least 1, got 0"),
        (("run", "digits", "--factor", "0.5"), "--factor must be above 1, got 0.5"),
        (("run", "digits", "--plan", "batch^2"), "got 'batch^2'. Give an action for each plateau"),
        (("run", "digits", "--plan", ""), "each action of --plan must be"),
        (("run", "digits", "--monitor", "f1"), "--monitor must be one of loss, accuracy, val_loss"),
        (("run", "images", "--monitor", "val_loss"), "Add --mode min"),
        (
            ("run", "digits", "--model", "gpt"),
            "must be one of cnn, ",
        ),
        (("run", "digits", "--model", "no.such"), "must name a function"),
        (
            ("run", "digits", "--max-batch-size", "8"),
            "got 16",
        ),
        (
            ("run", "digits", "--learning-rate", "1e-9"),
            "got 1e-09",
        ),
        (("plan", "imagenet"), "Choose one of images, digits"),
        (("plan", "cifar10"), "with --data PATH, or how many training examples there are with"),
        (("plan", "cifar10", "--examples", "0"), "--examples must be at least 1, got 0"),
        (("plan", "cifar10", "--examples", "10"), "number of training examples (10), got 16"),
        (("plan", "digits", "--patience", "0"), "--patience must be at least 1, got 0"),
        (("runs", "imagenet"), "Choose one of images, digits"),
        (("runs", "--strategy", "hybrid"), "Unrecognized options"),
        (("runs", "show", "one", "two"), "Unrecognized options: two"),
        (("rollback", "latest"), "invalid literal for int()"),
        (("report", "imagenet"), "Choose one of images, digits"),
    ],
)
def test_bad_usage_exits_2_and_says_why(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    code, text = outcome(capsys, *args)
    assert code == 2
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("command", "flag", "other"),
    [("compile", "--output", "--volume"), ("compare", "--strategy", "--strategies")],
)
def test_help_lists_no_flag_that_is_refused(
    capsys: pytest.CaptureFixture[str], command: str, flag: str, other: str
) -> None:
    code, text = outcome(capsys, command, "digits", "--help-all")
    assert code == 0
    assert f" {other} " in text
    assert f" {flag} " not in text


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, listed = outcome(capsys, "--help")
    for name, command in main.COMMANDS.items():
        assert f"{name} {command.usage}".strip() in listed
        assert command.purpose in listed


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("runs", "plateau runs [-h] [PRESET] [--output PATH] [--json]"),
        ("runs show", "plateau runs show [-h] [ID] [--output PATH] [--json]"),
        ("rollback", "plateau rollback [-h] [VERSION] [--output PATH] [--yes]"),
        ("report", "plateau report [-h] [PRESET] [--output PATH] [--open]"),
    ],
)
def test_each_command_has_help(
    capsys: pytest.CaptureFixture[str], command: str, usage: str
) -> None:
    code, text = outcome(capsys, *command.split(), "--help")
    assert code == 0
    assert usage in text
    assert main.COMMANDS[command].purpose[1:] in text


@pytest.mark.parametrize("args", [("--help",), ("presets",), ("run", "--help"), ("plan", "--help")])
def test_help_exits_0(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    code, text = outcome(capsys, *args)
    assert code == 0
    assert "preset" in text.lower()


def test_version_names_what_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    import tensorflow as tf
    import tfx.v1 as tfx

    code, text = outcome(capsys, "--version")
    assert code == 0
    assert text == (
        f"Plateau {metadata.version('plateau-tfx')}, TFX {tfx.__version__}, "
        f"TensorFlow {tf.__version__}, Python {sys.version.split()[0]}"
    )


@pytest.mark.parametrize(
    ("flags", "once"),
    [(["--help"], "usage: plateau"), (["--tyro-print-completion", "bash"], "\ncomplete -")],
)
def test_what_is_printed_in_place_of_a_run_comes_once(
    capsys: pytest.CaptureFixture[str], flags: list[str], once: str
) -> None:
    assert main.main(["run", "digits", *flags]) == 0
    assert capsys.readouterr().out.count(once) == 1


def test_help_explains_a_flag_with_the_default_of_its_preset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, text = outcome(capsys, "run", "cifar10-vgg16", "--help")
    assert re.search(r"--patience INT Evaluations in a row [^(]*\(default: 5\)", text)
    assert "(default: lr_decay)" in text


def test_every_flag_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("digits", "taxi"):
        _, text = outcome(capsys, "run", name, "--help-all")
        explained = re.split(r" --(?=[a-z])", text)[1:]
        assert len(explained) > 50
        assert [flag for flag in explained if len(flag.split()) < 6] == []


def pictures(folder: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (8, 8), i).save(folder / name / f"{i}.png")
    return folder


def one_class(folder: Path) -> list[str]:
    return ["--data", str(pictures(folder, cat=3))]


def class_without_pictures(folder: Path) -> list[str]:
    return ["--data", str(pictures(folder, cat=3, dog=3, eel=0))]


def empty_split(folder: Path) -> list[str]:
    pictures(folder / "train", cat=3, dog=3)
    (folder / "eval").mkdir()
    return ["--data", str(folder)]


def class_only_in_test(folder: Path) -> list[str]:
    pictures(folder / "train", cat=3, dog=3)
    pictures(folder / "test", cat=3, eel=3)
    return ["--data", str(folder)]


def link_to_a_folder(folder: Path) -> list[str]:
    pictures(folder, cat=3, dog=3)
    (folder / "dog" / "more").symlink_to(folder / "cat")
    return ["--data", str(folder)]


def picture_beside_classes(folder: Path) -> list[str]:
    pictures(folder, cat=3, dog=3)
    Image.new("L", (8, 8)).save(folder / "stray.png")
    return ["--data", str(folder)]


def empty_folder(folder: Path) -> list[str]:
    folder.mkdir()
    return ["--data", str(folder)]


def file_for_a_folder(folder: Path) -> list[str]:
    folder.write_text("a file")
    return ["--data", str(folder)]


def batch_beyond_the_data(folder: Path) -> list[str]:
    return ["--data", str(pictures(folder, cat=10, dog=10)), "--batch-size", "21"]


def other_classes(folder: Path) -> list[str]:
    return ["--data", str(pictures(folder, cat=3, eel=3))]


def schema_of_a_table(folder: Path) -> list[str]:
    return ["--data", str(pictures(folder, cat=3, dog=3)), "--schema", str(TAXI)]


def schema_cut_short(folder: Path) -> list[str]:
    pictures(folder, cat=3, dog=3)
    schema = folder.with_suffix(".pbtxt")
    schema.write_text("feature {")
    return ["--data", str(folder), "--schema", str(schema)]


@pytest.mark.parametrize(
    ("preset", "make", "place", "rule", "remedy"),
    [
        ("images", one_class, "data", "2 to 5000 class folders", "Lay it out"),
        ("images", class_without_pictures, "data/eel", "must hold images", "remove the folder"),
        ("images", empty_split, "data/eval", "must hold class folders", "Fill it"),
        ("images", class_only_in_test, "data/test/eel", "must be in train/ too", "to train/"),
        ("images", link_to_a_folder, "data/dog/more", "must lead to files", "Copy its images"),
        ("images", picture_beside_classes, "data/stray.png", "in a class folder", "Lay it out"),
        ("images", empty_folder, "data", "2 to 5000 class folders", "Lay it out"),
        ("images", file_for_a_folder, "data", "must be a folder, got 'a file'", "Check its path"),
        ("images", batch_beyond_the_data, "", "(20), got 21", "Lower"),
        ("images", schema_of_a_table, "taxi.pbtxt", "must describe image", "--schema"),
        ("images", schema_cut_short, "data.pbtxt", "must be a readable", "--schema"),
        ("cifar10", other_classes, "data", "labels of the schema cifar10.pbtxt", "--schema"),
        ("taxi", empty_folder, "data", "must hold a .csv file", "--data"),
        ("taxi", file_for_a_folder, "data", "must be a folder, got 'a file'", "Check its path"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_data_exits_1_before_tfx_and_names_place_rule_and_remedy(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    preset: str,
    make: Callable[[Path], list[str]],
    place: str,
    rule: str,
    remedy: str,
) -> None:
    flags = make(tmp_path / "data")
    output = tmp_path / "out"
    code, text = outcome(capsys, "run", preset, *flags, "--output", str(output))
    assert code == 1
    for part in (place, rule, remedy):
        assert part in text
    assert "Traceback" not in text
    assert not (output / "artifacts").exists()


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (("--numeric", "cats"), "must name columns of the schema taxi.pbtxt, got 'cats'"),
        (("--label", "cats"), "must name columns of the schema taxi.pbtxt, got 'cats'"),
        (("--label-over", "cats"), "must name columns of the schema"),
        (("--bucketized", "company"), "must name columns of numbers, got 'company'"),
    ],
)
def test_columns_that_the_table_lacks_exit_1_before_tfx(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: tuple[str, ...], rule: str
) -> None:
    code, text = outcome(capsys, "run", "taxi", *flags, "--output", str(tmp_path / "out"))
    assert code == 1
    assert rule in text
    assert not (tmp_path / "out" / "artifacts").exists()


def test_an_output_that_is_a_file_exits_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    code, text = outcome(capsys, "run", "digits", "--output", str(tmp_path / "out"))
    assert code == 1
    assert "--output must be a folder that can be written to" in text


def test_plan_prints_each_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main.main(["plan", "cifar10-vgg16", "--examples", "50000"]) == 0
    table = capsys.readouterr().out
    assert [" ".join(line.split()) for line in table.splitlines()][3:6] == [
        "start 0.001 128 390 3.896",
        "plateau 1 learning rate 0.00025 128 390 0.9741",
        "plateau 2 learning rate 0.0000625 128 390 0.2435",
    ]
    text = " ".join(table.split())
    assert "5 epochs in a row without a better val_accuracy; plateau 3 stops the run" in text
    assert "learning rate / k equals batch * k" in text
    assert "Assumes 50,000 training examples (--examples)" in text


def test_missing_data_folder_exits_1_and_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, text = outcome(
        capsys, "run", "--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")
    )
    assert code == 1
    assert "nowhere" in text
    assert "Traceback" not in text


def test_the_history_is_read_and_changed_without_tensorflow(two: Any) -> None:
    program = (
        "import sys; from pipeline.cli import main; "
        "codes = [main.main(line.split()) for line in sys.argv[1:]]; "
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'keras'} & set(sys.modules); "
        "sys.exit(f'{codes}, imported {heavy}' if heavy or any(codes) else 0)"
    )
    lines = ["runs", "runs show", "rollback --yes", "report"]
    lines = [f"{line} --output {two.output}" for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", program, *lines], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_list_of_commands_loads_hardly_anything() -> None:
    program = (
        "import sys; from pipeline.cli import main; main.main(['--help']); "
        "ours = {name for name in sys.modules if name.startswith('pipeline.')}; "
        "ours -= {f'pipeline.cli{name}' for name in ('', '.main', '.arguments')}; "
        "sys.exit(str(ours) if ours else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def two(archive: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two models pushed to runs/digits, seen from the folder above."""
    archive.run("2026-01-01T10:00:00", version=100)
    archive.run("2026-01-02T10:00:00", version=200)
    monkeypatch.chdir(archive.output.parents[1])
    return archive


def test_runs_without_any_says_how_to_start_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for args, sentence in (
        ((), "No runs in runs yet. Start one: plateau run digits"),
        (("taxi",), "No runs in runs/taxi yet. Start one: plateau run taxi"),
        (("--output", "."), "No runs in . yet. Start one: plateau run digits --output ."),
    ):
        assert outcome(capsys, "runs", *args) == (0, sentence)
        assert outcome(capsys, "runs", *args, "--json") == (0, "[]")


def test_runs_lists_each_folder(
    capsys: pytest.CaptureFixture[str], two: Any, make_archive: Callable[[str], Any]
) -> None:
    make_archive("taxi").run("2026-01-03T10:00:00", failed="Trainer")
    code, text = outcome(capsys, "runs")
    assert code == 0
    for name in ("2026-01-01T10:00:00", "2026-01-02T10:00:00", "2026-01-03T10:00:00"):
        assert short_id(name) in text
    assert "runs/digits" in text
    assert "runs/taxi" in text
    assert "failed" in text
    _, text = outcome(capsys, "runs", "digits")
    assert short_id("2026-01-01T10:00:00") in text
    assert short_id("2026-01-03T10:00:00") not in text


def test_runs_and_show_as_json(capsys: pytest.CaptureFixture[str], two: Any) -> None:
    assert main.main(["runs", "--json"]) == 0
    (folder,) = json.loads(capsys.readouterr().out)
    assert [run["pushed"] for run in folder["runs"]] == [200, 100]
    assert main.main(["runs", "show", folder["runs"][1]["id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == folder["runs"][1]


def test_show_prints_one_run(capsys: pytest.CaptureFixture[str], two: Any) -> None:
    code, text = outcome(capsys, "runs", "show", "2026-01-01")
    assert code == 0
    assert f"run {short_id('2026-01-01T10:00:00')}" in text
    assert "PushedModel version 100, by Pusher" in text
    assert outcome(capsys, "runs", "show", "zzz")[0] == 1


def test_a_run_is_running_while_its_folder_is_held(
    capsys: pytest.CaptureFixture[str], two: Any
) -> None:
    two.run("2026-01-03T10:00:00", killed="Trainer")
    assert "interrupted" in outcome(capsys, "runs")[1]
    with lock.hold(two.output):
        assert "running" in outcome(capsys, "runs", "show")[1]
    (two.output / ".lock").unlink(missing_ok=True)
    # Nobody can run where the lock cannot be taken.
    (two.output / ".lock").mkdir()
    assert "interrupted" in outcome(capsys, "runs")[1]


def test_output_of_a_preset(capsys: pytest.CaptureFixture[str], two: Any) -> None:
    report = outcome(capsys, "report", "digits")
    assert report == outcome(capsys, "report", "--output", "runs/digits")
    # A folder that is named goes before the preset's.
    assert report == outcome(capsys, "report", "taxi", "--output", "runs/digits")
    code, text = outcome(capsys, "report", "--output", "nowhere")
    assert (code, "--output must be the folder of earlier runs, got 'nowhere'" in text) == (1, True)


def test_rollback_is_asked_for_and_done(
    capsys: pytest.CaptureFixture[str], two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(text: str) -> tuple[int, str]:
        terminal = io.StringIO(text)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        return outcome(capsys, "rollback")

    pushed = versions.folder_of(two.output)
    code, text = answer("n\n")
    assert (code, len(list(pushed.iterdir()))) == (1, 2)
    assert "Go ahead? [y/N]" in text
    assert "Nothing was changed" in text
    code, text = answer("y\n")
    newest = max(map(int, (path.name for path in pushed.iterdir())))
    assert (code, newest > 200) == (0, True)
    assert f"served {newest}, a copy of 100" in text
    assert f"served {newest}, a copy of 100" in outcome(capsys, "runs")[1]


def test_rollback_without_a_terminal_needs_yes(
    capsys: pytest.CaptureFixture[str], two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, text = outcome(capsys, "rollback")
    assert code == 2
    assert "plateau rollback 100 --yes" in text
    assert len(list(versions.folder_of(two.output).iterdir())) == 2
    code, text = outcome(capsys, "rollback", "100", "--yes")
    assert code == 0
    assert "plateau rollback 200" in text


def test_rollback_that_cannot_be_done_exits_1(
    capsys: pytest.CaptureFixture[str], two: Any, tmp_path: Path
) -> None:
    code, text = outcome(capsys, "rollback", "150", "--yes")
    assert (code, "got 150. Versions there: 100, 200." in text) == (1, True)
    with lock.hold(two.output):
        code, text = outcome(capsys, "rollback", "--yes")
    assert (code, "Wait for it" in text) == (1, True)
    (tmp_path / "empty").mkdir()
    code, text = outcome(capsys, "rollback", "--yes", "--output", str(tmp_path / "empty"))
    assert (code, "must hold the metadata.sqlite of a run" in text) == (1, True)


def test_report_says_where_it_is_and_opens_it(
    capsys: pytest.CaptureFixture[str], two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Path("runs/digits/artifacts/TrainingReport/html/2/report.html")
    assert outcome(capsys, "report") == (0, str(report))
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)))
    code, text = outcome(capsys, "report", "digits", "--open")
    assert opened == [report.resolve().as_uri()]
    assert (code, "a browser must be installed" in text) == (1, True)
    code, text = outcome(capsys, "report", "taxi")
    assert (code, "none in ./runs'. Start a run" in text) == (1, True)


def test_bless_needs_a_reason_and_a_yes(
    capsys: pytest.CaptureFixture[str], two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    two.run("2026-01-03T10:00:00", blessed=False)
    model = Path(two.latest["model"].uri) / "Format-Serving"
    model.mkdir()
    (model / "saved_model.pb").write_text("held back")
    code, text = outcome(capsys, "bless")
    assert (code, "Try --reason 'checked by hand'." in text) == (1, True)
    code, text = outcome(capsys, "bless", "--reason", "it is right")
    assert (code, "plateau bless --reason 'it is right' --yes" in text) == (2, True)
    with lock.hold(two.output):
        code, text = outcome(capsys, "bless", "--reason", "it is right", "--yes")
    assert (code, "Wait for it" in text) == (1, True)
    code, text = outcome(capsys, "bless", "--reason", "it is right", "--yes")
    assert code == 0
    assert "reason it is right" in text
    assert "plateau rollback 200" in text
    code, text = outcome(capsys, "runs")
    assert "by hand" in text
    assert f"{short_id('2026-01-03T10:00:00')}: pushed by hand: it is right" in text
