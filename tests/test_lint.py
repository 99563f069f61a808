"""The linter's rules against code that runs outside data."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNSAFE = """\
import pickle
from joblib import load
import os, subprocess, tarfile, tempfile
import dill as d
import jinja2, keras, pandas, yaml
eval(text)
exec(text)
yaml.load(text, Loader=yaml.Loader)
yaml.load_all(text)
keras.models.load_model(path)
pandas.read_pickle(path)
subprocess.run(command, shell=True)
os.system(command)
tarfile.open(path).extractall(folder)
tempfile.mktemp()
jinja2.Environment(autoescape=False)
"""
SAFE = (3, 5)
"""Lines, from 1, that only import."""


def test_code_that_runs_outside_data_is_refused() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "S,TID251", "--output-format"]
    done = subprocess.run(
        [*command, "concise", "--stdin-filename", "pipeline/unsafe.py", "-"],
        input=UNSAFE,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    refused = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ":" in line}
    assert {*range(1, len(UNSAFE.splitlines()) + 1)} - refused == {*SAFE}
