"""Executor of TrainingReport: reads the artifacts of a run and writes the page."""

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from absl import logging
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, path_utils

from components import io
from components.anomaly_gate.anomalies import find_problems
from components.drift_gate import drift
from components.evaluation import results
from components.servable import verdict
from components.training_report import FILE_NAME, data, mistakes, residuals
from schemas import columns, parameter
from trainer_module import history
from trainer_module.util.checks import UserError

HISTORY_KEY = "history"
MODEL_RUN_KEY = "model_run"
INFRA_BLESSING_KEY = "infra_blessing"
DRIFT_KEY = "drift"
REPORT_KEY = "report"
CLASSES_KEY = "classes"
SPLIT_KEY = "split"
LABEL_KEY = "label"
TITLE_KEY = "title"
SOURCE_KEY = "source"
NETWORK_KEY = "network"
COMMAND_KEY = "command"
FINGERPRINT_KEY = "fingerprint"
ROUNDING_KEY = "rounding"
LOOK_AT_KEY = "look_at"

TEST = "test_"
"""Prefix of a custom property of the report: accuracy or R2 of the model on the evaluated split, as
test_accuracy or test_r2."""

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
_Inputs = Mapping[str, types.Artifact]
_Parsed = TypeVar("_Parsed")


class ArtifactError(UserError):
    """An input does not hold what it should."""


class Executor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Writes `report.html`."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads the artifacts and writes the page.

        Args:
            input_dict: "evaluation", "blessing", "statistics" and "schema", one artifact each;
                "history", "model_run", "anomalies", "model", "examples", "infra_blessing" and
                "drift" where there are any.
            output_dict: "report", to which report.html is written. It gets the custom property
                "test_accuracy" where the evaluation has the metric "accuracy", or "test_r2".
            exec_properties: The parameters of `TrainingReport`.

        Raises:
            ArtifactError: An input does not hold what it should.
        """
        # Plotly is imported only where a page is made.
        from components.training_report import page

        self._log_startup(input_dict, output_dict, exec_properties)
        inputs = {
            key: artifact_utils.get_single_instance(artifacts)
            for key, artifacts in input_dict.items()
            if artifacts
        }
        classes = tuple(json.loads(parameter.text(exec_properties.get(CLASSES_KEY) or "[]")))
        split, label = exec_properties[SPLIT_KEY], exec_properties[LABEL_KEY]

        with _reading(inputs, _KEYS.EVALUATION_KEY, "Run the Evaluator again"):
            evaluated = results.read(
                inputs[_KEYS.EVALUATION_KEY].uri,
                classes,
                rounding=exec_properties.get(ROUNDING_KEY) or 0.0,
            )
        with _reading(inputs, _KEYS.STATISTICS_KEY, "Run StatisticsGen again"):
            artifact = inputs[_KEYS.STATISTICS_KEY]
            statistics = {name: io.statistics(artifact, name) for name in io.splits(artifact)}
        with _reading(inputs, _KEYS.SCHEMA_KEY, "Give it a schema.pbtxt"):
            schema = io.schema(inputs[_KEYS.SCHEMA_KEY])
        anomalies = None
        if _KEYS.ANOMALIES_KEY in inputs:
            with _reading(inputs, _KEYS.ANOMALIES_KEY, "Run ExampleValidator again"):
                artifact = inputs[_KEYS.ANOMALIES_KEY]
                by_split = {name: io.anomalies(artifact, name) for name in io.splits(artifact)}
            anomalies = [str(each) for each in find_problems(by_split, statistics, schema, label)]

        summary = data.summarise(statistics, schema, label, classes)
        blessing = inputs[_KEYS.BLESSING_KEY]
        infra = inputs.get(INFRA_BLESSING_KEY)
        report = page.Report(
            title=exec_properties[TITLE_KEY],
            written=datetime.now(timezone.utc),
            history=_history(inputs),
            evaluation=evaluated,
            blessed=_verdict(
                blessing, constants.BLESSED_FILE_NAME, constants.NOT_BLESSED_FILE_NAME
            ),
            servable=_verdict(infra, "INFRA_BLESSED", "INFRA_NOT_BLESSED") if infra else None,
            data=summary,
            split=split,
            mistakes=_mistakes(
                inputs,
                None if evaluated.is_regression else classes,
                split,
                label,
                summary.examples.get(split, 0),
                exec_properties.get(LOOK_AT_KEY) or mistakes.LOOKED_AT,
            ),
            run=(self._context.pipeline_run_id if self._context else None) or "",
            source=exec_properties.get(SOURCE_KEY) or "",
            model=exec_properties.get(NETWORK_KEY) or "",
            anomalies=anomalies,
            drift=_optional(inputs, DRIFT_KEY, drift.FILE_NAME, drift.parse, "Run DriftGate again"),
            serving=_optional(
                inputs,
                INFRA_BLESSING_KEY,
                verdict.FILE_NAME,
                verdict.parse,
                "Run Servable again",
                # TFX's own InfraValidator leaves a verdict and nothing more.
                may_lack_file=True,
            ),
            columns=_optional(
                inputs,
                _KEYS.MODEL_KEY,
                columns.FILE,
                columns.parse,
                "Run the Trainer again",
                may_lack_file=True,
            )
            or {},
            command=exec_properties.get(COMMAND_KEY) or "",
            versions=versions(),
            fingerprint=exec_properties.get(FINGERPRINT_KEY) or "",
        )
        written = artifact_utils.get_single_instance(output_dict[REPORT_KEY])
        io.write(f"{written.uri}/{FILE_NAME}", page.page(report))
        if (name := evaluated.headline) and math.isfinite(evaluated.candidate[name]):
            written.set_float_custom_property(f"{TEST}{name}", evaluated.candidate[name])
        logging.info("The training report is %s/%s.", written.uri, FILE_NAME)


def versions() -> dict[str, str]:
    """Returns the version of Python and of each library that bears on a run, if installed."""
    by_name = {"Python": sys.version.split()[0]}
    for name in _LIBRARIES:
        try:
            by_name[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return by_name


@contextmanager
def _reading(inputs: _Inputs, key: str, remedy: str) -> Iterator[None]:
    """Raises an error that names artifact and remedy where reading it fails."""
    # Reading fails in many ways: TensorFlow's errors are neither OSError nor ValueError.
    try:
        yield
    except Exception as error:
        artifact = inputs[key]
        raise ArtifactError(
            f"input {key!r} must be a readable {artifact.TYPE_NAME}",
            f"{artifact.uri} ({type(error).__name__}: {error})",
            f"{remedy}, or repair the folder.",
        ) from error


def _history(inputs: _Inputs) -> history.History | None:
    """Returns the record of the run; None where there is none, or TFX's Trainer wrote none."""
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
    """Returns the verdict of a blessing by its file: an imported one has lost its properties."""
    for name, is_passed in ((passed, True), (failed, False)):
        if fileio.exists(f"{artifact.uri}/{name}"):
            return is_passed
    return None


