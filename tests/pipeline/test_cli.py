import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli

ROOT = Path(__file__).parents[2]


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
        (("run", "digits", "--batch-size", "0"), "batch_size must be at least 1, got 0"),
        (("run", "digits", "--learning-rate", "-1"), "learning_rate must be in (0, 100], got -1.0"),
        (("run", "taxi", "--classes", "one"), "Name them with --classes"),
        (("run", "digits", "extra"), "Unrecognized options"),
    ],
)
def test_bad_usage_exits_2_and_says_why(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    code, text = outcome(capsys, *args)
    assert code == 2
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize("args", [("--help",), ("presets",), ("run", "--help")])
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
