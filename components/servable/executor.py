"""Executor of Servable: runs the probe on a model and writes the blessing."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging
from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

import schemas
from components import gate, io
from components.servable import measurement, process, verdict
from components.servable.prediction import Evaluation
from trainer_module.util.checks import UserError, require

SPLIT_KEY = "split"
LATENCY_KEY = "max_latency_ms_p99"
SIZE_KEY = "max_model_mib"
TIMEOUT_KEY = "timeout_s"
LABEL_KEY = "label"
LEAVE_OUT_KEY = "leave_out"

BLESSED, NOT_BLESSED = "INFRA_BLESSED", "INFRA_NOT_BLESSED"
PROBE = "components.servable.probe"


class Executor(base_executor.BaseExecutor):  # type: ignore[misc]
    """Blesses a model that can be served, or says why it cannot."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Tries the model, and writes the blessing.

        Args:
            input_dict: "model" and "examples", one artifact each, and perhaps "evaluation".
            output_dict: "blessing": an InfraBlessing. It gets an empty file INFRA_BLESSED or
                INFRA_NOT_BLESSED, `servable.json` beside it, and the custom property "blessed".
            exec_properties: "split", "timeout_s", "label", "leave_out" (a JSON list), and
                "max_latency_ms_p99" and "max_model_mib" where there are limits.

        Raises:
            UserError: There is no model, or no example in the split.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        one = artifact_utils.get_single_instance
        model = _model(one(input_dict[standard_component_specs.MODEL_KEY]))
        examples = one(input_dict[standard_component_specs.EXAMPLES_KEY])
        split = exec_properties.get(SPLIT_KEY) or io.judged_split(examples)
        files = _files(examples, split)
        evaluated, how = _evaluation(input_dict.get(standard_component_specs.EVALUATION_KEY))
        originals = f"{examples.uri}/{schemas.ORIGINALS}"
        job = {
            "model": _absolute(model),
            "files": [_absolute(file) for file in files],
            "leave_out": json.loads(exec_properties[LEAVE_OUT_KEY]),
            "label": exec_properties[LABEL_KEY],
            "evaluation": how._asdict() if how else None,
            "originals": _absolute(originals) if fileio.exists(originals) else "",
        }
        measurements, ending = _probe(job, exec_properties[TIMEOUT_KEY])
        if measurement.Requests(0) in measurements:
            raise _no_examples(examples, split)
        size_mib = _size_mib(model)
        limits = verdict.Limits(exec_properties.get(LATENCY_KEY), exec_properties.get(SIZE_KEY))
        checks = verdict.judge(measurements, ending, size_mib, limits, evaluated)
        result = verdict.result(checks, measurements, split, size_mib)
        blessing = one(output_dict[standard_component_specs.BLESSING_KEY])
        content = json.dumps(dataclasses.asdict(result), indent=1)
        io.write(f"{blessing.uri}/{verdict.FILE_NAME}", content)
        # The marker comes last: whoever sees it finds the result.
        failed = gate.failed(checks)
        io.write(f"{blessing.uri}/{NOT_BLESSED if failed else BLESSED}", "")
        blessing.set_int_custom_property("blessed", int(not failed))
        for check in failed:
            logging.warning("The model is not servable. %s", check)


def _model(artifact: types.Artifact) -> str:
    folder: str = path_utils.serving_model_path(
        artifact.uri, path_utils.is_old_model_artifact(artifact)
    )
    require(
        fileio.exists(f"{folder}/saved_model.pb"),
        "the input model must hold a SavedModel",
        f"no {folder}/saved_model.pb",
        "Let the Trainer write one by trainer_module.export_model, or give Servable another model.",
    )
    return folder


def _files(artifact: types.Artifact, split: str) -> list[str]:
    splits = artifact_utils.decode_split_names(artifact.split_names)
    require(
        split in splits,
        f"`split` must be one of the input examples', {', '.join(splits)} at {artifact.uri}",
        split,
        "Name one of them.",
    )
    patterns = examples_utils.get_split_file_patterns([artifact], split)
    files = sorted(file for pattern in patterns for file in fileio.glob(pattern))
    if not files:
        raise _no_examples(artifact, split)
    return files


def _no_examples(artifact: types.Artifact, split: str) -> UserError:
    return UserError(
        f"the split {split!r} of the input examples must have some to send to the model",
        f"none at {artifact.uri}",
        "Add data, or name another split.",
    )


def _evaluation(
    artifacts: list[types.Artifact] | None,
) -> tuple[verdict.Evaluated, Evaluation | None]:
    if not artifacts:
        return verdict.Evaluated(why_not="no evaluation is given"), None
    # TFMA takes seconds to import.
    from components.servable import evaluation

    return evaluation.read(artifact_utils.get_single_instance(artifacts).uri)


def _absolute(path: str) -> str:
    """Returns the same path for a process that works in another folder."""
    return path if "://" in path else str(Path(path).absolute())


def _size_mib(folder: str) -> float:
    sizes = [
        tf.io.gfile.stat(f"{root}/{file}").length
        for root, _, files in tf.io.gfile.walk(folder)
        for file in files
    ]
    return float(sum(sizes)) / 1024**2


def _probe(
    job: dict[str, Any], timeout_s: int
) -> tuple[list[measurement.Measurement], verdict.Ending]:
    """Runs the probe; returns its measurements, and how it ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        measured = folder / "measurements.jsonl"
        measured.touch()
        ending = process.run(["-m", PROBE, "job.json", measured.name], folder, timeout_s)
        return measurement.from_lines(measured.read_text()), ending
