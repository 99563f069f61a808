"""Check of the classes of the models that a run is compared with and replaces."""

from pathlib import Path

from components import known_classes
from components.serving_pusher import versions as serving

from ..config import RunConfig
from ..metadata import store as metadata
from ..metadata import versions
from ..metadata.store import Records, Store


def check(config: RunConfig, output: Path, store: Store) -> None:
    """Refuses a run whose model would replace or be compared with one of other classes.

    Args:
        config: The run, with `classes` filled in.
        output: Output folder.
        store: ML Metadata of the runs.

    Raises:
        GateError: It would, and --allow-class-change is not given.
    """
    first = isinstance(store, Path) and not store.is_file()
    blessed = None if first else last_blessed(metadata.read(store))
    served = serving.latest(versions.folder_of(output))
    known = known_classes.of(config.features, config.classes)
    for model in (served, blessed):
        if model is not None:
            known_classes.check(model, known, allow_change=config.gates.allow_class_change)


def last_blessed(records: Records) -> Path | None:
    """Returns the model that TFX's Resolver finds for the next run; None if there is none."""
    blessed = {
        int(artifact.properties.get("current_model_id", 0))
        for artifact in records.artifacts.values()
        if artifact.type == "ModelBlessing" and artifact.properties.get("blessed") == 1
    }
    for number in sorted(blessed & records.artifacts.keys(), reverse=True):
        folder = Path(records.artifacts[number].uri) / "Format-Serving"
        if folder.is_dir():
            return folder
    return None
