"""ML Metadata of an output folder: opened, and read as plain values."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from trainer_module.util.checks import UserError

from . import database
from .database import Database

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2 as mlmd
    from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

FILE_NAME = "metadata.sqlite"

Store: TypeAlias = Path | Database
"""Where runs are recorded: a SQLite file, or a database."""

Scalar: TypeAlias = int | float | str | bool
State: TypeAlias = Literal["unknown", "new", "running", "complete", "failed", "cached", "canceled"]


@dataclass(frozen=True)
class Artifact:
    """Artifact, with properties and custom properties by name."""

    id: int
    type: str
    uri: str
    properties: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """Execution of a component, or a rollback or push by hand."""

    id: int
    type: str
    """Name of its type; for a component its Python path."""
    state: State
    """Last known state. An execution that was killed stays "running"."""
    began: datetime
    """When it was registered, local time."""
    seconds: float
    """From its registration to its last change; 0 if the clock was set back meanwhile."""
    component: str = ""
    """The component's id in the pipeline; empty if it is none."""
    run: str = ""
    """Id of the pipeline run; empty if it is part of none."""
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    """Properties and custom properties, by name: a component's parameters."""
    inputs: tuple[tuple[str, Artifact], ...] = ()
    """Artifacts that it read, with their keys."""
    outputs: tuple[tuple[str, Artifact], ...] = ()
    """Artifacts that it made or took from the cache, with their keys."""


@dataclass(frozen=True)
class PipelineRun:
    """Run of a pipeline."""

    id: str
    """Its name in ML Metadata; TFX's and ours are ISO times."""
    began: datetime
    """When it was registered, local time."""
    pipeline: str
    """Name of the pipeline; empty if nothing was executed."""
    executions: tuple[Execution, ...]
    """In the order they began."""

    @property
    def outputs(self) -> tuple[tuple[str, Artifact], ...]:
        """The artifacts of all its executions, with their keys."""
        return tuple(output for execution in self.executions for output in execution.outputs)


@dataclass(frozen=True)
class Records:
    """Contents of the ML Metadata of an output folder, in the order they began."""

    artifacts: Mapping[int, Artifact]
    executions: Mapping[int, Execution]
    runs: tuple[PipelineRun, ...]

    @cached_property
    def _makers(self) -> Mapping[int, Execution]:
        makers: dict[int, Execution] = {}
        for execution in self.executions.values():
            if execution.state != "cached":
                for _, artifact in execution.outputs:
                    makers.setdefault(artifact.id, execution)
        return makers

    def maker(self, artifact: int) -> Execution | None:
        """Returns the execution that made an artifact, not one that took it from the cache."""
        return self._makers.get(artifact)

    def run(self, name: str) -> PipelineRun:
        """Returns the run of that id in ML Metadata."""
        return next(run for run in self.runs if run.id == name)


def file_of(output: Path) -> Path:
    """Returns the ML Metadata file of an output folder that has no database."""
    return output / FILE_NAME


def store_of(output: Path) -> Store:
    """Returns where the runs in an output folder are recorded."""
    return database.remembered(output) or file_of(output)


def is_there(output: Path) -> bool:
    """Returns True if runs were recorded for an output folder."""
    return file_of(output).is_file() or (output / database.FILE_NAME).is_file()


@contextlib.contextmanager
def ready(url: str | None, password_file: Path | None, output: Path) -> Iterator[Store]:
    """Chooses where a run is recorded, and lets TFX connect to it within the context.

    The caller holds the output folder's lock.
    """
    file = file_of(output)
    chosen = database.choose(url, password_file, output, has_file=file.exists())
    if chosen is None:
        yield file
        return
    with database.ready(chosen, output):
        yield chosen


def mark(name: str, store: Store | None) -> str:
    """Returns a name that no other output folder has in a database that several share."""
    return store.mark(name) if isinstance(store, Database) else name


def connection(store: Store, *, create: bool = True, write: bool = True) -> "ConnectionConfig":
    """Returns how TFX opens ML Metadata: by default for writing, made where it is missing."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    if isinstance(store, Database):
        return database.connection(store)
    mode = mlmd.SqliteMetadataSourceConfig
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(store)
    config.sqlite.connection_mode = (
        mode.READWRITE_OPENCREATE if create else mode.READWRITE if write else mode.READONLY
    )
    return config


def connect(store: Store, *, write: bool = False) -> "MetadataStore":
    """Opens ML Metadata; for writing, the caller holds the output folder's lock."""
    if isinstance(store, Database):
        return database.connect(store)
    from ml_metadata import errors
    from ml_metadata.metadata_store import MetadataStore

    if not store.is_file():
        raise UserError(
            f"the output folder must hold the {FILE_NAME} of a run",
            str(store.parent),
            "Start a run with `plateau run`, or name another folder with `output`.",
        )
    try:
        return MetadataStore(connection(store, create=False, write=write))
    except (errors.StatusError, RuntimeError) as error:
        raise UserError(
            f"{FILE_NAME} must be ML Metadata that can be {'written' if write else 'read'} "
            f"({error})",
            str(store),
            "Name another folder with `output`.",
        ) from error


