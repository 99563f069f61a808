"""Pushed versions of a model: which is served, and the rollback to an earlier one.

TensorFlow Serving takes the highest integer folder under the pushed one and ignores names that are
no integers, so an earlier model is served again when a copy of it has a higher number.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.serving_pusher import versions as serving
from trainer_module.util.checks import UserError, require

from . import store
from .store import Artifact, Execution, Records, Scalar

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore

ROLLBACK = "plateau.Rollback"
"""Type of the executions that record rollbacks."""

BLESS = "plateau.Bless"
"""Type of the executions that record pushes by hand."""


@dataclass(frozen=True)
class Version:
    """Model in the pushed folder."""

    number: int
    """The folder's name, by which TensorFlow Serving knows it."""
    path: Path
    origin: int
    """Version it is a copy of; its own number if it is no copy."""
    model: int | None = None
    """Id of the Model in ML Metadata; None if no run and no rollback pushed it."""
    run: str = ""
    """Id of the run that pushed the model; empty if none did."""
    since: datetime | None = None
    """When it was pushed; None if ML Metadata does not know."""

    @property
    def intact(self) -> bool:
        """Whether it holds a SavedModel."""
        return (self.path / "saved_model.pb").is_file()

    def __str__(self) -> str:
        """Returns the number, and that of the original of a copy."""
        copy = f" (a copy of {self.origin})" if self.origin != self.number else ""
        return f"{self.number}{copy}"


@dataclass(frozen=True)
class Rollback:
    """Rollback that is possible."""

    output: Path
    served: Version
    """Version that is served at present."""
    target: Version
    """Version to serve again."""


@dataclass(frozen=True)
class _Push:
    """Record of a version in ML Metadata."""

    execution: Execution
    artifact: int | None
    model: int | None
    origin: int


def folder_of(output: Path) -> Path:
    """Returns the folder that TensorFlow Serving watches."""
    return output / "pushed"


def versions(records: Records, output: Path) -> tuple[Version, ...]:
    """Returns the versions in the pushed folder, the lowest number first."""
    pushes = _pushes(records)
    listed = []
    for number, path in sorted(serving.versions(folder_of(output)).items()):
        push = pushes.get(number)
        if push is None:
            listed.append(Version(number, path, number))
            continue
        run = _run_of(pushes.get(push.origin, push).execution)
        since = push.execution.began
        listed.append(Version(number, path, push.origin, push.model, run, since))
    return tuple(listed)


def served(records: Records, output: Path) -> Version | None:
    """Returns the version that TensorFlow Serving takes; None if there is none."""
    return max(versions(records, output), key=lambda version: version.number, default=None)


def plan(output: Path, wanted: int | None = None) -> Rollback:
    """Returns the rollback to a version.

    A copy that an earlier rollback made counts as the version it was made from, so that consecutive
    rollbacks move further back.

    Args:
        output: Output folder.
        wanted: Version; if None, the newest before the present model that holds another model.
    """
    folder = folder_of(output)
    listed = versions(store.read(store.store_of(output)), output)
    require(
        listed != (),
        "a rollback needs a pushed model",
        f"none in {folder}",
        "Push one with `plateau run`, or name another folder with `output`.",
    )
    present = listed[-1]
    known = {version.number: version for version in listed if version.model is not None}
    names = f"Versions there: {', '.join(map(str, known)) or 'none that a run pushed'}."
    target = _before(present, known) if wanted is None else known.get(wanted)
    if target is None:
        if wanted is None:
            raise UserError(
                "a rollback needs an earlier version of another model than the present one",
                f"none before {present} in {folder}",
                f"Push another model with `plateau run`, or name a version. {names}",
            )
        raise UserError(f"VERSION must be one that was pushed to {folder}", wanted, names)
    require(
        present != target and (present.model != target.model or not present.intact),
        "VERSION must hold another model than the one served",
        f"{wanted}, whose model is served already as {present.number}",
        names,
    )
    require(
        target.intact,
        "a pushed model must hold saved_model.pb",
        f"{target.path} without one",
        f"It is damaged: name another version, `plateau rollback VERSION`. {names}",
    )
    return Rollback(output, present, target)


def apply(rollback: Rollback, now: Callable[[], float] = time.time) -> Version:
    """Serves an earlier model again: copies it to a higher version, and records that.

    The copy is atomic, and nothing is deleted. The caller holds the output folder's lock.
    """
    output, target = rollback.output, rollback.target
    require(
        plan(output, target.number) == rollback,
        "a rollback must start from the version it was planned for",
        f"a change in {folder_of(output)} meanwhile",
        "Look with `plateau runs`, and try again.",
    )
    records = store.read(store.store_of(output))
    source = _pushes(records)[target.number]
    destination = push_copy(
        records,
        output,
        target.path,
        ROLLBACK,
        {
            "source_version": target.number,
            "origin_version": target.origin,
            "replaced_version": rollback.served.number,
        },
        inputs={"pushed_model": source.artifact, "model": source.model},
        sibling=source.execution,
        now=now,
    )
    number = int(destination.name)
    return Version(number, destination, target.origin, target.model, target.run, datetime.now())


