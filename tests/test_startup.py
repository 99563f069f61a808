"""What the light commands import: nobody should wait for TensorFlow to read a help text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "IPython",
    "PIL",
    "apache_beam",
    "google.protobuf",
    "grpc",
    "kfp",
    "kfp_server_api",
    "keras",
    "matplotlib",
    "ml_metadata",
    "numpy",
    "pandas",
    "plotly",
    "requests",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "tensorflow_transform",
    "tf_keras",
    "tfx",
)
USAGE = 2
# Each command line runs in a fork of a process that has loaded what nearly all of them need, and
# what that is counts for each.
PROGRAM = f"""
import contextlib, json, os, sys
from pipeline.cli import main
with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
    main.main(["plan", "digits"])
for line in sys.stdin:
    read, write = os.pipe()
    if os.fork() == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        status = main.main(line.split())
        loaded = [name for name in {HEAVY} if name in sys.modules]
        os.write(write, json.dumps([status, loaded]).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    with os.fdopen(read) as pipe:
        print(json.dumps([line.strip(), *json.loads(pipe.read())]), flush=True)
"""
ANSWERED = (
    "--help",
    "--version",
    "presets",
    "plan digits",
    "plan images --examples 1000",
    "plan cifar10-vgg16 --examples 50000",
    "run --help",
    "run digits --help",
    "compare --help",
    "plan --help",
    "compile --help",
    "submit --help",
    "runs --help",
    "runs show --help",
    "rollback --help",
    "report --help",
)
REFUSED = (
    "",
    "nonsense",
    "presets digits",
    "run nonsense",
    "run images",
    "run digits --nonsense 1",
    "run digits --patience x",
    "run digits --strategy x",
    "run digits --patience 0",
    "run digits --patience --help",
    "run digits --beam nonsense",
    "run digits --model no.such.module",
    "plan digits --max-batch-size 1",
    "compare digits --seeds 0",
    "compile digits",
    "submit nonsense.yaml",
    "runs nonsense",
)
LOOKING = {"plan taxi": 0, "run --data nowhere --output out": 1}
"""Command lines that look at schema or data, with their status."""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, tuple[int, list[str]]]:
    """Exit status of each command line, and the heavy modules that it left loaded."""
    lines = "".join(f"{line}\n" for line in (*ANSWERED, *REFUSED, *LOOKING))
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        program,
        input=lines,
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("started"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    return {line: (status, loaded) for line, status, loaded in rows}


@pytest.mark.parametrize("line", ANSWERED)
def test_a_command_that_answers_at_once_loads_nothing_heavy(line, results) -> None:
    assert results[line] == (0, [])


@pytest.mark.parametrize("line", REFUSED)
def test_a_bad_command_line_is_refused_before_anything_heavy_is_loaded(line, results) -> None:
    assert results[line] == (USAGE, [])


@pytest.mark.parametrize("line", LOOKING)
def test_the_data_is_checked_before_more_than_its_schema_is_loaded(line, results) -> None:
    status, loaded = results[line]
    assert status == LOOKING[line]
    assert set(loaded) <= {"google.protobuf"}


def test_public_names_are_listed_before_they_are_imported():
    import trainer_module

    assert set(trainer_module.__all__) == {n for n in dir(trainer_module) if not n.startswith("_")}
    assert all(hasattr(trainer_module, name) for name in trainer_module.__all__)
