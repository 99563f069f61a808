"""`make audit`: known vulnerabilities of what is locked, held against those that were accepted.

pip-audit does the looking up. Its own exit code is not enough: a service that answers "not found"
for every package gives "No known vulnerabilities found" and success.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.locks import LOCKS, ROOT, canonical
from trainer_module.util.checks import check_fields, require

PAGE = ROOT / "docs" / "supply-chain.md"
HEADING = "## Accepted findings"
PROGRAM = ROOT / ".venv-audit" / "bin" / "pip-audit"
AUDITED = ("requirements.lock", "deploy/requirements-gpu.lock")

_IDENTIFIER = re.compile(r"(?:CVE-\d{4}-\d{4,}|PYSEC-\d{4}-\d+|GHSA(?:-[0-9a-z]{4}){3})")


@dataclass(frozen=True)
class Settings:
    """Look up known vulnerabilities of what is locked.

    Attributes:
        service: Who is asked: pypi, the package index, or osv, the Open Source Vulnerabilities
            database.
        osv_url: Address of the osv service; pip-audit's own default if not given.
        locks: Lock files to look up.
        page: Page with the table of accepted findings.
    """

    service: Literal["pypi", "osv"] = "pypi"
    osv_url: str | None = None
    locks: tuple[Path, ...] = tuple(LOCKS[name] for name in AUDITED)
    page: Path = PAGE

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            ValueError: A value does not fit.
        """
        check_fields(self)
        require(
            self.osv_url is None or self.service == "osv",
            "--osv-url must go with --service osv",
            self.service,
            "Add --service osv.",
        )
        require(bool(self.locks), "--locks must name a lock file", self.locks, "Leave it out.")


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a locked package.

    Attributes:
        package: Name of the package.
        version: Version that is locked.
        names: Every identifier that the vulnerability goes by.
        fixed_in: Versions that are free of it.
    """

    package: str
    version: str
    names: frozenset[str]
    fixed_in: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for people."""
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fixed version"
        return f"{self.package} {self.version}: {', '.join(sorted(self.names))} ({fixed})"


@dataclass(frozen=True)
class Accepted:
    """A finding that was looked at and is lived with.

    Attributes:
        name: One of the vulnerability's identifiers.
        package: The package it is of.
        reason: Why it does not matter here, or what contains it.
    """

    name: str
    package: str
    reason: str

    def __post_init__(self) -> None:
        """Check that somebody can look it up, and why it was accepted.

        Raises:
            ValueError: The identifier is none, or the reason is missing.
        """
        require(
            _IDENTIFIER.fullmatch(self.name) is not None,
            "an accepted finding must be named CVE-..., GHSA-... or PYSEC-...",
            self.name,
            "Copy the identifier from what make audit prints.",
        )
        require(
            bool(self.reason),
            f"{self.name} must be accepted for a reason",
            self.reason,
            "Say in the third column why it does not matter here, or what contains it.",
        )

    def covers(self, finding: Finding) -> bool:
        """Whether it is the finding that was accepted, whatever alias it goes by."""
        return self.package == finding.package and self.name in finding.names


@dataclass(frozen=True)
class Audit:
    """What came of looking up.

    Attributes:
        packages: Number of packages that the service knows.
        findings: Their known vulnerabilities.
        unknown: Packages that nothing is known about, because the service has no answer.
    """

    packages: int
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...] = ()


def accepted(page: str) -> tuple[Accepted, ...]:
    """The findings that were accepted, as the table of a page lists them.

    Args:
        page: Markdown with a table of three columns under `## Accepted findings`; a row may name
            several findings, with commas between them.

    Raises:
        ValueError: There is no such table, or a row is not one.
    """
    rows = table(page, HEADING)
    for row in rows:
        require(
            len(row) == 3,
            "an accepted finding must have an identifier, a package and a reason",
            " | ".join(row),
            "Write it as the other rows of the table are.",
        )
    return tuple(
        Accepted(name, canonical(package), reason)
        for names, package, reason in rows
        for name in names.split(", ")
    )


def table(page: str, heading: str) -> list[tuple[str, ...]]:
    """The rows of the first table below a heading, without its head and without code marks.

    Args:
        page: Markdown.
        heading: The line above.

    Raises:
        ValueError: The heading is missing, or has no table.
    """
    _, found, rest = f"\n{page}".partition(f"\n{heading}\n")
    section = rest.split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    require(
        bool(found) and len(lines) >= 2,
        f"the page must have a table under {heading!r}",
        section.strip()[:80],
        "Add the heading and the table's two first lines, even if no row follows.",
    )
    cells = [line.strip().strip("|").split("|") for line in lines[2:]]
    return [tuple(cell.strip().strip("`") for cell in row) for row in cells]


