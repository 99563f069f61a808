"""Command line `plateau`: finds the command, and renders its errors once."""

import platform
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from .arguments import Arguments, UsageError

PUSHED, ERROR, USAGE, NOT_BLESSED, INTERRUPTED = 0, 1, 2, 3, 130

# Packages of the extra cli.
_EXTRA = ("filelock", "kfp", "sklearn", "tyro", "urllib3")


class Command(NamedTuple):
    """Command of the command line."""

    function: str
    """Module and function that reads the arguments and returns the exit status."""
    usage: str
    """What follows the command's name."""
    purpose: str
    """What it does, for the list of commands."""
    interrupted: str = "Nothing was changed."
    """What holds after Ctrl-C."""


COMMANDS = {
    "run": Command(
        "commands.run",
        "[PRESET] [flags]",
        "train, evaluate, push the model if it passes",
        "Earlier pushed models are untouched. The same command resumes.",
    ),
    "compare": Command(
        "commands.compare",
        "[PRESET] [flags]",
        "train the strategies side by side",
        "The same command resumes.",
    ),
    "plan": Command(
        "commands.plan", "[PRESET] [flags]", "forecast what the schedule does at each plateau"
    ),
    "schema": Command(
        "commands.schema", "FILE.csv", "infer the columns of a table, and write its schema"
    ),
    "presets": Command("commands.presets", "", "list the presets"),
    "runs": Command("history.runs", "[PRESET]", "list earlier runs, and which model is served"),
    "runs show": Command(
        "history.show", "[ID]", "one run: its steps, and what its model is made from"
    ),
    "rollback": Command(
        "history.rollback",
        "[VERSION]",
        "serve an earlier pushed model again",
        "`plateau runs` shows what is served.",
    ),
    "bless": Command(
        "history.bless",
        "[RUN] --reason WHY",
        "push a model that a gate held back",
        "`plateau runs` shows what is served.",
    ),
    "predict": Command(
        "commands.predict",
        "RUN_OR_MODEL PATH...",
        "predict images or tables with a pushed model",
        "No file was written.",
    ),
    "compile": Command(
        "commands.compile_pipeline",
        "[PRESET] [flags]",
        "write the pipeline for Kubeflow or Vertex AI",
    ),
    "submit": Command(
        "commands.submit",
        "FILE --host URL",
        "run a compiled pipeline on Kubeflow Pipelines",
        "A run that was created continues; its address is above.",
    ),
    "report": Command(
        "history.report", "[PRESET] [--open]", "say where the newest training report is"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments after the program's name; those of the process if None.

    Returns:
        Exit status: 0 pushed (or nothing to do), 1 error, 2 bad usage, 3 stopped by a gate, 130
        interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("-h", "--help"):
        print(_help())
        return PUSHED
    if words == ["--version"]:
        print(_version())
        return PUSHED
    length = next((n for n in (2, 1) if " ".join(words[:n]) in COMMANDS), 0)
    name = " ".join(words[:length])
    try:
        if not name:
            return _fail(_unknown(words), USAGE)
        command = COMMANDS[name]
        arguments = Arguments(name, command.purpose, words[length:])
        try:
            return _function(command)(arguments)
        except KeyboardInterrupt:
            return _fail(f"interrupted. {command.interrupted}", INTERRUPTED)
        # Bad data, a gate, a full disk: what a user can mend. Anything else is a bug, with its
        # traceback.
        except (UsageError, ValueError, OSError, RuntimeError) as error:
            return _failed(error, arguments)
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
        # Python takes None for success.
        code = PUSHED if stop.code is None else stop.code
        return code if isinstance(code, int) else USAGE


def _function(command: Command) -> Callable[[Arguments], int]:
    """Imports what the command needs, so that none waits for another's imports."""
    module, name = command.function.split(".")
    function: Callable[[Arguments], int] = getattr(import_module(f".{module}", __package__), name)
    return function


def _failed(error: Exception, arguments: Arguments) -> int:
    """Prints what a command raised, and returns the exit status."""
    from components.gate import GateError

    from . import flags

    ours = type(error).__module__.startswith(__package__.partition(".")[0])
    if isinstance(error, RuntimeError) and not ours:
        raise error
    log = getattr(error, "log", None)
    text = flags.message(error, arguments.config) + (f"\nlog    {log}" if log else "")
    if any(isinstance(each, GateError) for each in (error, error.__cause__)):
        return _fail(text, NOT_BLESSED)
    is_usage = isinstance(error, UsageError) or not arguments.complete
    return _fail(text, USAGE if is_usage else ERROR)


def _fail(text: str, status: int) -> int:
    from . import console

    console.make(stderr=True).print(console.error(text), soft_wrap=True)
    return status


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

`plateau run PRESET --help` explains the common flags with the preset's defaults, --help-all every
flag. `plateau plan` has the same flags, and --examples N, which stands in for data.
The other commands have a --help of their own.
`plateau --version` prints the versions of Plateau, TFX, TensorFlow and Python.

exit status: 0 pushed; 3 stopped by a gate; 1 an error; 2 bad usage; 130 interrupted."""


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


def _unknown(words: list[str]) -> str:
    if not words:
        return "a command is missing. Try `plateau run digits` or `plateau --help`."
    *first, last = (name for name in COMMANDS if " " not in name)
    return f"unknown command {words[0]!r}. The commands are {', '.join(first)} and {last}."
