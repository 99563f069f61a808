"""The models pushed for serving, and the way back to an earlier one.

TensorFlow Serving takes the highest integer folder under the pushed one and ignores names that are
no integers, so an earlier model is served again when a copy of it has a higher number.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from components.serving_pusher import logic as serving
from pipeline import metadata, run_lock
from pipeline.metadata import Execution, Records

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore

ROLLBACK = "plateau.Rollback"
"""Type of the executions that ML Metadata has of rollbacks."""


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
    artifact: int
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
                number, path, push.origin, push.model, origin.execution.run, push.execution.began
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
        run_lock.OutputBusyError: A run is using the output folder.
        ValueError: Another version is served by now than when the rollback was planned.
        OSError: The copy cannot be written.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    output = rollback.output
    try:
        with run_lock.hold(output):
            if plan(output, rollback.target.number) != rollback:
                raise ValueError(
                    f"a rollback must start from the version it was planned for, got a change in "
                    f"{folder_of(output)} meanwhile. Look with `plateau runs`, and try again."
                )
            recorded = metadata.store_of(output)
            pushes = _pushes(metadata.read(recorded))
            # A version that is gone may still be loaded where it was served.
            free = serving.next_version(serving.versions(folder_of(output)), now)
            number = max(free, max(pushes) + 1)
            destination = folder_of(output) / str(number)
            store = metadata.connect(recorded, write=True)
            execution = _begin(store, rollback, pushes[rollback.target.number], number)
            try:
                serving.copy(rollback.target.path, destination)
            except BaseException:
                if not destination.exists():
                    _end(store, execution, mlmd.Execution.FAILED)
                raise
            _end(store, execution, mlmd.Execution.COMPLETE, destination.resolve())
    except run_lock.OutputBusyError as busy:
        raise run_lock.OutputBusyError(
            f"a rollback needs the output folder to itself, and a run is using {output}. "
            "Wait for its end, and try again."
        ) from busy
    target = rollback.target
    return Version(number, destination, target.origin, target.model, target.run, datetime.now())


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


def _pushes(records: Records) -> dict[int, _Push]:
    """What ML Metadata says of each version, whether it still lies there or not."""
    pushes: dict[int, _Push] = {}
    for execution in records.executions.values():
        model = next((a.id for _, a in records.inputs(execution) if a.type == "Model"), None)
        if execution.type == ROLLBACK:
            # One that was killed after its last step has no output, and its copy is served.
            if execution.state != "failed":
                source = next(iter(execution.inputs.get("pushed_model", ())), 0)
                number = int(execution.properties["pushed_version"])
                origin = int(execution.properties["origin_version"])
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


def _begin(store: "MetadataStore", rollback: Rollback, push: _Push, number: int) -> int:
    """Record that a rollback has begun; the id of its execution."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    execution = mlmd.Execution(
        type_id=store.put_execution_type(mlmd.ExecutionType(name=ROLLBACK)),
        last_known_state=mlmd.Execution.RUNNING,
    )
    for name, value in (
        ("pushed_version", number),
        ("source_version", rollback.target.number),
        ("origin_version", rollback.target.origin),
        ("replaced_version", rollback.served.number),
    ):
        execution.custom_properties[name].int_value = value
    sources = {"pushed_model": push.artifact, "model": push.model}
    keys = {id: key for key, id in sources.items() if id is not None}
    # The pipeline's context only: TFX finds by it what belongs to the pipeline.
    contexts = store.get_contexts_by_execution(push.execution.id)
    identity, _, _ = store.put_execution(
        execution,
        [
            (artifact, _event(mlmd.Event.INPUT, keys[artifact.id], artifact.id))
            for artifact in store.get_artifacts_by_id(list(keys))
        ],
        [context for context in contexts if context.type == "pipeline"],
        force_reuse_context=True,
    )
    return int(identity)


def _end(
    store: "MetadataStore", execution: int, state: int, destination: Path | None = None
) -> None:
    """Record what became of a rollback, and the model it pushed if it did."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    [proto] = store.get_executions_by_id([execution])
    proto.last_known_state = state
    outputs = []
    if destination is not None:
        artifact = mlmd.Artifact(
            type_id=store.get_artifact_type("PushedModel").id,
            uri=str(destination),
            state=mlmd.Artifact.LIVE,
        )
        artifact.custom_properties["pushed"].int_value = 1
        artifact.custom_properties["pushed_destination"].string_value = str(destination)
        artifact.custom_properties["pushed_version"].string_value = destination.name
        outputs.append((artifact, _event(mlmd.Event.OUTPUT, "pushed_model")))
    contexts = store.get_contexts_by_execution(execution)
    store.put_execution(proto, outputs, contexts, force_reuse_context=True)


def _event(kind: int, key: str, artifact: int | None = None) -> object:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    event = mlmd.Event(type=kind, artifact_id=artifact)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event
