"""LatestBlessed: the last blessed model where no ML Metadata can be queried."""

import errno
import json
import os
import shutil
from pathlib import Path

from tfx import types
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import data_types
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleStatistics, Model
from tfx.utils import path_utils

from components import known_classes
from components.artifacts import ABSENT
from components.known_classes import Known
from components.serving_pusher import versions
from schemas import parameter


@component  # type: ignore[untyped-decorator]
def CopyLatest(  # noqa: N802  (TFX's style of components)
    pushed: Parameter[str],
    model: OutputArtifact[Model],
    statistics: OutputArtifact[ExampleStatistics],
    known: Parameter[str] = None,
    allow_class_change: Parameter[int] = None,
) -> None:
    """Copies the newest pushed model and its statistics, or marks its outputs as absent.

    Args:
        pushed: Folder of pushed models.
        model: Output; its custom property `absent` is 1 where there is none yet.
        statistics: Output, likewise.
        known: Fields of the new model's `Known` as JSON, compressed if long, to be compared with
            those of the last one.
        allow_class_change: Whether a model of images may have other classes.

    Raises:
        PermissionError: The folder cannot be written, so that the push would fail at the end.
        GateError: The last blessed model knows other classes.
        OSError: The folder cannot be read.
    """
    folder = Path(pushed)
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    source = versions.latest(folder)
    if source is not None and known:
        fields = json.loads(parameter.text(known))
        new = Known(**{**fields, "classes": tuple(fields["classes"])})
        known_classes.check(source, new, allow_change=bool(allow_class_change))
    kept = versions.statistics_of(source) if source is not None else None
    if kept is not None and not kept.is_dir():
        kept = None
    _fill(model, source, Path(path_utils.serving_model_dir(model.uri)))
    _fill(statistics, kept, Path(statistics.uri))
    if kept is not None:
        splits = sorted(path.name.removeprefix("Split-") for path in kept.glob("Split-*"))
        statistics.split_names = artifact_utils.encode_split_names(splits)


def _fill(artifact: types.Artifact, source: Path | None, destination: Path) -> None:
    Path(artifact.uri).mkdir(parents=True, exist_ok=True)
    artifact.set_int_custom_property(ABSENT, int(source is None))
    if source is not None:
        shutil.copytree(source, destination, dirs_exist_ok=True)
        artifact.set_string_custom_property("origin", str(source))


class LatestBlessed(CopyLatest):  # type: ignore[misc, valid-type]
    """Takes the newest version that ServingPusher wrote, since only blessed models are pushed.

    Open-source Kubeflow Pipelines runs no Resolver, and an ordinary component cannot leave an
    output out: before the first push its outputs are empty and their custom property `absent` is 1,
    and whatever runs the tasks must not hand them on (`components.container` does not). Its result
    must not be cached.
    """

    def __init__(
        self,
        pushed: str | data_types.RuntimeParameter,
        *,
        known: Known | None = None,
        allow_class_change: bool = False,
    ) -> None:
        """Constructs the component.

        Args:
            pushed: Folder of pushed models.
            known: What the new model predicts; if not None, the component fails where the last
                blessed model predicts something else.
            allow_class_change: Whether a model of images may have other classes.
        """
        gate = {}
        if known is not None:
            gate = {
                "known": parameter.compressed(json.dumps(known._asdict())),
                "allow_class_change": int(allow_class_change),
            }
        super().__init__(pushed=pushed, **gate)
