"""Command-line flags of a config dataclass, through tyro."""

import contextlib
import dataclasses
import io
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

import tyro

from trainer_module.util.checks import UserError, chain

from . import help
from .arguments import UsageError

T = TypeVar("T")

_FIELD = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


def parse(
    default: T,
    args: Sequence[str],
    prog: str,
    description: str,
    without: Collection[str] = (),
) -> T:
    """Returns the config that the flags describe.

    Args:
        default: Value of every flag that is left out.
        args: Flags, without the command and the preset.
        prog: Command as the help shows it.
        description: First paragraph of the help.
        without: Names of flags that the command refuses, and that the help leaves out.

    Raises:
        SystemExit: After --help (code 0).
        UsageError: An unknown flag, or a value of the wrong type.
    """
    show_all = "--help-all" in args
    is_help = show_all or "--help" in args or "-h" in args
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return tyro.cli(
                type(default),
                prog=prog,
                description=description,
                args=["--help" if arg == "--help-all" else arg for arg in args],
                default=default,
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.AvoidSubcommands,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
    except SystemExit as stop:
        if not stop.code:
            print(
                help.lay_out(out.getvalue(), show_all, without) if is_help else out.getvalue(),
                end="",
            )
            raise
        # Tyro reports the error of a config's own check by group of flags.
        own = next((error for error in chain(stop) if isinstance(error, UserError)), None)
        raise own or UsageError(help.error(err.getvalue())) from None


def names(config: Any) -> Iterator[str]:
    """Yields the fields of a config, and of the configs in it, that are flags."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from names(value)
        else:
            yield field.name


def spell(text: str, config: Any) -> str:
    """Replaces fields of a config in backticks by their flags: `batch_size=8` by --batch-size 8."""
    flags = frozenset(names(config))

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in flags:
            return match[0]
        argument = "" if value is None else f" {shlex.quote(value)}"
        return f"--{name.replace('_', '-')}{argument}"

    return _FIELD.sub(flag, text)


def message(error: BaseException, config: Any) -> str:
    """Returns an error in words, with fields of the config as flags.

    The value that a UserError received is left as it is.
    """
    text = str(error) or type(error).__name__
    if config is None:
        return text
    parts = [part for part in (error, error.__cause__) if isinstance(part, UserError)]
    for part in parts:
        before = str(part)
        part.rule, part.remedy = spell(part.rule, config), spell(part.remedy, config)
        text = text.replace(before, str(part))
    return text if parts else spell(text, config)
