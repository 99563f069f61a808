"""The locks, the licences of what is locked, and the audit of it."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement

from benchmarks import audit, licences, locks
from benchmarks.audit import Accepted, Audit, Finding, Settings
from benchmarks.locks import Pin

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "supply-chain.md"
RUN, DEV, GPU = "requirements.lock", "requirements-dev.lock", "deploy/requirements-gpu.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HASH = f"--hash=sha256:{'0' * 64}"
# As pip-audit prints it about a package that the index's JSON API does not know.
NO_ANSWER = (
    '{"dependencies": [{"name": "urllib3", "skip_reason": "Dependency not found on PyPI and could '
    'not be audited: urllib3 (1.26.20)"}], "fixes": []}'
)


def satisfied(requirements: list[str], lock: str) -> list[str]:
    """The requirements that a lock does not hold."""
    pins = locks.read(lock)
    wanted = [Requirement(line) for line in requirements]
    return [
        str(each)
        for each in wanted
        if (name := locks.canonical(each.name)) not in pins
        or not each.specifier.contains(pins[name].version)
    ]


def test_the_locks_hold_what_the_project_asks_for():
    assert satisfied(PROJECT["dependencies"], RUN) == []
    assert satisfied(PROJECT["optional-dependencies"]["dev"], DEV) == []


def test_a_lock_that_does_not_is_noticed():
    assert satisfied(["tfx>1.16", "no-such-package", "NumPy<2"], RUN) == [
        "tfx>1.16",
        "no-such-package",
    ]


@pytest.mark.parametrize("name", [DEV, GPU])
def test_tests_and_gpus_use_the_versions_that_runs_use(name):
    runs, more = locks.read(RUN), locks.read(name)
    shared = runs.keys() & more.keys()
    assert {n: more[n].version for n in shared} == {n: runs[n].version for n in shared}
    if name == DEV:
        assert runs.keys() <= more.keys()


@pytest.mark.parametrize("name", locks.LOCKS)
def test_every_line_is_a_version_with_hashes_and_nothing_else(name):
    """No URL, no option and no index; `locks.parse` refuses a line that is anything else."""
    assert locks.read(name)
    assert "://" not in locks.LOCKS[name].read_text()


@pytest.mark.parametrize(
    "line",
    [
        f"six @ https://example.org/six.whl {HASH}",
        f"six>=1 {HASH}",
        "--extra-index-url https://example.org/simple",
        f"six==1.17.0 {HASH.replace('sha256', 'md5')}",
        "six==1.17.0",
    ],
)
def test_what_is_no_pin_is_refused(line):
    with pytest.raises(ValueError, match=r"must be.*Run make lock"):
        locks.parse(f"absl-py==1.0 {HASH}\n{line}\n")


def test_pins_are_read():
    text = f"# a comment\nA_b.c[x,y]==1.0.post1 \\\n    {HASH} \\\n    {HASH}\n    # via d\n"
    assert locks.parse(text) == {"a-b-c": Pin("a-b-c", "1.0.post1", frozenset({"0" * 64}))}


def test_the_page_of_licences_is_of_what_is_locked_and_installed():
    found = licences.read(locks.read(RUN))
    assert [each.name for each in found] == sorted(locks.read(RUN))
    assert [each.name for each in found if each.licence == licences.UNKNOWN] == []
    assert licences.PAGE.read_text() == licences.page(found), "run make licences"


def test_every_copyleft_package_is_explained():
    explained = PAGE.read_text().split("## Licences")[1]
    found = [each.name for each in licences.read(locks.read(RUN)) if each.copyleft]
    assert found
    assert [name for name in found if f"`{name}`" not in explained] == []


def test_what_is_not_installed_as_it_is_locked_has_no_licence_to_show():
    with pytest.raises(ValueError, match=r"must be installed as 0\.1, got"):
        licences.read({"six": Pin("six", "0.1", frozenset("h"))})
    with pytest.raises(ValueError, match=r"no-such-package 0\.1 must be installed"):
        licences.read({"no-such-package": Pin("no-such-package", "0.1", frozenset("h"))})


@pytest.mark.parametrize(
    ("expression", "field", "classifiers", "expected"),
    [
        ("MIT", "BSD", ["License :: OSI Approved :: ISC License (ISCL)"], "MIT"),
        ("", "MPL-2.0 AND MIT", ["License :: OSI Approved :: MIT License"], "MPL-2.0 AND MIT"),
        ("", "BSD 3-Clause", ["License :: OSI Approved :: BSD License"], "BSD-3-Clause"),
        ("", "Copyright 2010\nAll rights", ["License :: OSI Approved :: BSD License"], "BSD"),
        (
            "",
            "Dual License",
            [
                "License :: OSI Approved :: BSD License",
                "License :: OSI Approved :: Apache Software License",
                "Topic :: MIT License",
            ],
            "BSD OR Apache-2.0",
        ),
        ("", "UNKNOWN", ["License :: OSI Approved :: Something New"], licences.UNKNOWN),
        ("", "", [], licences.UNKNOWN),
    ],
)
def test_a_licence_is_read_from_metadata(expression, field, classifiers, expected):
    assert licences.licence("some", expression, field, classifiers) == expected


@pytest.mark.parametrize(
    ("licence", "copyleft"),
    [("MIT", False), ("MPL-2.0 AND MIT", True), ("Apache-2.0 OR (LGPL-2.1 AND MIT)", True)],
)
def test_copyleft_is_seen(licence, copyleft):
    assert licences.Licensed("some", "1", licence).copyleft is copyleft


def output(*vulnerabilities: dict[str, Any]) -> str:
    entry = {"name": "Some_Package", "version": "1.0", "vulns": list(vulnerabilities)}
    return json.dumps({"dependencies": [entry], "fixes": []})


FOUND = {"id": "PYSEC-2024-1", "fix_versions": ["1.1"], "aliases": ["CVE-2024-0001"]}
FINDING = Finding(
    "some-package", "1.0", frozenset({"PYSEC-2024-1", "CVE-2024-0001"}), fixed_in=("1.1",)
)
ACCEPTED = Accepted("CVE-2024-0001", "some-package", "It is not called.")


def test_findings_are_read_once_however_many_locks_hold_the_package():
    assert audit.parse(output(FOUND, FOUND)) == Audit(1, (FINDING,))
    assert audit.parse(output()) == Audit(1, ())


@pytest.mark.parametrize("content", ["", "{}", '{"dependencies": [{"name": "a"}]}', "[]"])
def test_what_pip_audit_never_prints_is_refused(content):
    with pytest.raises(ValueError, match="pip-audit must list dependencies"):
        audit.parse(content)


def test_an_accepted_finding_passes_under_any_of_its_names():
    found = Audit(1, (FINDING,))
    assert audit.problems(found, [ACCEPTED]) == []
    by_other_name = Accepted("PYSEC-2024-1", "some-package", "It is not called.")
    assert audit.problems(found, [by_other_name]) == []


def test_a_finding_that_is_not_accepted_fails():
    (line,) = audit.problems(Audit(1, (FINDING,)), [])
    assert line.startswith("some-package 1.0: CVE-2024-0001, PYSEC-2024-1 (fixed in 1.1)")
    elsewhere = Accepted("CVE-2024-0001", "another", "Of another package.")
    assert len(audit.problems(Audit(1, (FINDING,)), [elsewhere])) == 2


def test_an_accepted_finding_that_is_gone_fails():
    (line,) = audit.problems(Audit(1, ()), [ACCEPTED])
    assert "is no longer found. Remove its row" in line


def test_no_answer_is_no_clean_bill():
    """pip-audit itself says "No known vulnerabilities found" here, and exits with 0."""
    found = audit.parse(NO_ANSWER)
    assert found == Audit(0, (), ("urllib3",))
    of_unknown = Accepted("CVE-2026-21441", "urllib3", "Redirects are off.")
    (line,) = audit.problems(found, [of_unknown])
    assert "no answer about 1 of 1: urllib3" in line


def test_accepted_findings_are_of_locked_packages():
    pins = {name for lock in audit.AUDITED for name in locks.read(lock)}
    found = audit.accepted(PAGE.read_text())
    assert [each.name for each in found if each.package not in pins] == []
    assert len({(each.name, each.package) for each in found}) == len(found)


def test_findings_may_share_a_reason():
    page = (
        f"{audit.HEADING}\n\n| finding | package | why |\n| --- | --- | --- |\n"
        "| CVE-2024-0001, CVE-2024-0002 | Six | no |\n"
    )
    names = ("CVE-2024-0001", "CVE-2024-0002")
    assert audit.accepted(page) == tuple(Accepted(name, "six", "no") for name in names)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("| 12345 | six | old |", "must be named CVE-"),
        ("| CVE-2024-0001 | six | |", "accepted for a reason"),
        ("| CVE-2024-0001 | six |", "must have an identifier, a package and a reason"),
    ],
)
def test_rows_that_explain_nothing_are_refused(row, message):
    page = f"{audit.HEADING}\n\n| finding | package | why |\n| --- | --- | --- |\n{row}\n"
    with pytest.raises(ValueError, match=message):
        audit.accepted(page)


def test_a_page_without_the_table_is_refused():
    with pytest.raises(ValueError, match="must have a table under '## Accepted findings'"):
        audit.accepted("# Supply chain\n\n## Another\n\n| a |\n| --- |\n| b |\n")


def test_what_is_behind_is_told_of_the_versions_that_are_locked():
    """The tables were measured on one day; a lock that has moved since makes them history."""
    page, pins = PAGE.read_text(), locks.read(RUN)
    held, behind = (
        audit.table(page, h) for h in ("## Held by a bound", "## Behind within the bounds")
    )
    assert held
    assert behind
    for package, locked, newest, *_ in held + behind:
        assert pins[package].version == locked, f"{package}: measure again"
        assert newest != locked
    ways = {row[0] for row in audit.table(page, "## What contains them")}
    assert {row[4] for row in held} | {row[3] for row in behind} <= ways


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
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = asked["package"]["name"] == "six"
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


def table_of(*rows: str) -> str:
    head = "| finding | package | why |\n| --- | --- | --- |"
    return "\n".join(["# Supply chain", "", audit.HEADING, "", head, *rows, ""])


@pytest.mark.component
@pytest.mark.parametrize(
    ("rows", "status", "said"),
    [
        ([], 1, "six 1.17.0: CVE-2024-0001, GHSA-aaaa-bbbb-cccc"),
        (["| CVE-2024-0001 | six | It is not called. |"], 0, "2 packages, 1 known"),
        (
            [
                "| GHSA-aaaa-bbbb-cccc | six | It is not called. |",
                "| CVE-2024-0002 | absl-py | Neither is this. |",
            ],
            1,
            "CVE-2024-0002 of absl-py is accepted, but is no longer found",
        ),
    ],
    ids=["not accepted", "accepted", "gone"],
)
def test_pip_audit_is_asked(rows, status, said, database, tmp_path, capsys):
    if not audit.PROGRAM.exists():
        pytest.skip("needs pip-audit: make .venv-audit/.installed")
    lock, page = tmp_path / "some.lock", tmp_path / "page.md"
    lock.write_text(f"six==1.17.0 {HASH}\nabsl-py==1.4.0 {HASH}\n")
    page.write_text(table_of(*rows))
    words = ["--service", "osv", "--osv-url", database, "--locks", str(lock), "--page", str(page)]
    assert audit.main(words) == status
    assert said in "".join(capsys.readouterr())


@pytest.mark.component
def test_a_service_that_is_not_there_is_an_error(tmp_path, capsys):
    if not audit.PROGRAM.exists():
        pytest.skip("needs pip-audit: make .venv-audit/.installed")
    lock, page = tmp_path / "some.lock", tmp_path / "page.md"
    lock.write_text(f"six==1.17.0 {HASH}\n")
    page.write_text(table_of())
    nobody = ["--service", "osv", "--osv-url", "http://127.0.0.1:1"]
    assert audit.main([*nobody, "--locks", str(lock), "--page", str(page)]) == 1
    assert "the vulnerability service must answer" in capsys.readouterr().err


def test_an_address_goes_with_its_service():
    with pytest.raises(ValueError, match="--osv-url must go with --service osv"):
        Settings(osv_url="http://127.0.0.1")


def test_the_version_of_pip_audit_is_the_one_that_make_lock_asks_for():
    wanted = re.search(r'"pip-audit==([\d.]+)"', (ROOT / "Makefile").read_text())
    assert wanted
    assert locks.read("requirements-audit.lock")["pip-audit"].version == wanted[1]


@pytest.mark.parametrize(("answer", "found"), [("ldd (Debian GLIBC) 2.36", "2.36"), ("", "none")])
def test_the_next_tfx_is_not_tried_where_its_wheels_cannot_be_loaded(answer, found, tmp_path):
    ldd = tmp_path / "ldd"
    ldd.write_text(f"#!/bin/sh\necho '{answer}'\n")
    ldd.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", "--silent", "test-next"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    assert line.endswith(f"need glibc 2.39 or newer, and this machine has {found}.")
