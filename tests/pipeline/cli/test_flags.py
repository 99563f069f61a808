from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import presets
from pipeline.cli import flags, forecast, help
from pipeline.cli.arguments import UsageError
from pipeline.compare import run as comparison
from pipeline.runners import kubeflow, submit
from trainer_module.util.checks import UserError

RUN = presets.digits()


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("`patience` must be at least 1", "--patience must be at least 1"),
        ("at most `max_batch_size` (8)", "at most --max-batch-size (8)"),
        ("Try `batch_size=16` with `mode=min`.", "Try --batch-size 16 with --mode min."),
        ("Try `beam_args=project=a`.", "Try --beam-args project=a."),
        ("Try `plan=lr/5, lr/2`.", "Try --plan 'lr/5, lr/2'."),
        ("`plateau runs` lists them.", "`plateau runs` lists them."),
        ("`num_steps` is no field of it", "`num_steps` is no field of it"),
        ("patience, batch_size, data", "patience, batch_size, data"),
    ],
)
def test_fields_in_backticks_become_flags(text: str, spelled: str) -> None:
    assert flags.spell(text, RUN) == spelled


def test_a_config_of_one_level_is_spelled_too() -> None:
    config = submit.SubmitConfig(Path("a"), "http://localhost")
    assert flags.spell("`namespace` must be", config) == "--namespace must be"


def test_the_value_of_an_error_is_left_as_it_is() -> None:
    error = UserError("`patience` must be a number", "`patience`", "Try `patience=3`.")
    message = "--patience must be a number, got '`patience`'. Try --patience 3."
    assert flags.message(error, RUN) == message


def test_the_cause_of_an_error_is_spelled_within_it() -> None:
    wrapper = RuntimeError("Trainer failed: `factor` must be above 1, got 0. Try `factor=2`.")
    wrapper.__cause__ = UserError("`factor` must be above 1", 0, "Try `factor=2`.")
    message = "Trainer failed: --factor must be above 1, got 0. Try --factor 2."
    assert flags.message(wrapper, RUN) == message


def test_an_error_without_parts_is_spelled_whole() -> None:
    error = RuntimeError("Trainer failed: the disk is full. Set `output` to another folder.")
    message = "Trainer failed: the disk is full. Set --output to another folder."
    assert flags.message(error, RUN) == message


def test_every_given_flag_reaches_its_field() -> None:
    args = ["--patience", "7", "--batch-size", "16", "--width", "9", "--min-accuracy", "0.4"]
    run = flags.parse(RUN, args, "plateau", "")
    assert run.schedule.plateau.patience == 7
    assert run.loop.batch_size == 16
    assert run.features.width == 9  # type: ignore[union-attr]
    assert run.gates.min_accuracy == 0.4


@pytest.mark.parametrize("args", [["--tune", "-1"], ["--min-accuracy", "2"]])
def test_a_value_out_of_range_is_the_error_of_its_config(args: list[str]) -> None:
    with pytest.raises(UserError, match=f"`{args[0][2:].replace('-', '_')}` must be at "):
        flags.parse(RUN, args, "plateau", "")


def test_an_error_of_the_parser_has_neither_frame_nor_title() -> None:
    with pytest.raises(UsageError, match=r"^Unrecognized options: --patiense") as error:
        flags.parse(RUN, ["--patiense", "3"], "plateau", "")
    assert "Perhaps you meant:\n  --patience INT" in str(error.value)
    assert not set("\u2502\u2500") & set(str(error.value))


@dataclass(frozen=True)
class Small:
    """A config of few flags."""

    size: int = 3
    """How large
    it is."""
    name: str | None = None
    """What it is called."""


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_fits_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for args in (["--help"], ["--help-all"]):
        with pytest.raises(SystemExit):
            flags.parse(RUN, args, "plateau run", "About it.")
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= width
        assert "plateau flags\n  --monitor STR" in text
        assert ("--smoothing-window" in text) == (args == ["--help-all"])
        assert ("--help-all explains every flag." in text) == (args == ["--help"])


def test_help_of_few_flags_has_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags.parse(Small(), ["--help"], "plateau small", "About it.")
    assert capsys.readouterr().out == (
        "usage: plateau small [-h] [--size INT] [--name STR]\n\nAbout it.\n\nflags\n"
        "  --size INT              How large it is. (default: 3)\n"
        "  --name STR              What it is called.\n"
    )


def test_the_common_flags_are_flags() -> None:
    names = {name.replace("_", "-") for name in flags.names(RUN)}
    names |= {name.replace("_", "-") for name in flags.names(presets.taxi())}
    others = {"examples", "strategies", "seeds", "image", "file", "target", "root", "pushed"}
    assert help.COMMON - names == {*others, "volume"}


@pytest.mark.parametrize("make", [kubeflow.default, comparison.default, forecast.PlanConfig])
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_no_two_flags_of_a_command_have_one_name(make: Any, preset: str) -> None:
    names = list(flags.names(make(presets.get(preset).build())))
    assert len(names) == len(set(names))
