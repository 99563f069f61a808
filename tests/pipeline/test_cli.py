import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline import cli

ROOT = Path(__file__).parents[2]
TAXI = ROOT / "schemas" / "taxi.pbtxt"


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = cli.main(args)
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
        (("run", "digits", "--patiense", "3"), "Perhaps you meant: --patience"),
        (("run", "digits", "--patience", "soon"), "invalid literal for int()"),
        (("run", "digits", "--min-accuracy", "2"), "must be a share from 0 to 1, got 2.0"),
        (("run", "digits", "--batch-size", "0"), "--batch-size must be at least 1, got 0"),
        (
            ("run", "digits", "--learning-rate", "-1"),
            "--learning-rate must be in (0, 100], got -1.0",
        ),
        (("run", "taxi", "--classes", "one"), "Name them with --classes"),
        (("run", "digits", "extra"), "Unrecognized options"),
        (("run", "digits", "--patience", "0"), "--patience must be at least 1 evaluation, got 0"),
        (("run", "digits", "--factor", "0.5"), "--factor must be a finite number above 1, got 0.5"),
        (("run", "digits", "--plan", "batch^2"), "got 'batch^2'. Give one action for each stall"),
        (("run", "digits", "--plan", ""), "--plan must hold at least one action"),
        (("run", "digits", "--min-accuracy", "2"), "--min-accuracy must be a share from 0 to 1"),
        (("run", "digits", "--monitor", "f1"), "--monitor must be one of loss, accuracy, val_loss"),
        (("run", "digits", "--monitor", "val_loss"), "Add --mode min"),
        (("run", "digits", "--model", "gpt"), "--model must be built in or the dotted path"),
        (("run", "digits", "--model", "no.such"), "a dotted --model must name a function"),
        (
            ("run", "digits", "--max-batch-size", "8"),
            "--batch-size must be at most --max-batch-size (8), got 32",
        ),
        (
            ("run", "digits", "--learning-rate", "1e-9"),
            "--learning-rate must be finite, above 0 and at least --min-learning-rate (1e-06)",
        ),
        (("plan", "imagenet"), "Choose one of images, digits"),
        (("plan", "cifar10"), "with --data PATH, or how many training examples there are with"),
        (("plan", "cifar10", "--examples", "0"), "--examples must be at least 1, got 0"),
        (("plan", "cifar10", "--examples", "10"), "number of training examples (10), got 16"),
        (("plan", "digits", "--patience", "0"), "--patience must be at least 1 evaluation, got 0"),
    ],
)
def test_bad_usage_exits_2_and_says_why(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    code, text = outcome(capsys, *args)
    assert code == 2
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize("args", [("--help",), ("presets",), ("run", "--help"), ("plan", "--help")])
def test_help_exits_0(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    code, text = outcome(capsys, *args)
    assert code == 0
    assert "preset" in text.lower()


def test_help_explains_a_flag_with_the_default_of_its_preset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, text = outcome(capsys, "run", "cifar10-vgg16", "--help")
    assert (
        "--patience INT Evaluations in a row without improvement after which the schedule acts. "
        "(default: 5)" in text
    )
    assert "(default: lr_decay)" in text


def test_every_flag_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("digits", "taxi"):
        _, text = outcome(capsys, "run", name, "--help")
        flags = [
            part for part in text.split(" --")[1:] if "(default" in part or "show this" in part
        ]
        assert len(flags) > 30
        assert len(flags) == text.count(" --") - text.split("╭")[0].count(" --")


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


def no_picture(folder: Path) -> list[str]:
    pictures(folder, cat=3, dog=3)
    (folder / "dog" / "notes.txt").write_text("a note")
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
        ("images", one_class, "data", "at least two classes", "Add a folder"),
        ("images", class_without_pictures, "data/eel", "must hold pictures", "remove the folder"),
        ("images", empty_split, "data/eval", "must hold class folders", "Fill it"),
        ("images", class_only_in_test, "data/test/eel", "must be in train/ too", "to train/"),
        ("images", no_picture, "data/dog/notes.txt", "may hold pictures only", "Convert it"),
        ("images", picture_beside_classes, "data/stray.png", "in a class folder", "Lay it out"),
        ("images", empty_folder, "data", "must hold class folders", "Lay it out"),
        ("images", file_for_a_folder, "data", "must be a folder, found a file", "Check --data"),
        ("images", batch_beyond_the_data, "--batch-size", "(20), got 21", "Lower --batch-size"),
        ("images", schema_of_a_table, "taxi.pbtxt", "must describe image", "Check --schema"),
        ("images", schema_cut_short, "data.pbtxt", "must be a readable", "Check --schema"),
        ("cifar10", other_classes, "data", "labels of the schema cifar10.pbtxt", "--schema"),
        ("taxi", empty_folder, "data", "must hold a .csv file", "Check --data"),
        ("taxi", file_for_a_folder, "data", "must be a folder, found a file", "Check --data"),
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
        (("--numeric", "cats"), "--numeric must name columns of the schema taxi.pbtxt, got 'cats'"),
        (("--label", "cats"), "--label must name columns of the schema taxi.pbtxt, got 'cats'"),
        (("--label-over", "cats"), "--label-over must name columns of the schema"),
        (("--bucketized", "company"), "--bucketized must name columns of numbers, got 'company'"),
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
    assert cli.main(["plan", "cifar10-vgg16", "--examples", "50000"]) == 0
    table = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]
    assert [row for row in rows if row] == [
        ["start", "", "0.001", "128", "390", "3.896"],
        ["stall 1", "learning rate", "0.00025", "128", "390", "0.9741"],
        ["stall 2", "learning rate", "0.0000625", "128", "390", "0.2435"],
    ]
    text = " ".join(table.split())
    assert "5 epochs in a row without a better val_accuracy; stall 3 stops the run" in text
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


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["presets"],
        ["run", "--help"],
        ["run", "digits", "--strategy", "x"],
        ["plan", "cifar10-vgg16", "--examples", "50000"],
        ["plan", "digits"],
        ["plan", "taxi"],
        ["run", "--data", "/nowhere", "--output", "OUT"],
    ],
)
def test_nothing_heavy_is_imported_before_the_data_is_checked(
    args: list[str], tmp_path: Path
) -> None:
    program = (
        "import sys; from pipeline import cli; cli.main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'keras'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    args = [str(tmp_path) if arg == "OUT" else arg for arg in args]
    done = subprocess.run(
        [sys.executable, "-c", program, *args], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
