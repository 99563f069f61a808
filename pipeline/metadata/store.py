"""ML Metadata of an output folder: opened, and read as plain values."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

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
    """Something an execution made.

    Attributes:
        id: Its number in ML Metadata.
        type: Name of its type, such as Model.
        uri: Where it lies.
        properties: Properties and custom properties, by name.
    """

    id: int
    type: str
    uri: str
    properties: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """One component in one run, or something else that was done to artifacts.

    Attributes:
        id: Its number in ML Metadata.
        type: Name of its type; for a component its Python path.
        state: What became of it. One that was killed stays "running".
        began: When it was registered, local time.
        seconds: From its registration to its last change; 0 if the clock was set back meanwhile.
        component: The component's id in the pipeline; empty if it was none.
        run: Id of the pipeline run; empty if it was part of none.
        properties: Properties and custom properties, by name: a component's parameters.
        inputs: Ids of artifacts, by key.
        outputs: Ids of artifacts, by key.
    """

    id: int
    type: str
    state: State
    began: datetime
    seconds: float
    component: str = ""
    run: str = ""
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineRun:
    """One run of a pipeline.

    Attributes:
        id: Its name in ML Metadata; TFX's and ours are ISO times.
        began: When it was registered, local time.
        pipeline: Name of the pipeline; empty if nothing was executed.
        executions: In the order they began.
    """

    id: str
    began: datetime
    pipeline: str
    executions: tuple[Execution, ...]


@dataclass(frozen=True)
class Records:
    """All that ML Metadata holds of an output folder.

    Attributes:
        artifacts: By id.
        executions: By id, in the order they began.
        runs: In the order they began.
    """

    artifacts: Mapping[int, Artifact]
    executions: Mapping[int, Execution]
    runs: tuple[PipelineRun, ...]

    @cached_property
    def _makers(self) -> Mapping[int, Execution]:
        makers: dict[int, Execution] = {}
        for execution in self.executions.values():
            if execution.state != "cached":
                for artifact in _flat(execution.outputs):
                    makers.setdefault(artifact, execution)
        return makers

    def maker(self, artifact: int) -> Execution | None:
        """The execution that made an artifact, not one that found it in the cache."""
        return self._makers.get(artifact)

    def inputs(self, execution: Execution) -> Iterator[tuple[str, Artifact]]:
        """The artifacts that an execution read, with their keys."""
        return self._known(execution.inputs)

    def outputs(self, *executions: Execution) -> Iterator[tuple[str, Artifact]]:
        """The artifacts that executions made or found in the cache, with their keys."""
        for execution in executions:
            yield from self._known(execution.outputs)

    def _known(self, keyed: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Artifact]]:
        for key, ids in keyed.items():
            yield from ((key, self.artifacts[id]) for id in ids if id in self.artifacts)


def file_of(output: Path) -> Path:
    """The ML Metadata of all runs in an output folder that has no database."""
    return output / FILE_NAME


def store_of(output: Path) -> Store:
    """Where the runs in an output folder are recorded.

    Raises:
        ValueError: The file that names its database is damaged.
    """
    return database.remembered(output) or file_of(output)


def is_there(output: Path) -> bool:
    """Whether runs were recorded for an output folder."""
    return file_of(output).is_file() or (output / database.FILE_NAME).is_file()


@contextlib.contextmanager
def ready(config: database.MetadataConfig, output: Path) -> Iterator[Store]:
    """Choose where a run is recorded, and have it ready for TFX within the context.

    Args:
        config: The flags.
        output: Output folder. The caller holds its lock.

    Raises:
        ValueError: The database cannot be used, or the flags do not fit the output folder.
    """
    file = file_of(output)
    found = database.chosen(config, output, file)
    if found is None:
        yield file
        return
    with database.ready(found, output):
        yield found


def mark(name: str, store: Store | None) -> str:
    """A name that, where output folders share a database, no other one of them has."""
    return store.mark(name) if isinstance(store, Database) else name


def connection(store: Store) -> "ConnectionConfig":
    """How TFX opens ML Metadata: for writing, made where it is not there."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    if isinstance(store, Database):
        return database.connection(store)
    found = mlmd.ConnectionConfig()
    found.sqlite.filename_uri = str(store)
    found.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return found


def connect(store: Store, *, write: bool = False) -> "MetadataStore":
    """Open ML Metadata.

    Args:
        store: Where it is.
        write: Open it for writing too. The caller holds the output folder's lock.

    Raises:
        ValueError: There is no such file, it is no ML Metadata, or the database cannot be used.
    """
    if isinstance(store, Database):
        return database.connect(store)
    return _connect(store, write)


def plain(error: Exception, store: Store) -> Exception:
    """An error in plain words, where it means that a database was lost; else the error itself."""
    found = database.lost(error, store) if isinstance(store, Database) else None
    return found or error


def _connect(file: Path, write: bool) -> "MetadataStore":
    from ml_metadata import errors
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    if not file.is_file():
        raise ValueError(
            f"an output folder must hold the {FILE_NAME} of a run, found none in {file.parent}. "
            "Start a run with `plateau run`, or name another folder with --output."
        )
    modes = mlmd.SqliteMetadataSourceConfig
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(file)
    connection.sqlite.connection_mode = modes.READWRITE if write else modes.READONLY
    try:
        return MetadataStore(connection)
    except (errors.StatusError, RuntimeError) as error:
        raise ValueError(
            f"{FILE_NAME} must be ML Metadata that can be {'written' if write else 'read'}, got "
            f"{file} ({error}). Name another folder with --output."
        ) from error