def plain(error: Exception, store: Store) -> Exception:
    """Returns a readable error where a database was lost; else the error itself."""
    lost = database.lost(error, store) if isinstance(store, Database) else None
    return lost or error


def artifacts(opened: "MetadataStore", store: Store) -> "list[mlmd.Artifact]":
    """Returns all artifacts; of a database, those of one output folder."""
    if not isinstance(store, Database):
        return list(opened.get_artifacts())
    pipelines = [c.id for c in opened.get_contexts_by_type("pipeline") if store.owns(c.name)]
    return list({a.id: a for id in pipelines for a in opened.get_artifacts_by_context(id)}.values())


def artifact(proto: "mlmd.Artifact") -> Artifact:
    """Returns an artifact as plain values."""
    return Artifact(proto.id, proto.type, proto.uri, _properties(proto))


def read(store: Store) -> Records:
    """Reads everything; of a database, everything of one output folder."""
    opened = connect(store)
    if not isinstance(store, Database):
        return _read(opened, lambda name: True)
    from ml_metadata import errors

    with database.quiet():
        try:
            return _read(opened, store.owns)
        except errors.StatusError as error:
            raise UserError(
                f"the database of ML Metadata must answer ({error})",
                str(store),
                "Check that its server runs, and try again.",
            ) from error


def _read(store: "MetadataStore", owns: Callable[[str], bool]) -> Records:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    # A run may be writing meanwhile: what is referred to is read after what refers to it.
    runs = sorted(
        (c for c in store.get_contexts_by_type("pipeline_run") if owns(c.name)),
        key=lambda context: context.id,
    )
    run_of = {e.id: run.name for run in runs for e in store.get_executions_by_context(run.id)}
    # A node's name is that of its pipeline and its own.
    nodes = [(c.id, c.name.rpartition(".")) for c in store.get_contexts_by_type("node")]
    node_of = {
        execution.id: name
        for id, name in nodes
        if owns(name[0])
        for execution in store.get_executions_by_context(id)
    }
    pipelines = [c for c in store.get_contexts_by_type("pipeline") if owns(c.name)]
    protos = {e.id: e for c in pipelines for e in store.get_executions_by_context(c.id)}
    events = store.get_events_by_execution_ids(list(protos)) if protos else []
    ids = sorted({event.artifact_id for event in events})
    artifacts = {proto.id: artifact(proto) for proto in store.get_artifacts_by_id(ids)}

    linked: defaultdict[tuple[int, int], list[tuple[str, Artifact]]] = defaultdict(list)
    for event in events:
        # An artifact under two keys has one event, with both in its path. What a Resolver returned
        # is an INTERNAL_OUTPUT, made by others.
        for step in event.path.steps:
            if step.HasField("key") and event.artifact_id in artifacts:
                pair = step.key, artifacts[event.artifact_id]
                linked[event.execution_id, event.type].append(pair)
    executions = {
        id: Execution(
            id=id,
            type=proto.type,
            state=mlmd.Execution.State.Name(proto.last_known_state).lower(),
            began=_time(proto.create_time_since_epoch),
            # The clock may have been set back.
            seconds=max(0, proto.last_update_time_since_epoch - proto.create_time_since_epoch)
            / 1000,
            component=node_of.get(id, ("", "", ""))[2],
            run=run_of.get(id, ""),
            properties=_properties(proto),
            inputs=tuple(linked[id, mlmd.Event.INPUT]),
            outputs=tuple(linked[id, mlmd.Event.OUTPUT]),
        )
        for id, proto in sorted(protos.items())
    }
    return Records(artifacts, executions, tuple(_run(run, executions, node_of) for run in runs))


def _run(
    context: Any, executions: Mapping[int, Execution], node_of: Mapping[int, Any]
) -> PipelineRun:
    own = tuple(e for e in executions.values() if e.run == context.name)
    pipeline = next((node_of[e.id][0] for e in own if e.id in node_of), "")
    return PipelineRun(context.name, _time(context.create_time_since_epoch), pipeline, own)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000)


def _properties(proto: Any) -> dict[str, Scalar]:
    """Returns properties and custom properties that are scalars."""
    scalars: dict[str, Scalar] = {}
    for values in (proto.properties, proto.custom_properties):
        for name in sorted(values):
            kind = values[name].WhichOneof("value")
            if kind in ("int_value", "double_value", "string_value", "bool_value"):
                scalars[name] = getattr(values[name], kind)
    return scalars
