"""Push by hand of a model that a gate held back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from components import known_classes
from components.serving_pusher import versions as serving
from trainer_module.util import files
from trainer_module.util.checks import require

from . import lineage, runs, store, versions
from .runs import Run
from .store import Artifact
from .versions import Version


@dataclass(frozen=True)
class Blessing:
    """Push by hand that is possible."""

    output: Path
    run: Run
    """Run that trained the model."""
    model: int
    """Id of the Model in ML Metadata."""
    source: Path
    """Folder of the SavedModel."""
    served: Version | None
    """Version that is served at present."""
    artifacts: dict[str, Path]
    """Folders that the run wrote, by type of artifact."""
    classes: tuple[str, ...]
    """Class names that it was trained with."""
    reason: str
    allow_class_change: bool


def plan(
    output: Path | None, wanted: str | None, reason: str, *, allow_class_change: bool = False
) -> Blessing:
    """Returns the push by hand of a run's model; arguments as of `lineage.find`.

    Raises:
        GateError: A model of other classes would be replaced, and `allow_class_change` is False.
    """
    reason = reason.strip()
    require(bool(reason), "`reason` must say why", reason, "Try `reason=checked by hand`.")
    run, output, records = lineage.find(runs.folders(output), wanted)
    record = records.run(run.name)
    outputs: dict[str, Artifact] = {artifact.type: artifact for _, artifact in record.outputs}
    state = "passed its gates" if run.blessed else f"is {run.state} without a verdict"
    require(
        run.blessed is False and "Model" in outputs,
        "a push by hand needs a run whose model a gate held back",
        f"{run.id}, which {state}",
        "`plateau runs` lists the runs.",
    )
    source = runs.place(outputs["Model"], output) / lineage.SERVING
    require(
        (source / "saved_model.pb").is_file(),
        "the model must still be on the disk",
        str(source),
        "Run again to train it again.",
    )
    served = versions.served(records, output)
    is_served = served is not None and served.intact and serving.same(source, served.path)
    require(
        not is_served,
        "a push by hand needs a model that is not served",
        f"that of run {run.id}, which is served as {served.number if served else ''} already",
        "`plateau runs` lists the runs.",
    )
    known = known_classes.read(source)
    present = serving.latest(versions.folder_of(output))
    if known is not None and present is not None:
        known_classes.check(present, known, allow_change=allow_class_change)
    trainer = runs.trainer(records, record)
    config = runs.train_config(trainer.properties) if trainer else {}
    return Blessing(
        output=output,
        run=run,
        model=outputs["Model"].id,
        source=source,
        served=served,
        artifacts={kind: runs.place(artifact, output) for kind, artifact in outputs.items()},
        classes=tuple(config.get("classes", ())),
        reason=reason,
        allow_class_change=allow_class_change,
    )


def apply(blessing: Blessing, now: Callable[[], float] = time.time) -> Version:
    """Pushes the model as the next version, and records the reason.

    The copy is atomic. The model counts as blessed from then on: the next run is compared with it.
    The caller holds the output folder's lock.
    """
    output, run, reason = blessing.output, blessing.run, blessing.reason
    again = plan(output, run.name, reason, allow_class_change=blessing.allow_class_change)
    require(
        again == blessing,
        "a push by hand must start from what it was planned for",
        f"a change in {output} meanwhile",
        "Look with `plateau runs`, and try again.",
    )
    records = store.read(store.store_of(output))
    trainer = records.maker(blessing.model)
    assert trainer is not None, "a run made the model"
    destination = versions.push_copy(
        records,
        output,
        blessing.source,
        versions.BLESS,
        {"run": run.name, "reason": reason},
        inputs={"model": blessing.model},
        sibling=trainer,
        blessing={"blessed": 1, "current_model_id": blessing.model, "reason": reason},
        now=now,
    )
    report = blessing.artifacts.get("components.HtmlReport", Path()) / runs.REPORT
    if report.is_file():
        _annotate(report, destination.name, reason)
    number = int(destination.name)
    return Version(number, destination, number, blessing.model, run.name, datetime.now())


def _annotate(report: Path, version: str, reason: str) -> None:
    """Notes the push on the page of the run."""
    from components.training_report import page

    note = f"Pushed by hand as {version} on {datetime.now():%Y-%m-%d %H:%M}. Reason: {reason}"
    text = page.with_note(report.read_text(encoding="utf-8"), note)
    with files.atomic(report) as temporary:
        temporary.write_text(text, encoding="utf-8")
