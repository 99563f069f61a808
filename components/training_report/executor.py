"""Collects what a run left behind and writes the page."""

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import logging
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, path_utils

from components import gate, io
from components.anomaly_gate.anomalies import find_problems
from components.drift_gate import drift
from components.evaluation import results
from components.servable.verdict import FILE_NAME as SERVING_FILE
from components.training_report import data, mistakes, page, serving
from schemas import columns, parameter
from trainer_module import history

HISTORY_KEY = "history"
MODEL_RUN_KEY = "model_run"
INFRA_BLESSING_KEY = "infra_blessing"
DRIFT_KEY = "drift"
REPORT_KEY = "report"
CLASSES_KEY = "classes"
SPLIT_KEY = "split"
LABEL_KEY = "label"
TITLE_KEY = "title"
COMMAND_KEY = "command"
FINGERPRINT_KEY = "fingerprint"
ROUNDING_KEY = "rounding"
LOOK_AT_KEY = "look_at"

TEST_ACCURACY = "test_accuracy"
"""Custom property of the report: accuracy of the model on the evaluated split."""

_KEYS = standard_component_specs
_LIBRARIES = (
    "plateau-tfx",
    "tfx",
    "tensorflow",
    "keras",
    "tensorflow-model-analysis",
    "tensorflow-data-validation",
    "tensorflow-transform",
    "apache-beam",
    "numpy",
)


class ArtifactError(ValueError):
    """An input does not hold what it should; the message names it and says what to do."""


class Executor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Writes `report.html`."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Collect, render, write.

        Args:
            input_dict: "evaluation", "blessing", "statistics" and "schema", one artifact each;
                "history", "model_run", "anomalies", "model", "examples", "infra_blessing" and
                "drift" where given.
            output_dict: "report", to which report.html is written. It gets the custom property
                "test_accuracy" where the evaluation has the metric "accuracy".
            exec_properties: The parameters of `TrainingReport`.

        Raises:
            ArtifactError: An input does not hold what it should.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        inputs = {
            key: artifact_utils.get_single_instance(artifacts)
            for key, artifacts in input_dict.items()
            if artifacts
        }
        classes = tuple(json.loads(parameter.text(exec_properties.get(CLASSES_KEY) or "[]")))
        split = exec_properties[SPLIT_KEY]
        label = exec_properties[LABEL_KEY]

        trained = _history(inputs)
        with _reading(inputs, _KEYS.EVALUATION_KEY, "Run the Evaluator again"):
            evaluated = results.read(
                inputs[_KEYS.EVALUATION_KEY].uri,
                classes,
                rounding=exec_properties.get(ROUNDING_KEY) or 0.0,
            )
        with _reading(inputs, _KEYS.STATISTICS_KEY, "Run StatisticsGen again"):
            statistics = {
                name: io.statistics(inputs[_KEYS.STATISTICS_KEY], name)
                for name in io.splits(inputs[_KEYS.STATISTICS_KEY])
            }
        with _reading(inputs, _KEYS.SCHEMA_KEY, "Give it a schema.pbtxt"):
            schema = io.schema(inputs[_KEYS.SCHEMA_KEY])
        anomalies = None
        if _KEYS.ANOMALIES_KEY in inputs:
            with _reading(inputs, _KEYS.ANOMALIES_KEY, "Run ExampleValidator again"):
                found = {
                    name: io.anomalies(inputs[_KEYS.ANOMALIES_KEY], name)
                    for name in io.splits(inputs[_KEYS.ANOMALIES_KEY])
                }
            anomalies = [str(each) for each in find_problems(found, statistics, schema, label)]

        summary = data.summarise(statistics, schema, label, classes)
        report = page.Report(
            title=exec_properties[TITLE_KEY],
            written=datetime.now(timezone.utc),
            history=trained,
            evaluation=evaluated,
            blessed=_verdict(
                inputs[_KEYS.BLESSING_KEY],
                constants.BLESSED_FILE_NAME,
                constants.NOT_BLESSED_FILE_NAME,
            ),
            servable=(
                _verdict(inputs[INFRA_BLESSING_KEY], "INFRA_BLESSED", "INFRA_NOT_BLESSED")
                if INFRA_BLESSING_KEY in inputs
                else None
            ),
            data=summary,
            split=split,
            mistakes=_mistakes(
                inputs,
                classes,
                split,
                label,
                summary.examples.get(split, 0),
                exec_properties.get(LOOK_AT_KEY) or mistakes.LOOKED_AT,
            ),
            anomalies=anomalies,
            drift=_drift(inputs),
            serving=_serving(inputs),
            columns=_columns(inputs),
            command=exec_properties.get(COMMAND_KEY) or "",
            versions=versions(),
            fingerprint=exec_properties.get(FINGERPRINT_KEY) or "",
        )
        written = artifact_utils.get_single_instance(output_dict[REPORT_KEY])
        write(page.render(report), written.uri)
        accuracy = evaluated.candidate.values.get("accuracy", math.nan)
        if math.isfinite(accuracy):
            written.set_float_custom_property(TEST_ACCURACY, accuracy)
        logging.info("The training report is %s/%s.", written.uri, page.FILE_NAME)


def versions() -> dict[str, str]:
    """Version of Python and of each library that bears on a run, where it is installed."""
    found = {"Python": sys.version.split()[0]}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(text: str, folder: str) -> None:
    """Write `report.html`, whole or not at all.

    Args:
        text: The page.
        folder: Folder or URI; made if it is not there.
    """
    fileio.makedirs(folder)
    temporary = f"{folder}/.{page.FILE_NAME}.part"
    with fileio.open(temporary, "wb") as file:
        file.write(text.encode("utf-8"))
    fileio.rename(temporary, f"{folder}/{page.FILE_NAME}", overwrite=True)


