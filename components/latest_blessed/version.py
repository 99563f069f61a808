"""What the newest version in a folder of pushed models offers the next run."""

from pathlib import Path
from typing import NamedTuple

from components.serving_pusher import versions as pushed


class Found(NamedTuple):
    """What there is; None for what is not.

    Attributes:
        model: Folder of the SavedModel.
        statistics: Folder of the statistics of the data it was trained on.
    """

    model: Path | None = None
    statistics: Path | None = None


def newest(folder: Path) -> Found:
    """The highest version that holds a SavedModel, and its statistics if they were kept.

    Args:
        folder: Folder of numbered versions, as ServingPusher writes it; may not exist yet.
    """
    versions = pushed.versions(folder)
    whole = [number for number in versions if (versions[number] / "saved_model.pb").is_file()]
    if not whole:
        return Found()
    model = versions[max(whole)]
    statistics = pushed.statistics_of(model)
    return Found(model, statistics if statistics.is_dir() else None)
