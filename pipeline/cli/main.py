"""The command `plateau`. Each command imports what it needs, so that none waits for another's."""

import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from ..config import RunConfig

T = TypeVar("T")

PUSHED, ERROR, USAGE, NOT_BLESSED, INTERRUPTED = 0, 1, 2, 3, 130

# Packages of the extra cli.
_EXTRA = ("filelock", "kfp", "sklearn", "tyro", "urllib3")


class Command(NamedTuple):
    """A command.

    Attributes:
        run: Takes the arguments after the command's name and returns the exit status.
        usage: What follows the command's name.
        purpose: What it does, for the list of commands.
    """

    run: Callable[[list[str]], int]
    usage: str
    purpose: str


class UsageError(Exception):
    """The command line itself is at fault."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; those of the process if None.

    Returns:
        Exit status: 0 pushed (or nothing to do), 1 error, 2 bad usage, 3 stopped by a gate.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in ("-h", "--help"):
        print(_help())
        return PUSHED
    if args == ["--version"]:
        print(_version())
        return PUSHED
    try:
        words = next((n for n in (2, 1) if " ".join(args[:n]) in COMMANDS), 0)
        if not words:
            raise UsageError(_unknown(args))
        return COMMANDS[" ".join(args[:words])].run(args[words:])
    except UsageError as error:
        return _complain(str(error), USAGE)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        # The console needs them too.
        print(
            f"error: plateau must have the extra cli installed, got no package {error.name}. "
            "Install plateau-tfx[cli].",
            file=sys.stderr,
        )
        return ERROR
    except SystemExit as stop:
        # Python takes None for a good end.
        code = PUSHED if stop.code is None else stop.code
        return code if isinstance(code, int) else USAGE


def _help() -> str:
    width = max(len(f"{name} {command.usage}") for name, command in COMMANDS.items())
    lines = "\n".join(
        f"  {f'{name} {command.usage}':{width}}  {command.purpose}"
        for name, command in COMMANDS.items()
    )
    return f"""\
usage: plateau COMMAND ...

From a folder of images, or a table, to a gated TensorFlow model.

commands:
{lines}

`plateau run PRESET --help` explains every flag and shows the preset's defaults.
`plateau plan` has the same flags, and --examples N, which stands in for data.
The other commands have a --help of their own.
`plateau --version` prints the versions of Plateau, TFX, TensorFlow and Python.

