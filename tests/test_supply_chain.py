"""The locks, the licences of what is locked, and the audit of it."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "supply-chain.md"
RUN, DEV, GPU = "requirements.lock", "requirements-dev.lock", "deploy/requirements-gpu.lock"
AUDIT_LOCK = "requirements-audit.lock"
LOCKS = (RUN, DEV, GPU, AUDIT_LOCK, "requirements-kfp.lock", "requirements-kubernetes.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HASH = f"--hash=sha256:{'0' * 64}"
PIN = re.compile(rf"([a-z0-9][a-z0-9.-]*)(\[[^\]]*\])?==(\S+)( +{HASH[:14]}[0-9a-f]{{64}})+")

_spec = importlib.util.spec_from_file_location("audit", ROOT / "deploy" / "audit.py")
assert _spec and _spec.loader
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)


def pins(name: str) -> dict[str, str]:
    """The version of each package of a lock, every line of which is a version with hashes."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if "#" not in line]
    entries = re.sub(r" *\\\n", "", "\n".join(lines)).splitlines()
    matches = [(entry, PIN.fullmatch(entry)) for entry in entries if entry]
    assert [entry for entry, match in matches if not match] == []
    return {match[1]: match[3] for _, match in matches if match}


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of docs/supply-chain.md."""
    section = PAGE.read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 2, heading
    return [[cell.strip() for cell in row] for row in rows[2:]]


def unsatisfied(requirements: list[str], lock: str) -> list[str]:
    """The requirements that a lock does not hold."""
    versions = pins(lock)
    return [
        str(each)
        for each in map(Requirement, requirements)
        if not each.specifier.contains(versions.get(canonicalize_name(each.name), "0"))
    ]


def test_the_locks_hold_what_the_project_requires():
    assert unsatisfied(PROJECT["dependencies"], RUN) == []
    assert unsatisfied(PROJECT["optional-dependencies"]["dev"], DEV) == []
    assert unsatisfied(["tfx>1.16", "no-such-package>1", "NumPy<2"], RUN) == [
        "tfx>1.16",
        "no-such-package>1",
    ]


@pytest.mark.parametrize("name", [DEV, GPU])
def test_tests_and_gpus_use_the_versions_that_runs_use(name):
    run, other = pins(RUN), pins(name)
    assert {n: other[n] for n in run.keys() & other.keys()} == {
        n: run[n] for n in run.keys() & other.keys()
    }
    if name == DEV:
        assert run.keys() <= other.keys()


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_a_version_with_hashes_and_nothing_else(name):
    """No URL, no option and no index."""
    assert pins(name)
    assert "://" not in (ROOT / name).read_text()


def licences() -> list[list[str]]:
    lines = (ROOT / "docs" / "licences.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [[canonicalize_name(name), version, licence] for name, version, licence in rows[2:]]


def test_the_page_of_licences_lists_what_is_locked():
    assert {name: version for name, version, _ in licences()} == pins(RUN), "run make licences"


def test_copyleft_and_unknown_licences_are_explained():
    explained = PAGE.read_text().split("## Licences")[1]
    special = re.compile("GPL|MPL|Mozilla|EPL|EUPL|CDDL|UNKNOWN")
    names = [name for name, _, licence in licences() if special.search(licence)]
    assert {"certifi", "namex"} <= set(names)
    assert [name for name in names if f"`{name}`" not in explained] == []


VULNERABILITY = {"id": "PYSEC-2024-1", "fix_versions": ["1.1"], "aliases": ["CVE-2024-0001"]}
FOUND = {"name": "six", "version": "1.0", "vulns": [VULNERABILITY]}
CLEAN = {"name": "six", "version": "1.0", "vulns": []}
# As pip-audit prints it about a package that the index's JSON API does not know.
UNKNOWN = {"name": "six", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.mark.parametrize(
    ("packages", "accepted", "expected"),
    [
        ([CLEAN], {}, []),
        ([FOUND, FOUND], {"CVE-2024-0001": "six"}, []),
        ([FOUND], {"PYSEC-2024-1": "six"}, []),
        ([FOUND, FOUND], {}, ["six 1.0: CVE-2024-0001, PYSEC-2024-1 (fixed in 1.1) is not acc"]),
        ([FOUND], {"CVE-2024-0001": "an"}, ["six 1.0: ", "CVE-2024-0001 of an is accepted, but"]),
        ([CLEAN], {"CVE-2024-0001": "six"}, ["CVE-2024-0001 of six is accepted, but is no longer"]),
        ([UNKNOWN], {"CVE-2024-0001": "six"}, ["the service has no answer about 1 packages"]),
    ],
)
def test_the_audit_fails_on_findings_that_are_new_gone_or_unknown(packages, accepted, expected):
    lines = audit.problems({"dependencies": packages, "fixes": []}, accepted)
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))


def page_of(*rows: str) -> str:
    return "\n".join([audit.HEADING, "| finding | package | why |", "| --- | --- | --- |", *rows])


def test_findings_may_share_a_reason():
    names = {"CVE-2024-0001": "six", "CVE-2024-0002": "six"}
    assert audit.accepted(page_of("| CVE-2024-0001, CVE-2024-0002 | six | no |")) == names


@pytest.mark.parametrize("row", ["| 12345 | six | old |", "| CVE-2024-0001 | six | |", "| a |"])
def test_rows_that_explain_nothing_are_refused(row):
    with pytest.raises(ValueError, match=r"identifier|values to unpack"):
        audit.accepted(page_of(row))


def test_accepted_findings_are_of_locked_packages():
    assert set(audit.accepted(PAGE.read_text()).values()) <= {*pins(RUN), *pins(GPU)}


def test_what_is_behind_is_listed_with_the_version_that_is_locked():
    """The tables were measured on one day; a lock that has moved since makes them history."""
    versions = pins(RUN)
    held, behind = table("## Held by a bound"), table("## Behind within the bounds")
    for package, locked, newest, *_ in held + behind:
        assert versions[package] == locked, f"{package}: measure again"
        assert newest != locked
    ways = {row[0] for row in table("## What contains them")}
    assert {row[-1] for row in held + behind} <= ways


@pytest.fixture
def database() -> Iterator[str]:
    """An OSV service on this machine, which knows one vulnerability, of one package."""
    vulnerability = {
        "id": "GHSA-aaaa-bbbb-cccc",
        "aliases": ["CVE-2024-0001"],
        "affected": [
            {
                "package": {"name": "six", "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}],
            }
        ],
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = query["package"]["name"] == "six"
            content = json.dumps({"vulns": [vulnerability]} if known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run_audit(folder: Path, service: str, *rows: str) -> subprocess.CompletedProcess[str]:
    """The recipe of `make audit` on a lock and a page of two packages."""
    (program,) = re.findall(r"^AUDIT := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    command = shlex.split(program)
    if not (ROOT / command[0]).exists():
        pytest.skip("needs pip-audit: make .venv-audit/.installed")
    lock, page = folder / "some.lock", folder / "page.md"
    lock.write_text(f"six==1.17.0 {HASH}\nabsl-py==1.4.0 {HASH}\n")
    page.write_text(page_of(*rows))
    command += ["--requirement", str(lock), "--vulnerability-service", "osv", "--osv-url", service]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    judge = [sys.executable, "deploy/audit.py", str(page)]
    return subprocess.run(judge, input=found.stdout, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.component
def test_pip_audit_reports_what_the_audit_reads(database, tmp_path):
    done = run_audit(tmp_path, database)
    assert done.returncode == 1
    assert "six 1.17.0: CVE-2024-0001, GHSA-aaaa-bbbb-cccc" in done.stdout
    done = run_audit(tmp_path, database, "| CVE-2024-0001 | six | It is not called. |")
    assert (done.returncode, done.stdout) == (0, "No finding that is not accepted.\n")


@pytest.mark.component
def test_a_service_that_cannot_be_reached_is_an_error(tmp_path):
    done = run_audit(tmp_path, "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "the vulnerability service must answer" in done.stderr


def test_the_version_of_pip_audit_is_the_one_that_make_lock_names():
    (version,) = re.findall(r'"pip-audit==([\d.]+)"', (ROOT / "Makefile").read_text())
    assert pins(AUDIT_LOCK)["pip-audit"] == version


@pytest.mark.parametrize(("answer", "version"), [("ldd (Debian GLIBC) 2.36", "2.36"), ("", "none")])
def test_the_next_tfx_is_not_tried_where_its_wheels_cannot_be_loaded(answer, version, tmp_path):
    ldd = tmp_path / "ldd"
    ldd.write_text(f"#!/bin/sh\necho '{answer}'\n")
    ldd.chmod(0o755)
    done = subprocess.run(
        ["make", "--silent", "--old-file=.venv/.uv", "test-next"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    assert line.endswith(f"need glibc 2.39 or newer, and this machine has {version}.")
