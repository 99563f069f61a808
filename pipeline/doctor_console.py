"""What `plateau doctor` prints."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.doctor import Finding, Target

MOST_SHOWN = 50
_COLOURS = {"error": "bold red", "warning": "bold yellow"}


def print_findings(
    console: Console, findings: Sequence[Finding], path: Path, target: Target
) -> None:
    """Print each finding with its remedy, and the verdict last.

    Args:
        console: Where to.
        findings: What was found, the errors first.
        path: File that was checked.
        target: What it was checked for.
    """
    # Four columns of sentences would be unreadable at eighty characters.
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings[:MOST_SHOWN]:
        head = Text.assemble((finding.where, "bold"), (f"  [{finding.rule}]", "dim"))
        grid.add_row(Text(finding.severity, style=_COLOURS[finding.severity]), head)
        grid.add_row("", Text(finding.what))
        grid.add_row("", Text(finding.remedy, style="cyan"))
        grid.add_row("", "")
    if findings:
        console.print(grid)
    if len(findings) > MOST_SHOWN:
        console.print(Text(f"and {len(findings) - MOST_SHOWN} more\n"))
    # A path that is broken over lines cannot be copied.
    console.print(_verdict(findings, target).append(f"\nfile   {path}"), soft_wrap=True)


def _verdict(findings: Sequence[Finding], target: Target) -> Text:
    if not findings:
        return Text.assemble(("healthy", "bold green"), f" for {target}: nothing found")
    counts = []
    for severity in ("error", "warning"):
        number = sum(finding.severity == severity for finding in findings)
        if number:
            counts.append(f"{number} {severity}{'' if number == 1 else 's'}")
    worst = findings[0].severity
    word = "broken" if worst == "error" else "doubtful"
    return Text.assemble((word, _COLOURS[worst]), f" for {target}: {' and '.join(counts)}")
