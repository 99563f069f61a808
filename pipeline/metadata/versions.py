"""The models pushed for serving, and the way back to an earlier one.

TensorFlow Serving takes the highest integer folder under the pushed one and ignores names that are
no integers, so an earlier model is served again when a copy of it has a higher number.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from components.serving_pusher import versions as serving

from ..runners import lock
from . import record
from . import store as metadata
from .store import Execution, Records

ROLLBACK = "plateau.Rollback"
"""Type of the executions that ML Metadata has of rollbacks."""

BLESS = "plateau.Bless"
"""Type of the executions that ML Metadata has of pushes by hand."""


@dataclass(frozen=True)
class RollbackConfig:
    """What `plateau rollback` needs to know.

    Attributes:
        version: Version to serve again; if not given, the newest one before the present model
            that holds another model.
        output: Output folder of the runs; if not given, the one under ./runs that has a pushed
            model.
        yes: Do not ask for confirmation.
    """

    version: Annotated[tyro.conf.Positional[int | None], tyro.conf.arg(metavar="[VERSION]")] = None
    output: Path | None = None
    yes: bool = False


@dataclass(frozen=True)
class Version:
    """A model that lies in the pushed folder.

    Attributes:
        number: The folder's name, by which TensorFlow Serving knows it.
        path: The folder.
        origin: Version it is a copy of; its own number if a run pushed it.
        model: Id of the Model in ML Metadata; None if no run and no rollback pushed it.
        run: Id of the run that pushed the model; empty if none did.
        since: When it was put there; None if ML Metadata does not know.
    """

    number: int
    path: Path
    origin: int
    model: int | None = None
    run: str = ""
    since: datetime | None = None

    @property
    def intact(self) -> bool:
        """Whether it holds a SavedModel."""
        return (self.path / "saved_model.pb").is_file()


@dataclass(frozen=True)
class Rollback:
    """A rollback that can be done.

    Attributes:
        output: Output folder.
        served: What is served at present.
        target: What is to be served again.
    """

    output: Path
    served: Version
    target: Version


@dataclass(frozen=True)
class _Push:
    """What ML Metadata says of a version."""

    execution: Execution
    artifact: int | None
    model: int | None
    origin: int


def folder_of(output: Path) -> Path:
    """The folder that TensorFlow Serving watches."""
    return output / "pushed"


def versions(records: Records, output: Path) -> tuple[Version, ...]:
    """The versions that lie in the pushed folder, the lowest number first.

    Args:
        records: ML Metadata of the output folder.
        output: Output folder.
    """
    pushes = _pushes(records)
    found = []
    for number, path in sorted(serving.versions(folder_of(output)).items()):
        push = pushes.get(number)
        if push is None:
            found.append(Version(number, path, number))
            continue
        origin = pushes.get(push.origin, push)
        found.append(
            Version(
                number,
                path,
                push.origin,
                push.model,
                _run_of(origin.execution),
                push.execution.began,
            )
        )
    return tuple(found)


def served(records: Records, output: Path) -> Version | None:
    """The version that TensorFlow Serving takes; None if there is none."""
    return max(versions(records, output), key=lambda version: version.number, default=None)


def plan(output: Path, wanted: int | None = None) -> Rollback:
    """Find what to go back to.

    A copy that an earlier rollback made counts as the version it was made from, so that one
    rollback after another goes further back instead of to and fro.

    Args:
        output: Output folder.
        wanted: Version to serve again; if None, the newest before the present model that holds
            another model.

    Raises:
        ValueError: No model is pushed, or there is no such version, or none before the present
            model, or the version is damaged or is being served already.
    """
    records = metadata.read(metadata.store_of(output))
    there = versions(records, output)
    if not there:
        raise ValueError(
            f"a rollback needs a pushed model, found none in {folder_of(output)}. "
            "Push one with `plateau run`, or name another folder with --output."
        )
    present = there[-1]
    known = {version.number: version for version in there if version.model is not None}
    listed = f"Versions there: {', '.join(map(str, known)) or 'none that a run pushed'}."
    if wanted is None:
        target = _before(present, known)
        if target is None:
            raise ValueError(
                "a rollback needs an earlier version of another model than the present one, got "
                f"none before {_name(present)} in {folder_of(output)}. Push another model with "
                f"`plateau run`, or name a version. {listed}"
            )
    elif wanted not in known:
        raise ValueError(
            f"VERSION must be one that was pushed to {folder_of(output)} and is still there, "
            f"got {wanted}. {listed}"
        )
    else:
        target = known[wanted]
        if present == target or (present.model == target.model and present.intact):
            raise ValueError(
                f"VERSION must hold another model than the one served, got {wanted}, whose model "
                f"is served already as {present.number}. {listed}"
            )
    if not target.intact:
        raise ValueError(
            f"a pushed model must hold saved_model.pb, got {target.path} without one: it is "
            f"damaged. Name another version: `plateau rollback VERSION`. {listed}"
        )
    return Rollback(output, present, target)


def apply(rollback: Rollback, now: Callable[[], float] = time.time) -> Version:
    """Serve an earlier model again: copy it to a higher version, and record that.

    The copy is whole or not there at all, and nothing is deleted. Its number is the time, or the
    next free one where the clock is behind the versions.

    Args:
        rollback: What `plan` found.
        now: The clock, in seconds since 1970.

    Returns:
        The new version.

    Raises:
        lock.OutputBusyError: A run is using the output folder.
        ValueError: Another version is served by now than when the rollback was planned.
        OSError: The copy cannot be written.
    """
    output, target = rollback.output, rollback.target
    try:
        with lock.hold(output):
            if plan(output, rollback.target.number) != rollback:
                raise ValueError(
                    f"a rollback must start from the version it was planned for, got a change in "
                    f"{folder_of(output)} meanwhile. Look with `plateau runs`, and try again."
                )
            place = metadata.store_of(output)
            records = metadata.read(place)
            source = _pushes(records)[target.number]
            number = next_version(records, output, now)
            destination = folder_of(output) / str(number)
            store = metadata.connect(place, write=True)
            execution = record.begin(
                store,
                ROLLBACK,
                {
                    "pushed_version": number,
                    "source_version": target.number,
                    "origin_version": target.origin,
                    "replaced_version": rollback.served.number,
                },
                {"pushed_model": source.artifact, "model": source.model},
                beside=source.execution.id,
            )
            try:
                serving.copy(target.path, destination)
            except BaseException:
                if not destination.exists():
                    record.fail(store, execution)
                raise
            pushed = record.pushed(store, destination.resolve())
            record.complete(store, execution, [("pushed_model", pushed)])
    except lock.OutputBusyError as busy:
        raise lock.OutputBusyError(
            f"a rollback needs the output folder to itself, and a run is using {output}. "
            "Wait for its end, and try again."
        ) from busy
    return Version(number, destination, target.origin, target.model, target.run, datetime.now())


def next_version(records: Records, output: Path, now: Callable[[], float] = time.time) -> int:
    """The number of the next version: the time, or the next free one.

    Args:
        records: ML Metadata of the output folder.
        output: Output folder.
        now: The clock, in seconds since 1970.
    """
    # A version that is gone may still be loaded where it was served.
    free = serving.next_version(serving.versions(folder_of(output)), now)
    return max([free, *(number + 1 for number in _pushes(records))])


def _before(present: Version, known: dict[int, Version]) -> Version | None:
    """The newest version that a run pushed before the present model, and that holds another."""
    candidates = [
        version
        for version in known.values()
        if version.number == version.origin < present.origin
        and (present.model is None or version.model != present.model)
    ]
    return max(candidates, key=lambda version: version.number, default=None)


def _name(version: Version) -> str:
    copied = version.origin != version.number
    return f"{version.number} (a copy of {version.origin})" if copied else str(version.number)


def _run_of(execution: Execution) -> str:
    """The run that a push belongs to; one by hand belongs to that which trained the model."""
    return execution.run or str(execution.properties.get("run", ""))


def by_hand(records: Records) -> dict[str, Execution]:
    """The pushes by hand, by the run that trained the model; the last of each."""
    return {
        _run_of(execution): execution
        for execution in records.executions.values()
        if execution.type == BLESS and execution.state == "complete"
    }


def _pushes(records: Records) -> dict[int, _Push]:
    """What ML Metadata says of each version, whether it still lies there or not."""
    pushes: dict[int, _Push] = {}
    for execution in records.executions.values():
        model = next((a.id for _, a in records.inputs(execution) if a.type == "Model"), None)
        if execution.type in (ROLLBACK, BLESS):
            # One that was killed after its last step has no output, and its copy is served.
            if execution.state != "failed":
                source = next(iter(execution.inputs.get("pushed_model", ())), None)
                number = int(execution.properties["pushed_version"])
                origin = int(execution.properties.get("origin_version", number))
                pushes.setdefault(number, _Push(execution, source, model, origin))
        elif execution.state == "complete":
            for _, artifact in records.outputs(execution):
                version = pushed_version(artifact)
                if version is not None:
                    # The first push of a version is the one whose files lie there.
                    pushes.setdefault(version, _Push(execution, artifact.id, model, version))
    return pushes


def pushed_version(artifact: metadata.Artifact) -> int | None:
    """The version that a PushedModel was pushed as; None if it was not, or is none."""
    if artifact.type != "PushedModel" or artifact.properties.get("pushed") != 1:
        return None
    version = str(artifact.properties.get("pushed_version", ""))
    return int(version) if version.isdecimal() else None