def push_copy(
    records: Records,
    output: Path,
    source: Path,
    kind: str,
    properties: Mapping[str, Scalar],
    *,
    inputs: Mapping[str, int | None],
    sibling: Execution,
    blessing: Mapping[str, Scalar] | None = None,
    now: Callable[[], float] = time.time,
) -> Path:
    """Copies a model to the next version, and records that as an execution in ML Metadata.

    Args:
        records: ML Metadata of the output folder.
        output: Output folder. The caller holds its lock.
        source: Folder of the SavedModel.
        kind: Type of the execution.
        properties: Its custom properties.
        inputs: Ids of the artifacts it reads, by key; None for one that is not known.
        sibling: Execution of the pipeline that this one belongs to.
        blessing: Custom properties of the ModelBlessing to make, if any.
        now: Seconds since 1970, from which the version's number is made.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    # A version that was deleted may still be loaded where it was served.
    free = serving.next_version(serving.versions(folder_of(output)), now)
    number = max([free, *(number + 1 for number in _pushes(records))])
    destination = folder_of(output) / str(number)
    opened = store.connect(store.store_of(output), write=True)
    execution = mlmd.Execution(
        type_id=opened.put_execution_type(mlmd.ExecutionType(name=kind)),
        last_known_state=mlmd.Execution.RUNNING,
    )
    _set(execution, {"pushed_version": number, **properties})
    keys = {id: key for key, id in inputs.items() if id is not None}
    read = [
        (artifact, _event(mlmd.Event.INPUT, keys[artifact.id], artifact.id))
        for artifact in opened.get_artifacts_by_id(list(keys))
    ]
    # The pipeline's context only: TFX finds by it what belongs to the pipeline.
    contexts = [c for c in opened.get_contexts_by_execution(sibling.id) if c.type == "pipeline"]
    execution.id = opened.put_execution(execution, read, contexts, force_reuse_context=True)[0]
    try:
        serving.copy(source, destination)
    except BaseException:
        if not destination.exists():
            _end(opened, execution, mlmd.Execution.FAILED, {})
        raise
    path = str(destination.resolve())
    pushed = {"pushed": 1, "pushed_destination": path, "pushed_version": destination.name}
    outputs = {"pushed_model": _artifact(opened, "PushedModel", path, pushed)}
    if blessing is not None:
        verdict = output.resolve() / "artifacts" / "Bless" / "blessing" / str(execution.id)
        verdict.mkdir(parents=True)
        (verdict / "BLESSED").touch()
        outputs["blessing"] = _artifact(opened, "ModelBlessing", str(verdict), blessing)
    _end(opened, execution, mlmd.Execution.COMPLETE, outputs)
    return destination


def by_hand(records: Records) -> dict[str, Execution]:
    """Returns the last push by hand of each run, by the run that trained the model."""
    return {
        _run_of(execution): execution
        for execution in records.executions.values()
        if execution.type == BLESS and execution.state == "complete"
    }


def pushed_version(artifact: Artifact) -> int | None:
    """Returns the version that a PushedModel was pushed as; None if it was not, or is none."""
    if artifact.type != "PushedModel" or artifact.properties.get("pushed") != 1:
        return None
    version = str(artifact.properties.get("pushed_version", ""))
    return int(version) if version.isdecimal() else None


def _before(present: Version, known: Mapping[int, Version]) -> Version | None:
    """Returns the newest original before the present model that holds another one."""
    candidates = [
        version
        for version in known.values()
        if version.number == version.origin < present.origin
        and (present.model is None or version.model != present.model)
    ]
    return max(candidates, key=lambda version: version.number, default=None)


def _run_of(execution: Execution) -> str:
    """Returns the run of a push; for one by hand, the run that trained the model."""
    return execution.run or str(execution.properties.get("run", ""))


def _pushes(records: Records) -> dict[int, _Push]:
    """Returns the record of each version, whether its folder still exists or not."""
    pushes: dict[int, _Push] = {}
    for execution in records.executions.values():
        inputs = dict(execution.inputs)
        model = next((a.id for a in inputs.values() if a.type == "Model"), None)
        if execution.type in (ROLLBACK, BLESS):
            # One that was killed after its last step has no output, and its copy is served.
            if execution.state != "failed":
                source = inputs["pushed_model"].id if "pushed_model" in inputs else None
                number = int(execution.properties["pushed_version"])
                origin = int(execution.properties.get("origin_version", number))
                pushes.setdefault(number, _Push(execution, source, model, origin))
        elif execution.state == "complete":
            for _, artifact in execution.outputs:
                version = pushed_version(artifact)
                if version is not None:
                    # The first push of a version is the one whose files its folder holds.
                    pushes.setdefault(version, _Push(execution, artifact.id, model, version))
    return pushes


def _end(opened: "MetadataStore", execution: Any, state: int, outputs: Mapping[str, Any]) -> None:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    execution.last_known_state = state
    made = [(artifact, _event(mlmd.Event.OUTPUT, key)) for key, artifact in outputs.items()]
    contexts = opened.get_contexts_by_execution(execution.id)
    opened.put_execution(execution, made, contexts, force_reuse_context=True)


def _artifact(opened: "MetadataStore", kind: str, uri: str, properties: Any) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    artifact = mlmd.Artifact(
        type_id=opened.get_artifact_type(kind).id, uri=uri, state=mlmd.Artifact.LIVE
    )
    _set(artifact, properties)
    return artifact


def _event(kind: int, key: str, artifact: int | None = None) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    event = mlmd.Event(type=kind, artifact_id=artifact)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event


def _set(proto: Any, properties: Mapping[str, Scalar]) -> None:
    for name, value in properties.items():
        kind = "int_value" if isinstance(value, int) else "string_value"
        setattr(proto.custom_properties[name], kind, value)