exit status: 0 pushed; 3 not good enough; 1 an error; 2 bad usage."""


def _version() -> str:
    from importlib import metadata

    from trainer_module import __version__

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    return (
        f"Plateau {__version__}, TFX {version('tfx')}, TensorFlow {version('tensorflow')}, "
        f"Python {platform.python_version()}"
    )


def _unknown(args: list[str]) -> str:
    if not args:
        return "a command is missing. Try `plateau run digits` or `plateau --help`."
    *first, last = (name for name in COMMANDS if " " not in name)
    return f"unknown command {args[0]!r}. The commands are {', '.join(first)} and {last}."


def _run(args: list[str]) -> int:
    from ..data import dataset, fingerprint
    from . import flags

    with _usage_errors():
        name, config = _parse("run", args, lambda preset: preset)
        fingerprint.module_of(config.network.model)
        if dataset.needs_data(config):
            raise ValueError(f"the preset {name} needs data. Say where with --data PATH.")

    from components.gate import GateError

    from ..runners import local, lock
    from . import console

    out = console.make()
    try:
        result = local.run(config, out, shlex.join(["plateau", "run", *args]))
    except local.RunFailedError as error:
        status = NOT_BLESSED if error.gate else ERROR
        return _complain(f"{flags.spell(str(error), config)}\nlog    {error.log}", status)
    except GateError as error:
        return _complain(str(error), NOT_BLESSED)
    except (ValueError, OSError, lock.OutputBusyError) as error:
        return _complain(flags.spell(str(error), config))
    except KeyboardInterrupt:
        message = "interrupted. What earlier runs made is untouched; run again to go on."
        return _complain(message, INTERRUPTED)
    console.print_result(out, result)
    return PUSHED if result.pushed else NOT_BLESSED


def _plan(args: list[str]) -> int:
    from ..data import dataset
    from . import console, flags
    from .forecast import PlanConfig, make_plan

    with _usage_errors():
        name, config = _parse("plan", args, PlanConfig)
        if config.examples is None and dataset.needs_data(config.run):
            raise ValueError(
                f"the preset {name} needs data. Say where with --data PATH, or how many training "
                "examples there are with --examples N."
            )
    try:
        plan = make_plan(config)
    except (ValueError, OSError) as error:
        return _complain(flags.spell(str(error), config))
    console.make().print(console.plan(plan))
    return PUSHED


def _compare(args: list[str]) -> int:
    from ..compare import run as compare
    from ..data import dataset, fingerprint
    from . import flags

    with _usage_errors():
        if any(arg.partition("=")[0] == "--strategy" for arg in args):
            raise ValueError("a comparison has several strategies. Name them with --strategies.")
        name, config = _parse("compare", args, compare.default)
        fingerprint.module_of(config.run.network.model)
        if dataset.needs_data(config.run):
            raise ValueError(f"the preset {name} needs data. Say where with --data PATH.")

    from components.gate import GateError

    from ..compare import console as comparison_console
    from ..runners import local, lock
    from . import console

    out = console.make()
    try:
        done = compare.run(config, out, shlex.join(["plateau", "compare", *args]))
    except local.RunFailedError as error:
        status = NOT_BLESSED if error.gate else ERROR
        kept = "What was finished is kept: the same command goes on from there."
        message = f"{flags.spell(str(error), config)}\n{kept}\nlog    {error.log}"
        return _complain(message, status)
    except GateError as error:
        return _complain(str(error), NOT_BLESSED)
    except (ValueError, OSError, lock.OutputBusyError) as error:
        return _complain(flags.spell(str(error), config))
    except KeyboardInterrupt:
        return _complain("interrupted. The same command goes on from here.", INTERRUPTED)
    comparison_console.print_comparison(out, done.comparison, done.page, done.log, done.seconds)
    return PUSHED


def _compile(args: list[str]) -> int:
    from ..data import fingerprint
    from ..runners import kubeflow
    from . import flags

    with _usage_errors():
        if any(arg.partition("=")[0] == "--output" for arg in args):
            raise ValueError(
                "a compiled pipeline has no output folder. Name the file with --file, and where "
                "the tasks write with --root and --pushed, or --volume."
            )
        _, config = _parse("compile", args, kubeflow.default)
        fingerprint.module_of(config.run.network.model)

    from . import compiled as kubeflow_console
    from . import console

    try:
        compiled = kubeflow.run(config, shlex.join(["plateau", "compile", *args]))
    except (ValueError, OSError) as error:
        return _complain(flags.spell(str(error), config))
    kubeflow_console.print_compiled(console.make(), compiled, config)
    return PUSHED


def _submit(args: list[str]) -> int:
    from ..runners import submit
    from . import console

    with _usage_errors():
        config = _flags(submit.default(), "submit", args)
    try:
        done = submit.submit(config, console.make())
    except (ValueError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        message = "interrupted. A run that was created continues; its address is above."
        return _complain(message, INTERRUPTED)
    return PUSHED if done.ok else ERROR


def _predict(args: list[str]) -> int:
    from .. import predict
    from . import console

    with _usage_errors():
        config = _flags(predict.default(), "predict", args)

    from trainer_module.util import environment

    from . import predictions

    environment.prepare()
    try:
        with predictions.progress(console.make(stderr=True)) as advance:
            summary = predict.run(config, advance)
    except (ValueError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return _complain("interrupted. No file was written.", INTERRUPTED)
    predictions.print_summary(console.make(), summary, config)
    return PUSHED if summary.predicted else ERROR


def _presets(args: list[str]) -> int:
    from . import console

    if args and args[0] not in ("-h", "--help"):
        raise UsageError(f"`plateau presets` takes no arguments, got {' '.join(args)}.")
    console.make().print(console.presets())
    return PUSHED


def _runs(args: list[str]) -> int:
    from ..metadata import runs
    from . import console

    with _usage_errors():
        config = _flags(runs.RunsConfig(), "runs", args)
        if config.preset is not None:
            runs.folders(config.preset, None)
    try:
        looked = runs.folders(config.preset, config.output)
        found = [folder for folder in map(runs.read, looked) if folder.runs]
    except (ValueError, OSError) as error:
        return _complain(str(error))
    out = console.make()
    if config.json:
        print(console.as_json(found))
    elif found:
        for folder in found:
            console.print_runs(out, folder)
    else:
        where = config.output or (f"runs/{config.preset}" if config.preset else "runs")
        start = f"plateau run {config.preset or 'digits'}"
        to = f" --output {config.output}" if config.output else ""
        out.print(f"No runs in {where} yet. Start one: {start}{to}", markup=False, soft_wrap=True)
    return PUSHED


def _runs_show(args: list[str]) -> int:
    from ..metadata import lineage, runs
    from . import console

    with _usage_errors():
        config = _flags(lineage.ShowConfig(), "runs show", args)
    try:
        found = lineage.read(runs.folders(None, config.output), config.id)
    except (ValueError, OSError) as error:
        return _complain(str(error))
    if config.json:
        print(console.as_json(found))
    else:
        console.print_run(console.make(), found)
    return PUSHED


def _rollback(args: list[str]) -> int:
    from ..metadata import runs, versions
    from ..runners import lock
    from . import console

    with _usage_errors():
        config = _flags(versions.RollbackConfig(), "rollback", args)
    try:
        plan = versions.plan(runs.only_folder(config.output), config.version)
        out = console.make()
        out.print(console.rollback(plan), soft_wrap=True)
        again = f"plateau rollback {plan.target.number} --yes"
        if not config.yes and not _confirmed("rollback", again):
            return _complain("not confirmed. Nothing was changed.")
        made = versions.apply(plan)
    except (ValueError, OSError, lock.OutputBusyError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return _complain("interrupted. `plateau runs` shows what is served.", INTERRUPTED)
    out.print(console.rolled_back(plan, made), soft_wrap=True)
    return PUSHED


def _bless(args: list[str]) -> int:
    from components.gate import GateError

    from ..metadata import bless
    from ..runners import lock
    from . import console

    with _usage_errors():
        config = _flags(bless.BlessConfig(), "bless", args)
    out = console.make()
    try:
        plan = bless.plan(config)
        out.print(console.blessing(plan, bless.failed(plan), config.reason), soft_wrap=True)
        again = shlex.join(["plateau", "bless", *args, "--yes"])
        if not config.yes and not _confirmed("bless", again):
            return _complain("not confirmed. Nothing was changed.")
        made = bless.apply(plan, config)
    except GateError as error:
        return _complain(str(error), NOT_BLESSED)
    except (ValueError, OSError, lock.OutputBusyError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return _complain("interrupted. `plateau runs` shows what is served.", INTERRUPTED)
    out.print(console.blessed(plan, made), soft_wrap=True)
    return PUSHED


def _confirmed(command: str, again: str) -> bool:
    """Whether a person says yes.

    Args:
        command: What asks.
        again: The command line that does not ask.

    Raises:
        UsageError: There is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            f"{command} asks for confirmation in a terminal, got none. Confirm with --yes: {again}"
        )
    return input("Go ahead? [y/N] ").strip().lower() in ("y", "yes")