def artifacts(opened: "MetadataStore", store: Store) -> "list[mlmd.Artifact]":
    """All artifacts; of a database, those of one output folder.

    Args:
        opened: ML Metadata, opened.
        store: Where it is.
    """
    if not isinstance(store, Database):
        return list(opened.get_artifacts())
    pipelines = [c.id for c in opened.get_contexts_by_type("pipeline") if store.owns(c.name)]
    found = {a.id: a for id in pipelines for a in opened.get_artifacts_by_context(id)}
    return list(found.values())


def artifact(proto: "mlmd.Artifact") -> Artifact:
    """An artifact as plain values."""
    return Artifact(proto.id, proto.type, proto.uri, _properties(proto))


def read(store: Store) -> Records:
    """Read everything; of a database, everything of one output folder.

    Raises:
        ValueError: As `connect`, or the connection was lost.
    """
    if not isinstance(store, Database):
        return _read(connect(store), None)
    opened = connect(store)
    with database.quiet():
        from ml_metadata import errors

        try:
            return _read(opened, store)
        except errors.StatusError as error:
            raise ValueError(
                f"the database of ML Metadata must answer, got {error} from {store}. "
                "Check that its server runs, and try again."
            ) from error


def _read(store: "MetadataStore", shared: Database | None) -> Records:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    def ours(kind: str) -> list[Any]:
        found = store.get_contexts_by_type(kind)
        if shared is None:
            return list(found)
        # A node's name is that of its pipeline and its own.
        names = {c.id: c.name.rpartition(".")[0] if kind == "node" else c.name for c in found}
        return [context for context in found if shared.owns(names[context.id])]

    # A run may be writing meanwhile: what is referred to is read after what refers to it.
    runs = sorted(ours("pipeline_run"), key=lambda context: context.id)
    run_of = {e.id: run.name for run in runs for e in store.get_executions_by_context(run.id)}
    node_of = {
        e.id: node.name.rpartition(".")
        for node in ours("node")
        for e in store.get_executions_by_context(node.id)
    }
    if shared is None:
        listed = store.get_executions()
    else:
        pipelines = [store.get_executions_by_context(c.id) for c in ours("pipeline")]
        listed = {e.id: e for found in pipelines for e in found}.values()
    protos = sorted(listed, key=lambda e: e.id)
    inputs: dict[int, dict[str, tuple[int, ...]]] = {}
    outputs: dict[int, dict[str, tuple[int, ...]]] = {}
    events = store.get_events_by_execution_ids([e.id for e in protos]) if protos else ()
    for event in events:
        kinds = {mlmd.Event.INPUT: inputs, mlmd.Event.OUTPUT: outputs}
        # What a Resolver found is an INTERNAL_OUTPUT, made by others.
        if event.type in kinds:
            keyed = kinds[event.type].setdefault(event.execution_id, {})
            # An artifact that is there under two keys has one event, with both in its path.
            for key in [step.key for step in event.path.steps if step.HasField("key")]:
                keyed[key] = (*keyed.get(key, ()), event.artifact_id)
    executions = {
        proto.id: Execution(
            id=proto.id,
            type=proto.type,
            state=mlmd.Execution.State.Name(proto.last_known_state).lower(),
            began=_time(proto.create_time_since_epoch),
            seconds=_seconds(proto),
            component=node_of.get(proto.id, ("", "", ""))[2],
            run=run_of.get(proto.id, ""),
            properties=_properties(proto),
            inputs=inputs.get(proto.id, {}),
            outputs=outputs.get(proto.id, {}),
        )
        for proto in protos
    }
    if shared is None:
        listed_artifacts = store.get_artifacts()
    else:
        ids = sorted({event.artifact_id for event in events})
        listed_artifacts = store.get_artifacts_by_id(ids)
    return Records(
        artifacts={proto.id: artifact(proto) for proto in listed_artifacts},
        executions=executions,
        runs=tuple(
            PipelineRun(
                id=run.name,
                began=_time(run.create_time_since_epoch),
                pipeline=next((node_of[e.id][0] for e in own if e.id in node_of), ""),
                executions=own,
            )
            for run in runs
            for own in [tuple(e for e in executions.values() if e.run == run.name)]
        ),
    )


def _flat(keyed: Mapping[str, tuple[int, ...]]) -> Iterator[int]:
    for ids in keyed.values():
        yield from ids


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000)


def _seconds(proto: Any) -> float:
    """From an execution's registration to its last change, by a clock that may have been set."""
    passed: int = proto.last_update_time_since_epoch - proto.create_time_since_epoch
    return max(0, passed) / 1000


def _properties(proto: Any) -> dict[str, Scalar]:
    """Properties and custom properties that are scalars."""
    found: dict[str, Scalar] = {}
    for values in (proto.properties, proto.custom_properties):
        for name in sorted(values):
            kind = values[name].WhichOneof("value")
            if kind in ("int_value", "double_value", "string_value", "bool_value"):
                found[name] = getattr(values[name], kind)
    return found