def parse(content: str) -> Audit:
    """What pip-audit found.

    Args:
        content: Its output in JSON.

    Raises:
        ValueError: It is no such output.
    """
    try:
        entries = json.loads(content)["dependencies"]
        known = [entry for entry in entries if "skip_reason" not in entry]
        findings = {
            Finding(
                canonical(entry["name"]),
                entry["version"],
                frozenset((found["id"], *found.get("aliases", ()))),
                tuple(found["fix_versions"]),
            )
            for entry in known
            for found in entry["vulns"]
        }
        unknown = sorted({entry["name"] for entry in entries if "skip_reason" in entry})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "pip-audit must list dependencies with their vulnerabilities as JSON, "
            f"got {content[:200]!r}. Run make lock, and make audit again."
        ) from error
    ordered = sorted(findings, key=lambda each: (each.package, sorted(each.names)))
    return Audit(len({entry["name"] for entry in known}), tuple(ordered), tuple(unknown))


def problems(audit: Audit, accepted: Sequence[Accepted]) -> list[str]:
    """Why the audit fails, a line each; empty if it passes.

    Args:
        audit: What came of looking up.
        accepted: What was accepted before.
    """
    lines = []
    if audit.unknown:
        lines.append(
            f"the service must know every locked package, has no answer about "
            f"{len(audit.unknown)} of {audit.packages + len(audit.unknown)}: "
            f"{_listed(audit.unknown)}. Nothing is known about these; ask another service "
            "(--service osv), or run where the service can be reached."
        )
    lines += [
        f"{finding}: it is not in the table of accepted findings. Upgrade, or add a row with "
        "the reason."
        for finding in audit.findings
        if not any(each.covers(finding) for each in accepted)
    ]
    lines += [
        f"{each.name} of {each.package} is accepted, but is no longer found. Remove its row."
        for each in accepted
        if each.package not in audit.unknown
        and not any(each.covers(finding) for finding in audit.findings)
    ]
    return lines


def look_up(settings: Settings) -> Audit:
    """Have pip-audit look every pin up.

    Args:
        settings: Whom to ask, and about what.

    Raises:
        ValueError: pip-audit is not installed, or did not come to an end.
    """
    require(PROGRAM.exists(), "pip-audit must be installed", str(PROGRAM), "Run make audit.")
    words = [str(PROGRAM), "--format", "json", "--progress-spinner", "off"]
    # What is locked is looked up as it is: nothing is resolved, downloaded or installed.
    words += ["--disable-pip", "--require-hashes", "--desc", "off", "--aliases", "on"]
    words += ["--vulnerability-service", settings.service]
    words += ["--osv-url", settings.osv_url] if settings.osv_url else []
    for lock in settings.locks:
        words += ["--requirement", str(lock)]
    done = subprocess.run(words, capture_output=True, text=True)
    if not done.stdout.strip():
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(
            f"the vulnerability service must answer, got {said[-1][:300]!r}. Run where it can be "
            "reached, or ask another with --service."
        )
    return parse(done.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    """Look up and judge.

    Args:
        arguments: Words of the command line; those of this process if not given.

    Returns:
        0 where every finding is accepted and every accepted one is found; 1 otherwise.
    """
    try:
        settings = tyro.cli(Settings, prog="python -m benchmarks.audit", args=arguments)
        known = accepted(settings.page.read_text())
        audit = look_up(settings)
    except ValueError as error:
        print(f"make audit: {error}", file=sys.stderr)
        return 1
    failed = problems(audit, known)
    for line in failed:
        print(f"make audit: {line}", file=sys.stderr)
    if not failed:
        print(
            f"{audit.packages} packages, {len(audit.findings)} known vulnerabilities, "
            f"all of them accepted in {settings.page.name}"
        )
    return 1 if failed else 0


def _listed(names: Iterable[str], shown: int = 5) -> str:
    every = list(names)
    more = [f"and {len(every) - shown} more"] if len(every) > shown else []
    return ", ".join([*every[:shown], *more])


if __name__ == "__main__":
    sys.exit(main())
