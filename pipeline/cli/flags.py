"""The flags of `plateau run` and `plateau plan`, laid out flat from the fields of a config."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(default: T, args: Sequence[str], prog: str, description: str) -> T:
    """The config that the flags ask for.

    Args:
        default: Value of every flag that is not given.
        args: Flags, without the command and the preset.
        prog: Command as the help shows it.
        description: What the help says first.

    Raises:
        SystemExit: After --help (code 0), or after printing what is wrong with a flag (code 2).
        ValueError: Flags out of range, or that do not go together; named as they are typed.
    """
    # Errors are kept back first, so that our own words can take their place.
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return _parse(default, args, prog, description)
    except ValueError as error:
        raise ValueError(spell(str(error), default)) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        broken = _broken_rule(stop)
        if broken is not None:
            raise ValueError(spell(broken, default)) from None
    return _parse(default, args, prog, description)


def spell(message: str, config: Any) -> str:
    """A message with the fields of a config named as flags: batch_size as --batch-size.

    A name of one word is an ordinary word too, so it counts only where the message begins with it
    or where a value follows, as in patience=5.

    Args:
        message: What to say.
        config: A dataclass whose fields, and theirs, are the flags.
    """
    names = sorted(set(_names(config)), key=len, reverse=True)
    # Without any, the pattern must match nothing: an empty one matches everywhere.
    compounds = "|".join(name for name in names if "_" in name) or "(?!)"
    any_name = "|".join(names)
    pattern = (
        rf"(?<![\w'\"/.-])(?P<argument>{any_name})="
        rf"|\A({any_name})(?![\w-])|(?<![\w'\"/.-])({compounds})(?![\w'\"/-])"
    )

    def flag(found: re.Match[str]) -> str:
        name = found["argument"]
        return "--" + (f"{name} " if name else found[0]).replace("_", "-")

    def marked(field: re.Match[str]) -> str:
        value = f" {field[2]}" if field[2] else ""
        return f"--{field[1].replace('_', '-')}{value}"

    return re.sub(pattern, flag, re.sub(rf"`({any_name})(?:=([^`]*))?`", marked, message))


def _parse(default: T, args: Sequence[str], prog: str, description: str) -> T:
    return tyro.cli(
        type(default),
        prog=prog,
        description=description,
        args=args,
        default=default,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.AvoidSubcommands,
            tyro.conf.FlagCreatePairsOff,
        ),
    )


def _broken_rule(stop: SystemExit) -> str | None:
    """What a config's own check said, which tyro reports by group of flags and not by flag."""
    report = stop.__context__
    if isinstance(report, ValueError):
        return str(report)
    # For a value of the wrong type, which tyro itself found, `arg` is a definition and no name.
    if isinstance(getattr(report, "arg", None), str) and report is not None:
        cause = report.__context__
        return str(cause) if isinstance(cause, ValueError) else None
    return None


def _names(config: Any) -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _names(value)
        else:
            yield field.name
