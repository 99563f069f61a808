"""What a person did to a model, as an execution in ML Metadata: begun, and ended."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2 as mlmd


def begin(
    store: "MetadataStore",
    kind: str,
    properties: Mapping[str, int | str],
    inputs: Mapping[str, int | None],
    beside: int,
) -> int:
    """Records that something has begun.

    Args:
        store: ML Metadata, open for writing.
        kind: Type of the execution.
        properties: Its custom properties.
        inputs: Ids of the artifacts it reads, by key; None for one that is not known.
        beside: Id of an execution of the pipeline to which this one belongs too.

    Returns:
        The id of the execution.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    execution = mlmd.Execution(
        type_id=store.put_execution_type(mlmd.ExecutionType(name=kind)),
        last_known_state=mlmd.Execution.RUNNING,
    )
    _set(execution, properties)
    keys = {id: key for key, id in inputs.items() if id is not None}
    # The pipeline's context only: TFX finds by it what belongs to the pipeline.
    contexts = store.get_contexts_by_execution(beside)
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


def fail(store: "MetadataStore", execution: int) -> None:
    """Records that it failed."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    _end(store, execution, mlmd.Execution.FAILED, ())


def complete(
    store: "MetadataStore", execution: int, outputs: "Iterable[tuple[str, mlmd.Artifact]]"
) -> None:
    """Records that it is complete, and what it made.

    Args:
        store: ML Metadata, open for writing.
        execution: Its id.
        outputs: New artifacts with their keys, from `artifact`.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    _end(store, execution, mlmd.Execution.COMPLETE, outputs)


def artifact(
    store: "MetadataStore", kind: str, uri: str, properties: Mapping[str, int | str]
) -> "mlmd.Artifact":
    """Returns a new artifact of a type that the store knows."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    found = mlmd.Artifact(
        type_id=store.get_artifact_type(kind).id, uri=uri, state=mlmd.Artifact.LIVE
    )
    _set(found, properties)
    return found


def pushed(store: "MetadataStore", destination: Path) -> "mlmd.Artifact":
    """Returns a new PushedModel, as TFX's Pusher writes it."""
    properties: dict[str, int | str] = {
        "pushed": 1,
        "pushed_destination": str(destination),
        "pushed_version": destination.name,
    }
    return artifact(store, "PushedModel", str(destination), properties)


def _end(
    store: "MetadataStore", execution: int, state: int, outputs: "Iterable[tuple[str, Any]]"
) -> None:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    [proto] = store.get_executions_by_id([execution])
    proto.last_known_state = state
    made = [(artifact, _event(mlmd.Event.OUTPUT, key)) for key, artifact in outputs]
    contexts = store.get_contexts_by_execution(execution)
    store.put_execution(proto, made, contexts, force_reuse_context=True)


def _set(proto: Any, properties: Mapping[str, int | str]) -> None:
    for name, value in properties.items():
        kind = "int_value" if isinstance(value, int) else "string_value"
        setattr(proto.custom_properties[name], kind, value)


def _event(kind: int, key: str, artifact: int | None = None) -> object:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    event = mlmd.Event(type=kind, artifact_id=artifact)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event
