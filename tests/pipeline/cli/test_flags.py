from pathlib import Path

import pytest

from pipeline import presets
from pipeline.cli import flags
from pipeline.runners import submit

RUN = presets.digits()


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ("patience must be at least 1", "--patience must be at least 1"),
        ("batch_size must be at least 1", "--batch-size must be at least 1"),
        ("batch_size is above max_batch_size (8)", "--batch-size is above --max-batch-size (8)"),
        ("Trainer failed: batch_size is big", "Trainer failed: --batch-size is big"),
        ("Lower --batch-size.", "Lower --batch-size."),
        ('Try patience=5, mode="min".', 'Try --patience 5, --mode "min".'),
        ("data", "--data"),
        ("the data folder and its schema", "the data folder and its schema"),
        ("column 'batch_size' of /x/batch_size/y", "column 'batch_size' of /x/batch_size/y"),
        ("the mode of max_batch_sizes", "the mode of max_batch_sizes"),
    ],
)
def test_fields_are_spelled_as_flags(message: str, spelled: str) -> None:
    assert flags.spell(message, RUN) == spelled
    assert flags.spell(spelled, RUN) == spelled


def test_every_given_flag_reaches_its_field() -> None:
    args = ["--patience", "7", "--batch-size", "16", "--width", "9", "--min-accuracy", "0.4"]
    run = flags.parse(RUN, args, "plateau", "")
    assert run.schedule.plateau.patience == 7
    assert run.loop.batch_size == 16
    assert run.features.width == 9  # type: ignore[union-attr]
    assert run.gates.min_accuracy == 0.4


def test_a_config_of_plain_names_is_spelled_too() -> None:
    config = submit.SubmitConfig(Path("a"), "http://localhost")
    assert flags.spell("namespace must be, got 'a'.", config) == "--namespace must be, got 'a'."
