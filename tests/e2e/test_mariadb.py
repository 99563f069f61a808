"""Runs of several people recorded in one real database."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mariadb_server
import pytest

from pipeline.metadata import database
from runs import ROOT, plateau

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(mariadb_server.missing() is not None, reason=str(mariadb_server.missing())),
]
SMALL = ("--max-epochs", 3, "--min-accuracy", 0, "--min-class-accuracy", 0)
OTHER_MODEL = ("--learning-rate", 0.04, "--max-accuracy-drop", 0.05)


@pytest.fixture(scope="module")
def server():
    made = mariadb_server.Server()
    try:
        made.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(database.PASSWORD, mariadb_server.PASSWORD)
            yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def both(server, tmp_path_factory):
    """The first runs of two folders, begun at once in an empty database."""
    folder = tmp_path_factory.mktemp("team")

    def run(name):
        return plateau("run", "digits", *SMALL, "--metadata", server.url(), output=folder / name)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, ("ana", "ben")))


@pytest.fixture(scope="module")
def broken(both, server):
    """A run of the second folder whose server stops while it trains; status and what was said."""
    output = both[1].output
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pipeline.cli", "run", "digits", "--output", str(output)),
            *map(str, OTHER_MODEL),
        ],
        cwd=output.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "epoch  1" in line:
            break
    server.stop()
    try:
        _, err = process.communicate(timeout=300)
    finally:
        server.start()
    return process.returncode, err


@pytest.fixture(scope="module")
def repeated(broken, both):
    """The same command, of a folder that remembers its database; all is said aloud."""
    return plateau("run", "digits", *OTHER_MODEL, "--verbose", output=both[1].output)


def listed(output):
    done = plateau("runs", "--json", output=output)
    assert done.status == 0, done.err
    return json.loads(done.out)[0]["runs"] if json.loads(done.out) else []


def test_two_runs_at_once_are_both_first_runs(both):
    for done in both:
        assert done.status == 0, done.out + done.err
        assert "first model: nothing to compare with yet" in done.out
        assert len(done.pushed) == 1
        assert not (done.output / "metadata.sqlite").exists()
    ana, ben = (listed(done.output) for done in both)
    assert [len(ana), len(ben)] == [1, 1]
    assert ana[0]["name"] != ben[0]["name"]
    assert [ana[0]["pushed"], ben[0]["pushed"]] == [int(d.pushed[0].name) for d in both]


def test_a_run_and_its_report_are_found_in_the_database(both):
    for done in both:
        shown = plateau("runs", "show", output=done.output)
        assert shown.status == 0, shown.err
        assert "input_fingerprint" in shown.out
        report = plateau("report", output=done.output)
        assert report.status == 0, report.err
        assert Path(report.out.strip()).is_relative_to(done.output)


def test_a_lost_connection_is_one_sentence_and_the_run_can_be_repeated(broken, both, server):
    status, err = broken
    assert status == 1
    sentence, log = err.splitlines()
    assert sentence.startswith(
        "error: Trainer failed: the connection to ML Metadata's database must last for the run, "
        f"got '{server.url()}, which was lost'."
    )
    assert "run the same command again: it resumes" in sentence
    assert log.startswith("log")
    assert listed(both[1].output)[0]["state"] == "interrupted"


def test_the_next_run_finds_what_its_own_folder_made(repeated, both):
    assert repeated.status == 0, repeated.out + repeated.err
    assert repeated.component("Transform") == "cached"
    assert "resuming after epoch" in repeated.out
    assert repeated.accuracy("baseline") == both[1].accuracy()
    states = [run["state"] for run in listed(both[1].output)]
    assert states == ["finished", "interrupted", "finished"]
    assert len(listed(both[0].output)) == 1


def test_a_rollback_goes_back_to_the_folders_own_model(repeated, both):
    done = plateau("rollback", "--yes", output=both[1].output)
    assert done.status == 0, done.err
    assert listed(both[1].output)[-1]["served"]
    assert len(both[0].pushed) == 1


def test_the_password_is_nowhere(server, both, repeated, broken):
    # What surrounds this part of it would be escaped in one form or another.
    secret = mariadb_server.PASSWORD.split()[0]
    for done in (*both, repeated):
        assert secret not in done.out + done.err
        files = [path for path in done.output.rglob("*") if path.is_file()]
        assert any(path.suffix == ".log" for path in files)
        found = [path for path in files if secret.encode() in path.read_bytes()]
        assert found == []
    assert secret not in broken[1]
    dump = server.dump()
    assert "components.TrainingHistory" in dump
    assert secret not in dump
