"""Arguments of one command, read into its config."""

import argparse
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from trainer_module.util.checks import UserError

if TYPE_CHECKING:
    from ..config import RunConfig
    from ..data.images import Look
    from ..data.inference import Table

T = TypeVar("T")


class UsageError(Exception):
    """Error in the command line itself."""


@dataclass
class Arguments:
    """Arguments of one command."""

    command: str
    """Name of the command."""
    purpose: str
    """What the command does."""
    words: list[str]
    """What follows the command's name."""
    config: Any = None
    """Config whose fields are the flags; None before `read`."""
    table: "Table | None" = None
    """What was inferred from a user's own table; None for other data."""
    look: "Look | None" = None
    """What a user's own images look like; None for other data."""
    complete: bool = False
    """Whether the flags have been read: an error after that is none of usage."""

    @property
    def line(self) -> str:
        """The command line, for a shell."""
        return shlex.join(["plateau", *self.command.split(), *self.words])

    def read(self, default: T) -> T:
        """Returns the config of a command without a preset.

        Raises:
            UsageError: An unknown flag, or a value of the wrong type.
        """
        description = f"{self.purpose[0].upper()}{self.purpose[1:]}."
        return self._read(default, self.words, f"plateau {self.command}", description)

    def read_preset(
        self,
        default: "Callable[[RunConfig], T]",
        needs_data: bool = True,
        refused: Mapping[str, str] = MappingProxyType({}),
    ) -> T:
        """Returns the config of a command with a preset.

        Args:
            default: Makes the config from the preset's.
            needs_data: Whether a data folder must be given where the preset has no data.
            refused: Names of flags that the command does not take, with the reason.

        Raises:
            UsageError: No such preset, no data, an unknown flag, or a value of the wrong type.
        """
        from .. import presets
        from ..data import dataset, fingerprint

        for word in self.words:
            if reason := refused.get(word.partition("=")[0].removeprefix("--")):
                raise UsageError(reason)
        named = bool(self.words) and not self.words[0].startswith("-")
        name, rest = (self.words[0], self.words[1:]) if named else (presets.DEFAULT, self.words)
        preset = presets.get(name)
        run_config = preset.build()
        if not named:
            # Until the flags are read, an error may name them all the same.
            self.config = presets.taxi()
            self.table = _table(rest)
        if self.table is not None:
            table = self.table
            run_config = presets.table(table.features, table.classes, table.schema, table.rows)
        elif name == presets.DEFAULT and (look := _look(rest)):
            self.look, run_config = look, presets.of_images(look.features, look.count)
        config = self._read(
            default(run_config),
            rest,
            f"plateau {self.command} {name if named else '[PRESET]'}",
            f"{preset.purpose} Data: {preset.data}. Presets: {', '.join(presets.PRESETS)}. "
            "A table of your own is a CSV file and the name of its label column.",
            refused,
        )
        run: Any = getattr(config, "run", config)
        self.complete = False
        fingerprint.module_of(run.network.model)
        if needs_data and getattr(config, "examples", None) is None and dataset.needs_data(run):
            examples = ", or how many training examples there are with --examples N"
            raise UsageError(
                f"the preset {name} needs data. Say where with --data PATH"
                f"{examples if hasattr(config, 'examples') else ''}."
            )
        self.complete = True
        return config

    def _read(
        self,
        default: T,
        words: list[str],
        prog: str,
        description: str,
        refused: Collection[str] = (),
    ) -> T:
        from . import flags

        self.config = default
        self.config = config = flags.parse(default, words, prog, description, refused)
        self.complete = True
        return config


def _known(words: list[str]) -> argparse.Namespace | None:
    """Returns --data, --label and --task; None without a path of data."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--label")
    parser.add_argument("--task")
    try:
        known, _ = parser.parse_known_args(words)
        if known.data is None:
            return None
        known.data = known.data.expanduser()
    # The flags are read again, with better words.
    except (argparse.ArgumentError, RuntimeError):
        return None
    return known


def _look(words: list[str]) -> "Look | None":
    """Returns what the images that --data names look like; None if it names none."""
    known = _known(words)
    if known is None:
        return None
    from ..data import images

    try:
        return images.look(known.data)
    # The run reads the folder again, and says what is wrong with it.
    except (UserError, OSError):
        return None


def _table(words: list[str]) -> "Table | None":
    """Returns what can be inferred from the table that --data names; None if it names none."""
    known = _known(words)
    if known is None:
        return None
    from ..data import csv_check, inference

    if not inference.is_table(known.data):
        return None
    if known.label is None:
        names = ", ".join(csv_check.header(known.data))
        raise UsageError(
            f"a table needs the name of the column to predict. Add --label, with one of {names}."
        )
    task = known.task if known.task in get_args(inference.Task) else None
    return inference.infer(known.data, known.label, task)