def _report(args: list[str]) -> int:
    import webbrowser

    from ..metadata import runs

    with _usage_errors():
        config = _flags(runs.ReportConfig(), "report", args)
        if config.preset is not None:
            runs.folders(config.preset, None)
    try:
        path = runs.newest_report(runs.folders(config.preset, config.output))
    except (ValueError, OSError) as error:
        return _complain(str(error))
    print(path)
    if config.open and not webbrowser.open(path.resolve().as_uri()):
        return _complain(f"no browser could be started. Open {path} in one yourself.")
    return PUSHED


COMMANDS = {
    "run": Command(_run, "[PRESET] [flags]", "train, evaluate, push the model if it passes"),
    "compare": Command(_compare, "[PRESET] [flags]", "train the strategies side by side"),
    "plan": Command(_plan, "[PRESET] [flags]", "say what the schedule would do at each plateau"),
    "presets": Command(_presets, "", "list the presets"),
    "runs": Command(_runs, "[PRESET]", "list earlier runs, and which model is served"),
    "runs show": Command(_runs_show, "[ID]", "one run: its steps, and what its model is made from"),
    "rollback": Command(_rollback, "[VERSION]", "serve an earlier pushed model again"),
    "bless": Command(_bless, "[RUN] --reason WHY", "push a model that a gate held back"),
    "predict": Command(
        _predict, "RUN_OR_MODEL PATH...", "predict images or tables with a pushed model"
    ),
    "compile": Command(
        _compile, "[PRESET] [flags]", "write the pipeline for Kubeflow or Vertex AI"
    ),
    "submit": Command(_submit, "FILE --host URL", "run a compiled pipeline on Kubeflow Pipelines"),
    "report": Command(_report, "[PRESET] [--open]", "say where the newest training report is"),
}


def _parse(command: str, args: list[str], default: "Callable[[RunConfig], T]") -> tuple[str, T]:
    """The preset's name, and its configuration with the flags applied."""
    from .. import presets
    from . import flags

    named = bool(args) and not args[0].startswith("-")
    name, rest = (args[0], args[1:]) if named else (presets.DEFAULT, args)
    preset = presets.get(name)
    return name, flags.parse(
        default(preset.build()),
        rest,
        prog=f"plateau {command} {name if named else '[PRESET]'}",
        description=f"{preset.purpose} Data: {preset.data}. Presets: {', '.join(presets.PRESETS)}.",
    )


def _flags(default: T, command: str, args: list[str]) -> T:
    """The configuration of a command that has no preset's flags."""
    from . import flags

    purpose = COMMANDS[command].purpose
    description = f"{purpose[0].upper()}{purpose[1:]}."
    return flags.parse(default, args, prog=f"plateau {command}", description=description)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Whatever is wrong within is the command line's fault."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def _complain(message: str, status: int = ERROR) -> int:
    from . import console

    console.make(stderr=True).print(console.error(message), soft_wrap=True)
    return status
