"""Every command and program in README.md and docs/ is known to a test."""

import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import predict, presets
from pipeline.cli import flags, main
from pipeline.compare import run
from pipeline.data import dataset
from pipeline.runners import kubeflow, submit

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.M | re.S)
    return [block for page in PAGES for block in pattern.findall(page.read_text())]


def programs() -> list[str]:
    """What is no whole program is run by tests/e2e/test_tfx_examples.py."""
    return [block for block in blocks("python") if block.startswith("import keras")]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_understood(words, tmp_path, monkeypatch):
    """`make run` and `make test` are what CI and tests/e2e run; here, the words are checked."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
        return
    if words[0] == "uv":
        # tests/e2e/test_installation.py runs them.
        return
    assert words[0] == "plateau"
    if words[1] in ("plan", "presets"):
        done = subprocess.run([sys.executable, "-m", "pipeline.cli", *words[1:]], cwd=ROOT)
        assert done.returncode == 0
        return
    if words[1] in ("report", "runs", "rollback", "bless"):
        # They are there, and so are their flags, though nothing has been run here yet.
        program = [sys.executable, "-m", "pipeline.cli", *words[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode in (0, 1), done.stderr
        return
    if words[1] == "predict":
        # tests/e2e/test_digits.py predicts.
        assert flags.parse(predict.default(), words[2:], "plateau", "").top == 3
        return
    if words[1] == "submit":
        # tests/pipeline/runners/test_submit.py submits.
        config = flags.parse(submit.default(), words[2:], "plateau", "")
        assert config.file == Path("digits.yaml")
        return
    if words[1] == "compile":
        # tests/pipeline/runners/test_kubeflow.py compiles.
        default = kubeflow.default(presets.get(words[2]).build())
        config = flags.parse(default, words[3:], "plateau", "")
        assert len(dataset.class_names(config.run)) >= 2
        return
    if words[1] == "schema" or "my.csv" in words:
        # tests/e2e/test_own_data.py runs such a table.
        (tmp_path / "my.csv").write_text("bill,species\n" + "1.5,a\n2.5,b\n1.5,b\n" * 10)
        monkeypatch.chdir(tmp_path)
        command = "schema" if words[1] == "schema" else "plan"
        assert main.main([command, *words[2:]]) == 0
        return
    assert words[1] in ("run", "compare")
    named = len(words) > 2 and not words[2].startswith("-")
    preset = presets.get(words[2] if named else presets.DEFAULT)
    rest = words[3 if named else 2 :]
    default = run.default(preset.build()) if words[1] == "compare" else preset.build()
    if "--help" in rest:
        with pytest.raises(SystemExit, match="0"):
            flags.parse(default, rest, "plateau", "")
        return
    config = flags.parse(default, rest, "plateau", "")
    assert not dataset.needs_data(config.run if words[1] == "compare" else config)


@pytest.mark.component
def test_programs_run():
    assert len(programs()) == 2
    for program in programs():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Exception ignored" not in done.stderr
        *decisions, accuracy = done.stdout.splitlines()
        assert any("batch 16 -> " in line for line in decisions)
        assert float(accuracy) > 0.9


@pytest.mark.component
def test_training_is_shown_in_a_terminal():
    """The same program prints nothing of its own where its output is piped, as above."""
    main, terminal = pty.openpty()
    command = [
        sys.executable,
        "-c",
        programs()[0],
    ]
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.DEVNULL):
        os.close(terminal)
        shown = b""
        # Linux reports the end of the last writer as an error.
        with contextlib.suppress(OSError):
            while part := os.read(main, 65536):
                shown += part
    os.close(main)
    epochs = re.findall(rb"epoch +(\d+)  (?:loss|accuracy) ", shown)
    assert list(map(int, epochs)) == list(range(1, len(epochs) + 1))
    assert len(epochs) > 5
    assert b"steps" in shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_preset_is_on_the_page_of_running():
    text = (ROOT / "docs" / "running.md").read_text()
    assert all(name in text or name == presets.DEFAULT for name in presets.PRESETS)
