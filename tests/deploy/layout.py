"""The folders that the image would have, read from its Dockerfile."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"


def instructions(text: str) -> list[str]:
    """The lines of a Dockerfile, continued ones as one, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def last_stage() -> list[str]:
    lines = instructions(DOCKERFILE.read_text())
    start = max(i for i, line in enumerate(lines) if line.startswith("FROM "))
    return lines[start:]


def copies() -> list[tuple[str, str]]:
    """(source, destination) of what the last stage copies from the build context."""
    words = [line.split()[1:] for line in last_stage() if line.startswith("COPY ")]
    assert all(len(pair) == 2 for pair in words)
    return [(source, target) for source, target in words]


def matcher(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))


def is_ignored(path: PurePosixPath, patterns: list[str]) -> bool:
    """Docker's rule: the last pattern decides that matches a path or a folder it lies in."""
    ignored = False
    names = [str(path), *map(str, path.parents[:-1])] if path.parents else [str(path)]
    for pattern in patterns:
        if any(matcher(pattern.removeprefix("!")).fullmatch(name) for name in names):
            ignored = not pattern.startswith("!")
    return ignored


def ignore_patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def context(source: str) -> Iterator[Path]:
    """The files of a source that reach the build, relative to the root."""
    path = ROOT / source
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    patterns = ignore_patterns()
    for file in files:
        relative = file.relative_to(ROOT)
        if file.is_file() and not is_ignored(PurePosixPath(relative), patterns):
            yield relative


def build(root: Path) -> Path:
    """Copy into a folder what the last stage copies into the image; returns its /app."""
    for source, target in copies():
        found = list(context(source))
        assert found, f"nothing of {source} reaches the build"
        for file in found:
            inner = file.relative_to(source)
            path = root / target.lstrip("/") / inner if inner.parts else root / target.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, path)
    return root / "app"


def environment() -> dict[str, str]:
    """The environment of the CPU image's containers, for a user who is not in /etc/passwd."""
    stages: dict[str, list[str]] = {}
    for line in instructions(DOCKERFILE.read_text()):
        if line.startswith("FROM "):
            base, _, name = line.removeprefix("FROM ").partition(" AS ")
            stages[name] = current = list(stages.get(base.replace("${VARIANT}", "cpu"), ()))
        elif line.startswith("ENV "):
            current += re.findall(r"(\w+)=(\S+)", line)
    values = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
    for name, value in stages[""]:
        values[name] = value.replace("$PATH", values["PATH"])
    return values
