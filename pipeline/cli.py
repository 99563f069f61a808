"""The command `plateau`. Nothing here imports TensorFlow before a run has checked its data."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline import console, dataset, fingerprint, flags, presets
from pipeline.config import RunConfig
from pipeline.plan import PlanConfig, make_plan

T = TypeVar("T")

PUSHED, ERROR, USAGE, NOT_BLESSED, INTERRUPTED = 0, 1, 2, 3, 130

_HELP = """\
usage: plateau COMMAND ...

From a folder of images, or a table, to a gated TensorFlow model.

commands:
  run [PRESET] [flags]   train, evaluate, push the model if it passes the gates
  plan [PRESET] [flags]  say what the schedule would do at each stall
  presets                list the presets

`plateau run PRESET --help` explains every flag and shows the preset's defaults.
`plateau plan` has the same flags, and --examples N, which stands in for data.

exit status: 0 pushed; 3 trained, but not good enough; 1 an error; 2 bad usage."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; those of the process if None.

    Returns:
        Exit status: 0 pushed (or nothing to do), 1 error, 2 bad usage, 3 trained but not blessed.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    command, rest = (args[0], args[1:]) if args else ("", [])
    if command == "run":
        return _run(rest)
    if command == "plan":
        return _plan(rest)
    out = console.make()
    if command in ("-h", "--help"):
        out.print(_HELP, markup=False)
        return PUSHED
    if command == "presets" and (not rest or rest[0] in ("-h", "--help")):
        out.print(console.presets())
        return PUSHED
    if command == "presets":
        return _usage(f"`plateau presets` takes no arguments, got {' '.join(rest)}.")
    if not command:
        return _usage("a command is missing. Try `plateau run digits` or `plateau --help`.")
    return _usage(f"unknown command {command!r}. The commands are run, plan and presets.")


def _run(args: list[str]) -> int:
    try:
        name, config = _parse("run", args, lambda preset: preset)
        fingerprint.module_of(config.network.model)
        if dataset.needs_data(config):
            raise ValueError(f"the preset {name} needs data. Say where with --data PATH.")
    except ValueError as error:
        return _usage(str(error))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE

    from pipeline import local_runner, run_lock

    out = console.make()
    try:
        result = local_runner.run(config, out)
    except local_runner.RunFailedError as error:
        return _fail(f"{flags.spell(str(error), config)}\nlog    {error.log}")
    except (ValueError, OSError, run_lock.OutputBusyError) as error:
        return _fail(flags.spell(str(error), config))
    except KeyboardInterrupt:
        _fail("interrupted. What earlier runs made is untouched; run again to go on.")
        return INTERRUPTED
    console.print_result(out, result)
    return PUSHED if result.blessed else NOT_BLESSED


def _plan(args: list[str]) -> int:
    try:
        name, config = _parse("plan", args, PlanConfig)
        if config.examples is None and dataset.needs_data(config.run):
            raise ValueError(
                f"the preset {name} needs data. Say where with --data PATH, or how many training "
                "examples there are with --examples N."
            )
    except ValueError as error:
        return _usage(str(error))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        plan = make_plan(config)
    except (ValueError, OSError) as error:
        return _fail(flags.spell(str(error), config))
    console.make().print(console.plan(plan))
    return PUSHED


def _parse(command: str, args: list[str], default: Callable[[RunConfig], T]) -> tuple[str, T]:
    """The preset's name, and its configuration with the flags applied."""
    named = bool(args) and not args[0].startswith("-")
    name, rest = (args[0], args[1:]) if named else (presets.DEFAULT, args)
    preset = presets.get(name)
    return name, flags.parse(
        default(preset.build()),
        rest,
        prog=f"plateau {command} {name if named else '[PRESET]'}",
        description=f"{preset.purpose} Data: {preset.data}. Presets: {', '.join(presets.PRESETS)}.",
    )


def _usage(message: str) -> int:
    console.make(stderr=True).print(console.error(message), soft_wrap=True)
    return USAGE


def _fail(message: str) -> int:
    console.make(stderr=True).print(console.error(message), soft_wrap=True)
    return ERROR


if __name__ == "__main__":
    sys.exit(main())
