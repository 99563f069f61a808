"""What the light commands import: nobody should wait for TensorFlow to read a help text."""

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
SPEC = """\
components: {}
deploymentSpec: {}
pipelineInfo: {name: a}
root: {dag: {tasks: {}}}
schemaVersion: 2.1.0
"""
USAGE = 2


def imported(*args: str) -> tuple[int, set[str]]:
    """Exit status of `plateau ARGS`, and the heavy modules that it left loaded."""
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "status = main.main(sys.argv[1:])\n"
        f"print('loaded', *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT, check=False
    )
    told = [line.split() for line in done.stderr.splitlines() if line.startswith("loaded")]
    assert told, done.stderr
    return done.returncode, set(told[-1][1:])


@pytest.mark.parametrize(
    "args",
    [
        "--help",
        "--version",
        "presets",
        "plan digits",
        "plan images --examples 1000",
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
    ],
)
def test_a_command_that_answers_at_once_loads_nothing_heavy(args: str) -> None:
    assert imported(*args.split()) == (0, set())


@pytest.mark.parametrize(
    "args",
    [
        "",
        "nonsense",
        "presets digits",
        "run nonsense",
        "run images",
        "run digits --nonsense 1",
        "run digits --patience x",
        "run digits --patience 0",
        "run digits --patience --help",
        "run digits --beam nonsense",
        "run digits --model no.such.module",
        "plan digits --max-batch-size 1",
        "compare digits --seeds 0",
        "compile digits",
        "submit nonsense.yaml",
        "runs nonsense",
    ],
)
def test_a_bad_command_line_is_refused_before_anything_heavy_is_loaded(args: str) -> None:
    assert imported(*args.split()) == (USAGE, set())


def test_public_names_are_listed_before_they_are_imported():
    import trainer_module

    assert set(trainer_module.__all__) == {n for n in dir(trainer_module) if not n.startswith("_")}
    assert all(hasattr(trainer_module, name) for name in trainer_module.__all__)
