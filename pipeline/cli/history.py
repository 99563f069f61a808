"""Commands about earlier runs: list, show, report, rollback and push by hand."""

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from trainer_module.util import environment
from trainer_module.util.checks import UserError, require

from .. import presets
from ..metadata import bless as blessing
from ..metadata import lineage, store, versions
from ..metadata import runs as history
from ..runners import lock, logs
from . import console
from .arguments import Arguments, UsageError

Preset = Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[PRESET]")]


@dataclass(frozen=True)
class RunsConfig:
    """Configuration of `plateau runs`."""

    preset: Preset = None
    """Preset whose output folder to read; if not given, every output folder under ./runs."""
    output: Path | None = None
    """Output folder to read."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class ShowConfig:
    """Configuration of `plateau runs show`."""

    id: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[ID]")] = None
    """Id of the run as `plateau runs` prints it, or its time, or the beginning of either; if not
    given, the newest run."""
    output: Path | None = None
    """Output folder to read; if not given, every one under ./runs."""
    json: bool = False
    """Print JSON instead of a page."""


@dataclass(frozen=True)
class RollbackConfig:
    """Configuration of `plateau rollback`."""

    version: Annotated[tyro.conf.Positional[int | None], tyro.conf.arg(metavar="[VERSION]")] = None
    """Version to serve again; if not given, the newest one before the present model that holds
    another model."""
    output: Path | None = None
    """Output folder of the runs; if not given, the one under ./runs that has a pushed model."""
    yes: bool = False
    """Do not ask for confirmation."""


@dataclass(frozen=True)
class BlessConfig:
    """Configuration of `plateau bless`."""

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[RUN]")] = None
    """Id of the run whose model is to be pushed, as `plateau runs` prints it, or its time, or the
    beginning of either; if not given, the newest run."""
    reason: str = ""
    """Why the model is pushed although a gate held it back; recorded and shown."""
    output: Path | None = None
    """Output folder of the run; if not given, every one under ./runs is searched."""
    allow_class_change: bool = False
    """Let the model replace one of images that knows other classes."""
    yes: bool = False
    """Do not ask for confirmation."""


@dataclass(frozen=True)
class ReportConfig:
    """Configuration of `plateau report`."""

    preset: Preset = None
    """Preset whose output folder to read; if not given, every output folder under ./runs."""
    output: Path | None = None
    """Output folder to read."""
    open: bool = False
    """Show the report in a browser."""


def runs(arguments: Arguments) -> int:
    """Lists earlier runs, and which model is served."""
    config = arguments.read(RunsConfig())
    outputs = _outputs(arguments, config.preset, config.output)
    folders = [f for f in (history.read(output, _is_busy) for output in outputs) if f.runs]
    out = console.make()
    if config.json:
        print(console.as_json(folders))
    for folder in () if config.json else folders:
        console.print_runs(out, folder)
    if not folders and not config.json:
        where = config.output or (f"runs/{config.preset}" if config.preset else "runs")
        start = f"plateau run {config.preset or 'digits'}"
        to = f" --output {config.output}" if config.output else ""
        out.print(f"No runs in {where} yet. Start one: {start}{to}", markup=False, soft_wrap=True)
    return 0


def show(arguments: Arguments) -> int:
    """Shows one run."""
    config = arguments.read(ShowConfig())
    detail = lineage.read(history.folders(config.output), config.id, _is_busy)
    if config.json:
        print(console.as_json(detail))
    else:
        console.print_run(console.make(), detail)
    return 0


def report(arguments: Arguments) -> int:
    """Prints where the newest training report is."""
    config = arguments.read(ReportConfig())
    path = history.newest_report(_outputs(arguments, config.preset, config.output))
    print(path)
    if config.open and not webbrowser.open(path.resolve().as_uri()):
        raise UserError(
            "a browser must be installed to open the report", str(path), "Open it yourself."
        )
    return 0


def rollback(arguments: Arguments) -> int:
    """Serves an earlier pushed model again."""
    config = arguments.read(RollbackConfig())
    plan = versions.plan(history.only_folder(config.output), config.version)
    out = console.make()
    out.print(console.rollback(plan), soft_wrap=True)
    _confirm(config.yes, f"plateau rollback {plan.target.number} --yes")
    with lock.hold(plan.output):
        version = versions.apply(plan)
    out.print(console.pushed(version, plan.served), soft_wrap=True)
    return 0


def bless(arguments: Arguments) -> int:
    """Pushes a model that a gate held back."""
    config = arguments.read(BlessConfig())
    plan = blessing.plan(
        config.output, config.run, config.reason, allow_class_change=config.allow_class_change
    )
    out = console.make()
    out.print(console.bless(plan, _failures(plan)), soft_wrap=True)
    _confirm(config.yes, f"{arguments.line} --yes")
    with lock.hold(plan.output):
        version = blessing.apply(plan)
    out.print(console.pushed(version, plan.served), soft_wrap=True)
    return 0


def _outputs(arguments: Arguments, preset: str | None, output: Path | None) -> tuple[Path, ...]:
    """Returns the output folders that flags mean."""
    if preset is not None:
        arguments.complete = False
        folder = presets.get(preset).build().folder
        arguments.complete = True
        if output is None:
            return (folder,) if store.is_there(folder) else ()
    return history.folders(output)


def _is_busy(output: Path) -> bool:
    """Returns True if a run is using the output folder."""
    try:
        with lock.hold(output):
            return False
    except lock.OutputBusyError:
        return True
    # Nobody can run where nothing can be written.
    except ValueError:
        return False


def _confirm(yes: bool, command: str) -> None:
    """Asks for confirmation unless it is given.

    Raises:
        UsageError: There is no terminal to ask at.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"confirmation needs a terminal, and there is none. Confirm with --yes: {command}"
        )
    answer = input("Go ahead? [y/N] ").strip()
    require(
        answer.lower() in ("y", "yes"),
        "the change must be confirmed with y",
        answer,
        "Nothing was changed.",
    )


def _failures(plan: blessing.Blessing) -> list[str]:
    """Returns what held a model back, in words; empty where it was deleted."""
    environment.prepare()
    from components.evaluation import results
    from components.servable import verdict

    from .. import evaluation

    lines: list[str] = []
    evaluated = plan.artifacts.get("ModelEvaluation", Path())
    if (evaluated / "eval_config.json").is_file():
        # TensorFlow logs while it is imported.
        with logs.capture(Path(os.devnull), verbose=False):
            logs.silence_libraries()
            summary = results.read(str(evaluated), plan.classes, rounding=evaluation.ROUNDING)
        lines += [*map(str, summary.failed), *summary.problems]
    served = plan.artifacts.get("InfraBlessing", Path())
    if (served / verdict.FILE_NAME).is_file():
        lines += evaluation.failed_checks(served)
    return lines