@contextmanager
def _reading(inputs: dict[str, types.Artifact], key: str, remedy: str) -> Iterator[None]:
    """Names the artifact and the remedy where reading it fails."""
    # Reading fails in many ways: TensorFlow's errors are neither OSError nor ValueError.
    try:
        yield
    except Exception as error:
        artifact = inputs[key]
        raise ArtifactError(
            f"input {key!r} must be a readable {artifact.TYPE_NAME}, got {artifact.uri} "
            f"({type(error).__name__}: {error}). {remedy}, or repair the folder."
        ) from error


def _history(inputs: dict[str, types.Artifact]) -> history.History | None:
    """The record of the run; None where none is given, or TFX's Trainer wrote none."""
    key = HISTORY_KEY if HISTORY_KEY in inputs else MODEL_RUN_KEY
    if key not in inputs:
        return None
    file = f"{inputs[key].uri}/{history.FILE_NAME}"
    if key == MODEL_RUN_KEY and not fileio.exists(file):
        return None
    with _reading(inputs, key, "Run the Trainer again"), tempfile.TemporaryDirectory() as folder:
        # `history.read` takes local files only.
        local = Path(folder) / history.FILE_NAME
        io_utils.copy_file(file, str(local))
        return history.read(local)


def _verdict(artifact: types.Artifact, passed: str, failed: str) -> bool | None:
    """What a blessing says, by its file: an imported one has lost its properties."""
    for name, verdict in ((passed, True), (failed, False)):
        if fileio.exists(f"{artifact.uri}/{name}"):
            return verdict
    return None


def _drift(inputs: dict[str, types.Artifact]) -> tuple[gate.Check, ...] | None:
    """How far the data has moved; None where that is not given."""
    if DRIFT_KEY not in inputs:
        return None
    with _reading(inputs, DRIFT_KEY, "Run DriftGate again"):
        return drift.parse(io_utils.read_bytes_file(f"{inputs[DRIFT_KEY].uri}/{drift.FILE_NAME}"))


def _serving(inputs: dict[str, types.Artifact]) -> serving.Serving | None:
    """How the model served; None where that is not given, or only the verdict is."""
    if INFRA_BLESSING_KEY not in inputs:
        return None
    file = f"{inputs[INFRA_BLESSING_KEY].uri}/{SERVING_FILE}"
    # TFX's own InfraValidator leaves a verdict and nothing more.
    if not fileio.exists(file):
        return None
    with _reading(inputs, INFRA_BLESSING_KEY, "Run Servable again"):
        return serving.parse(io_utils.read_bytes_file(file))


def _columns(inputs: dict[str, types.Artifact]) -> dict[str, columns.Input]:
    """The columns that the model takes, by input; none where it does not say."""
    if _KEYS.MODEL_KEY not in inputs:
        return {}
    model = inputs[_KEYS.MODEL_KEY]
    folder = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
    file = f"{folder}/{columns.FILE}"
    if not fileio.exists(file):
        return {}
    with _reading(inputs, _KEYS.MODEL_KEY, "Run the Trainer again"):
        return columns.parse(io_utils.read_bytes_file(file))


def _mistakes(
    inputs: dict[str, types.Artifact],
    classes: tuple[str, ...],
    split: str,
    label: str,
    total: int,
    look_at: int,
) -> mistakes.Mistakes | str:
    """The most confident mistakes, or why they cannot be told."""
    missing = [key for key in (_KEYS.MODEL_KEY, _KEYS.EXAMPLES_KEY) if key not in inputs]
    if missing:
        return (
            f"Mistakes cannot be shown: the report was given no {' and no '.join(missing)}, "
            "and it needs both to ask the model about each example."
        )
    model, examples = inputs[_KEYS.MODEL_KEY], inputs[_KEYS.EXAMPLES_KEY]
    form = examples_utils.get_payload_format(examples)
    if form != example_gen_pb2.FORMAT_TF_EXAMPLE:
        name = example_gen_pb2.PayloadFormat.Name(form)
        return f"Mistakes cannot be shown: the examples are {name}, not FORMAT_TF_EXAMPLE."
    with _reading(inputs, _KEYS.EXAMPLES_KEY, f"Name one of its splits as {SPLIT_KEY}"):
        folder = artifact_utils.get_split_uri([examples], split)
        files = sorted(fileio.glob(f"{folder}/*"))
        if not files:
            raise ValueError(f"no file in {folder}")
        records = mistakes.read_records(files, _compression(files[0]))
    try:
        with _reading(inputs, _KEYS.MODEL_KEY, "Run the Trainer again"):
            directory = path_utils.serving_model_path(
                model.uri, path_utils.is_old_model_artifact(model)
            )
            classifier = mistakes.SavedModelClassifier(directory)
        return mistakes.find(
            records, classifier, classes, label=label, total=total, look_at=look_at
        )
    except mistakes.UnfitModelError as error:
        return f"Mistakes cannot be shown: {error}."
    except ArtifactError as error:
        if isinstance(error.__cause__, mistakes.UnfitModelError):
            return f"Mistakes cannot be shown: {error.__cause__}."
        raise


def _compression(file: str) -> str:
    with fileio.open(file, "rb") as opened:
        return "GZIP" if opened.read(2) == b"\x1f\x8b" else ""
