"""Pushes a model that a gate held back, by hand and with a reason."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from components import known_classes
from components.latest_blessed import version as latest
from components.servable import verdict as servable
from components.serving_pusher import versions as serving
from trainer_module.util import environment, files
from trainer_module.util.checks import require

from ..runners import lock, logs
from . import lineage, record, runs, versions
from . import store as metadata
from .runs import Run
from .versions import Version


@dataclass(frozen=True)
class BlessConfig:
    """What `plateau bless` needs to know.

    Attributes:
        run: Id of the run whose model is to be pushed, as `plateau runs` prints it, or its time, or
            the beginning of either; if not given, the newest run.
        reason: Why the model is pushed although a gate held it back; recorded and shown.
        output: Output folder of the run; if not given, every one under ./runs is looked in.
        allow_class_change: Let the model take the place of one of images that knows other classes.
        yes: Do not ask for confirmation.
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[RUN]")] = None
    reason: str = ""
    output: Path | None = None
    allow_class_change: bool = False
    yes: bool = False


@dataclass(frozen=True)
class Blessing:
    """A push by hand that can be done.

    Attributes:
        output: Output folder.
        run: The run that trained the model.
        model: Id of the Model in ML Metadata.
        source: Folder of the SavedModel.
        served: What is served at present; None if nothing is.
        report: The page about the run; None if it is gone.
    """

    output: Path
    run: Run
    model: int
    source: Path
    served: Version | None
    report: Path | None


def plan(config: BlessConfig) -> Blessing:
    """Finds what to push.

    Raises:
        ValueError: There is no reason or no such run, or no gate held its model back, or the model
            is gone or is served already.
        GateError: Another model would be replaced that knows other classes.
    """
    reason = config.reason.strip()
    require(bool(reason), "reason must say why", config.reason, 'Try --reason "checked by hand".')
    detail = lineage.read(runs.folders(None, config.output), config.run)
    run, output = detail.run, detail.output
    records = metadata.read(metadata.store_of(output))
    [found] = [each for each in records.runs if each.id == run.name]
    made = {artifact.type: artifact for _, artifact in records.outputs(*found.executions)}
    if run.blessed is not False or "Model" not in made:
        state = "passed its gates" if run.blessed else f"is {run.state} without a verdict"
        raise ValueError(
            f"a push by hand needs a run whose model a gate held back, got {run.id}, which "
            f"{state}. `plateau runs` lists the runs."
        )
    source = runs.place(made["Model"], output) / "Format-Serving"
    require(
        (source / "saved_model.pb").is_file(),
        "the model must still be on the disk",
        str(source),
        "Run again to make it anew.",
    )
    served = versions.served(records, output)
    if served is not None and served.intact and serving.same(source, served.path):
        raise ValueError(
            f"a push by hand needs a model that is not served, got that of run {run.id}, which is "
            f"served as {served.number} already."
        )
    known = known_classes.read(source)
    present = latest.newest(versions.folder_of(output)).model
    if known is not None and present is not None:
        known_classes.check(present, known, allow_change=config.allow_class_change)
    report = made.get("components.HtmlReport")
    page = runs.place(report, output) / runs.REPORT if report is not None else None
    return Blessing(
        output=output,
        run=run,
        model=made["Model"].id,
        source=source,
        served=served,
        report=page if page is not None and page.is_file() else None,
    )


def failed(blessing: Blessing) -> tuple[str, ...]:
    """Returns what held the model back, in words; empty where it is no longer on the disk."""
    environment.prepare()
    from components.evaluation import results

    from ..evaluation import ROUNDING
    from . import result

    records = metadata.read(metadata.store_of(blessing.output))
    [found] = [each for each in records.runs if each.id == blessing.run.name]
    folders = {
        artifact.type: runs.place(artifact, blessing.output)
        for _, artifact in records.outputs(*found.executions)
    }
    lines: list[str] = []
    evaluated = folders.get("ModelEvaluation", Path())
    if (evaluated / "eval_config.json").is_file():
        trainer = records.maker(blessing.model)
        config = runs.train_config(trainer.properties) if trainer else {}
        # What TensorFlow says while it is imported concerns nobody.
        with logs.capture(Path(os.devnull), verbose=False):
            logs.silence_libraries()
            summary = results.read(
                str(evaluated), tuple(config.get("classes", ())), rounding=ROUNDING
            )
        lines += [*map(str, summary.failed), *summary.problems]
    tried = folders.get("InfraBlessing", Path())
    if (tried / servable.FILE_NAME).is_file():
        lines += result.failed_checks(tried)
    return tuple(lines)


def apply(blessing: Blessing, config: BlessConfig, now: Callable[[], float] = time.time) -> Version:
    """Pushes the model as the next version, and records the reason.

    The copy is whole or not there at all. The model counts as blessed from then on: the next run
    is compared with it.

    Args:
        blessing: What `plan` found.
        config: What it was asked.
        now: The clock, in seconds since 1970.

    Returns:
        The new version.

    Raises:
        lock.OutputBusyError: A run is using the output folder.
        ValueError: Another version is served by now than when the push was planned.
        OSError: The copy cannot be written.
    """
    output, run, reason = blessing.output, blessing.run, config.reason.strip()
    try:
        with lock.hold(output):
            if plan(config) != blessing:
                raise ValueError(
                    "a push by hand must start from what it was planned for, got a change in "
                    f"{output} meanwhile. Look with `plateau runs`, and try again."
                )
            place = metadata.store_of(output)
            records = metadata.read(place)
            trainer = records.maker(blessing.model)
            assert trainer is not None, "a run made the model"
            destination = versions.folder_of(output) / str(
                versions.next_version(records, output, now)
            )
            store = metadata.connect(place, write=True)
            execution = record.begin(
                store,
                versions.BLESS,
                {"pushed_version": int(destination.name), "run": run.name, "reason": reason},
                {"model": blessing.model},
                beside=trainer.id,
            )
            try:
                serving.copy(blessing.source, destination)
            except BaseException:
                if not destination.exists():
                    record.fail(store, execution)
                raise
            verdict = output.resolve() / "artifacts" / "Bless" / "blessing" / str(execution)
            verdict.mkdir(parents=True)
            (verdict / "BLESSED").touch()
            properties: dict[str, int | str] = {
                "blessed": 1,
                "current_model_id": blessing.model,
                "reason": reason,
            }
            record.complete(
                store,
                execution,
                [
                    ("pushed_model", record.pushed(store, destination.resolve())),
                    (
                        "blessing",
                        record.artifact(store, "ModelBlessing", str(verdict), properties),
                    ),
                ],
            )
            if blessing.report is not None:
                _annotate(blessing.report, destination.name, reason)
    except lock.OutputBusyError as busy:
        raise lock.OutputBusyError(
            f"a push by hand needs the output folder to itself, and a run is using {output}. "
            "Wait for its end, and try again."
        ) from busy
    number = int(destination.name)
    return Version(number, destination, number, blessing.model, run.name, datetime.now())


def _annotate(report: Path, version: str, reason: str) -> None:
    """Writes on the page of the run that its model was pushed all the same."""
    from components.training_report import page

    note = f"Pushed by hand as {version} on {datetime.now():%Y-%m-%d %H:%M}. Reason: {reason}"
    text = page.with_note(report.read_text(encoding="utf-8"), note)
    with files.whole(report) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
