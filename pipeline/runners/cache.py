"""Marks of deleted artifacts, so that neither the cache nor a Resolver returns them."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from ..metadata import store as metadata
from ..metadata.store import Artifact, Store

_log = logging.getLogger(__name__)

# Transform keeps nothing where it has analysed nothing, and Pusher where it has pushed nothing.
_MAY_BE_EMPTY = frozenset({"TransformCache", "PushedModel"})


def mark_deleted(store: Store) -> tuple[Artifact, ...]:
    """Marks artifacts that were deleted from the disk as deleted in ML Metadata.

    TFX itself checks only that a folder exists, and of a baseline not even that. A component whose
    output is marked runs again. The caller holds the output folder's lock.

    Returns:
        The artifacts that this call marked.

    Raises:
        ValueError: The store cannot be opened.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    if isinstance(store, Path) and not store.is_file():
        return ()
    # For writing from the start: that lets SQLite undo what a killed run left half done.
    opened = metadata.connect(store, write=True)
    # Neither the cache nor a Resolver hands out anything else.
    live = {
        proto.id: proto
        for proto in metadata.artifacts(opened, store)
        if proto.state == mlmd.Artifact.LIVE
    }
    gone = deleted(metadata.artifact(proto) for proto in live.values())
    for artifact in gone:
        live[artifact.id].state = mlmd.Artifact.DELETED
        _log.warning("%s is gone from %s; what made it runs again.", artifact.type, artifact.uri)
    if gone:
        opened.put_artifacts([live[artifact.id] for artifact in gone])
    return gone


def deleted(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """Returns the artifacts on this machine of which files are missing."""
    return tuple(artifact for artifact in artifacts if not _is_complete(artifact))


def _is_complete(artifact: Artifact) -> bool:
    """Returns whether an artifact is where it was written, as far as names tell."""
    pushed = str(artifact.properties.get("pushed_destination", ""))
    if pushed and "://" not in pushed and not Path(pushed).is_dir():
        return False
    if not artifact.uri or "://" in artifact.uri:
        return True
    place = Path(artifact.uri)
    if artifact.type in _MAY_BE_EMPTY or place.is_file():
        return place.exists()
    return all(_holds_a_file(folder) for folder in (place, *_splits(artifact)))


def _splits(artifact: Artifact) -> list[Path]:
    names = artifact.properties.get("split_names")
    splits = json.loads(names) if isinstance(names, str) and names else []
    return [Path(artifact.uri) / f"Split-{name}" for name in splits]


def _holds_a_file(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))
