"""The flags of `plateau run`, laid out flat from the fields of RunConfig."""

from collections.abc import Sequence

import tyro

from pipeline.config import RunConfig


def parse(default: RunConfig, args: Sequence[str], prog: str, description: str) -> RunConfig:
    """The run that the flags ask for.

    Args:
        default: Value of every flag that is not given.
        args: Flags, without the command and the preset.
        prog: Command as the help shows it.
        description: What the help says first.

    Raises:
        SystemExit: After --help (code 0), or after printing what is wrong with a flag (code 2).
        ValueError: Flags that do not go together.
    """
    return tyro.cli(
        RunConfig,
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
