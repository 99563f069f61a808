"""Comparison of pip-audit's report (JSON on stdin) with the accepted findings of a page.

pip-audit's own exit status is not enough: where a service answers "not found" for every package,
it is 0, and an accepted vulnerability that is no longer found is not reported.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADING = "\n## Accepted findings\n"
IDENTIFIER = re.compile(r"CVE-\d{4}-\d{4,}|PYSEC-\d{4}-\d+|GHSA(?:-[0-9a-z]{4}){3}")


def accepted(page: str) -> dict[str, str]:
    """Returns the package of each accepted vulnerability, by the vulnerability's identifier."""
    section = page.partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    findings = {}
    for names, package, reason in rows[2:]:
        for name in map(str.strip, names.split(",")):
            if not IDENTIFIER.fullmatch(name) or not reason.strip():
                raise ValueError(
                    f"a row must have an identifier (CVE, GHSA, PYSEC) and a reason, got {name!r}"
                )
            findings[name] = package.strip()
    return findings


def problems(report: Mapping[str, Any], accepted: Mapping[str, str]) -> list[str]:
    """Returns why the audit fails, a line each: findings that are new, gone or unknown."""
    lines, found, unknown = [], set(), set()
    for package in report["dependencies"]:
        name = package["name"]
        if "skip_reason" in package:
            unknown.add(name)
        for vulnerability in package.get("vulns", ()):
            names = {vulnerability["id"], *vulnerability["aliases"]}
            found |= {(each, name) for each in names}
            if not any(accepted.get(each) == name for each in names):
                fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
                lines.append(
                    f"{name} {package['version']}: {', '.join(sorted(names))} (fixed in {fixed}) "
                    "is not accepted. Upgrade, or add a row with the reason."
                )
    lines += [
        f"{each} of {name} is accepted, but is no longer found. Remove its row."
        for each, name in accepted.items()
        if (each, name) not in found and name not in unknown
    ]
    if unknown:
        lines.append(f"the service has no answer about {len(unknown)} packages: {sorted(unknown)}")
    # Two lock files may hold the same package.
    return list(dict.fromkeys(lines))


def main() -> int:
    """Prints the problems; 1 if there are any."""
    report = sys.stdin.read()
    if not report.strip():
        print("make audit: the vulnerability service must answer.", file=sys.stderr)
        return 1
    lines = problems(json.loads(report), accepted(Path(sys.argv[1]).read_text()))
    print("\n".join(f"make audit: {line}" for line in lines) or "No finding that is not accepted.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