def _optional(
    inputs: _Inputs,
    key: str,
    file: str,
    parse: Callable[[bytes], _Parsed],
    remedy: str,
    *,
    may_lack_file: bool = False,
) -> _Parsed | None:
    """Returns the parsed file of an artifact; None where there is no artifact, or no file."""
    if key not in inputs:
        return None
    folder = _saved_model(inputs[key]) if key == _KEYS.MODEL_KEY else inputs[key].uri
    path = f"{folder}/{file}"
    if may_lack_file and not fileio.exists(path):
        return None
    with _reading(inputs, key, remedy):
        return parse(io_utils.read_bytes_file(path))


def _saved_model(model: types.Artifact) -> str:
    folder: str = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
    return folder


def _mistakes(
    inputs: _Inputs,
    classes: tuple[str, ...] | None,
    split: str,
    label: str,
    total: int,
    look_at: int,
) -> mistakes.Mistakes | residuals.Residuals | str:
    """Returns the most confident mistakes, or the residuals of a regression, without classes.

    They are words that say why where they are not known.
    """
    missing = [key for key in (_KEYS.MODEL_KEY, _KEYS.EXAMPLES_KEY) if key not in inputs]
    if missing:
        why = f"the report was given no {' and no '.join(missing)}"
        return f"Mistakes cannot be shown: {why}, and it needs both to ask about each example."
    examples = inputs[_KEYS.EXAMPLES_KEY]
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
            model = mistakes.SavedModel(_saved_model(inputs[_KEYS.MODEL_KEY]))
        look: Any = {"label": label, "total": total, "look_at": look_at}
        if classes is None:
            return residuals.find(records, model, **look)
        return mistakes.find(records, model, classes, **look)
    except mistakes.UnfitModelError as error:
        return f"Mistakes cannot be shown: {error}."
    except ArtifactError as error:
        if isinstance(error.__cause__, mistakes.UnfitModelError):
            return f"Mistakes cannot be shown: {error.__cause__}."
        raise


def _compression(file: str) -> str:
    with fileio.open(file, "rb") as opened:
        return "GZIP" if opened.read(2) == b"\x1f\x8b" else ""
