"""Entrypoint of a task's container on Kubeflow: `python -m components.container`.

It runs any component of any TFX pipeline that KubeflowV2DagRunner compiled. TFX's own entrypoint is
made for Vertex AI Pipelines. On open-source Kubeflow Pipelines, input artifacts have no type, the
driver adds an output of its own, the launcher stages artifacts to local folders but passes their
URIs in the object store, nobody runs the driver of an ExampleGen, and an output cannot be left out.
This module handles these and has TFX's entrypoint do the rest.
"""

import argparse
import copy
import json
import os
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer_module.util import collector, environment
from trainer_module.util.checks import require
from trainer_module.util.preemption import leaving_on_sigterm

STAGED = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}
"""Folder to which the launcher stages each object store."""

_HTML = "system.HTML"
"""Artifact type that Kubeflow's user interface shows as a page."""

_SYSTEM = "system."
"""Namespace of Kubeflow's own artifact types."""

Json = dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    """Runs the task; its outputs are in the output file of the invocation.

    Raises:
        SystemExit: A folder cannot be written, with the reason; or `preemption.Preempted`: SIGTERM
            arrived, and the exit status is 143.
    """
    parser = argparse.ArgumentParser(prog="python -m components.container", description=__doc__)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True, type=_json)
    parser.add_argument("--json_serialized_inputs_spec_args", default={}, type=_json)
    arguments, beam = parser.parse_known_args(argv)
    if arguments.executor_class_path.startswith(f"{__package__}."):
        # Ours need Keras 3; others have the Keras of their image.
        environment.prepare()
    try:
        # The first process of a container would not leave on SIGTERM of itself.
        with leaving_on_sigterm():
            _run(
                arguments.executor_class_path,
                arguments.json_serialized_invocation_args,
                arguments.json_serialized_inputs_spec_args,
                beam,
            )
    except PermissionError as error:
        sys.exit(
            f"{error.filename} must be accessible for the container's user (uid {os.getuid()}), "
            f"got {error.strerror!r}. Prepare the volume with deploy/manifests/prepare.yaml."
        )


def _run(executor: str, invocation: Json, inputs_spec: Json, beam: list[str]) -> None:
    """Runs a task.

    Args:
        executor: Dotted path of the executor's class.
        invocation: ExecutorInput of Kubeflow's pipeline specification.
        inputs_spec: ComponentInputsSpec.
        beam: Flags for Apache Beam.
    """
    drop_added_outputs(invocation, _registered_titles())
    set_input_types(invocation, inputs_spec)
    local = copy.deepcopy(invocation)
    drop_absent_inputs(local)
    # The workers of Dataflow see Cloud Storage, and no folder of this container.
    if not runs_on_dataflow(beam):
        for artifact in _artifacts(local):
            artifact["uri"] = local_path(artifact["uri"])
    output_file = Path(local["outputs"]["outputFile"])
    output_file.parent.mkdir(parents=True, exist_ok=True)
    if has_driver(inputs_spec):
        from tfx.orchestration.kubeflow.v2.file_based_example_gen import driver

        driver.main(_namespace(executor, local, inputs_spec))
        add_driver_properties(local, json.loads(output_file.read_text()))
    with collector.paused():
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor
    kubeflow_v2_run_executor.main((_namespace(executor, local, inputs_spec), beam))
    result = json.loads(output_file.read_text())
    restore_uris(result, invocation)
    output_file.write_text(json.dumps(result))


def drop_added_outputs(invocation: Json, titles: Collection[str]) -> None:
    """Removes the outputs that Kubeflow added, whose types TFX cannot restore.

    Since release 2.5 each task has the output `executor-logs`, which belongs to the launcher.
    """
    outputs = invocation["outputs"].get("artifacts", {})
    for name in list(outputs):
        title = _title(outputs[name]["artifacts"][0])
        if title.startswith(_SYSTEM) and title not in titles:
            del outputs[name]


def set_input_types(invocation: Json, inputs_spec: Json) -> None:
    """Gives the inputs the types that the component declares.

    Open-source Kubeflow Pipelines passes `{"instanceSchema": ""}`.
    """
    declared = inputs_spec.get("artifacts", {})
    for name, artifacts in _listed(invocation, "inputs"):
        for artifact in artifacts:
            if not _title(artifact):
                require(
                    name in declared,
                    f"the type of input {name!r} must be in --json_serialized_inputs_spec_args",
                    sorted(declared),
                    "Compile with KubeflowV2DagRunnerConfig(use_pipeline_spec_2_1=True, ...).",
                )
                artifact["type"] = declared[name]["artifactType"]


def drop_absent_inputs(invocation: Json) -> None:
    """Removes the inputs that `components.latest_blessed` marked as absent."""
    from components.artifacts import ABSENT

    inputs = invocation.get("inputs", {}).get("artifacts", {})
    for name, artifacts in list(_listed(invocation, "inputs")):
        present = [each for each in artifacts if not each.get("metadata", {}).get(ABSENT)]
        inputs[name]["artifacts"] = present
        if not present:
            del inputs[name]


def runs_on_dataflow(args: Sequence[str]) -> bool:
    """Returns whether Beam's options name Dataflow, which works on URIs and no staged files."""
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    runner = PipelineOptions(list(args)).view_as(StandardOptions).runner
    return "dataflow" in (runner or "").lower()


def local_path(uri: str) -> str:
    """Returns the staged path of a URI; a path stays as it is."""
    for scheme, folder in STAGED.items():
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    return uri


def has_driver(inputs_spec: Json) -> bool:
    """Returns whether TFX has a driver for the component: one that reads files, not artifacts."""
    return {"input_base", "input_config"} <= set(inputs_spec.get("parameters", {}))


def add_driver_properties(invocation: Json, driven: Json) -> None:
    """Adds the properties that the driver set, in its ExecutorOutput, to the outputs.

    TFX's entrypoint takes the parameters from the output file, but not these.
    """
    outputs = invocation["outputs"]["artifacts"]
    for name, output in driven.get("artifacts", {}).items():
        for artifact, source in zip(outputs[name]["artifacts"], output["artifacts"], strict=True):
            artifact.setdefault("metadata", {}).update(source.get("metadata", {}))


def restore_uris(result: Json, invocation: Json) -> None:
    """Replaces staged paths in the result of a task by the URIs that the launcher knows.

    Kubeflow's user interface shows a page whose URI is the file, not its folder.
    """
    uris = {local_path(artifact["uri"]): artifact["uri"] for artifact in _artifacts(invocation)}
    for name, declared in _listed(invocation, "outputs"):
        uri = declared[0]["uri"]
        if _title(declared[0]) == _HTML:
            pages = list(Path(local_path(uri)).glob("*.html"))
            uri = f"{uri}/{pages[0].name}" if len(pages) == 1 else uri
        for artifact in result.get("artifacts", {}).get(name, {}).get("artifacts", ()):
            artifact["uri"] = uri
            # A blessing names the models it compared.
            for key, value in artifact.get("metadata", {}).items():
                if isinstance(value, str):
                    artifact["metadata"][key] = uris.get(value, value)


def _json(text: str) -> Json:
    try:
        value = json.loads(text)
    # Recursion: nested too deeply.
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        start = textwrap.shorten(text, 80, placeholder=" ...")
        raise argparse.ArgumentTypeError(
            f"must be a JSON object, as Kubeflow's launcher writes it, got {start!r}"
        )
    return value


def _registered_titles() -> Collection[str]:
    """Registers the type of a page with TFX; returns the titles that TFX can restore."""
    with collector.paused():
        from tfx.orchestration.kubeflow.v2 import compiler_utils

        from components.artifacts import HtmlReport

    # TFX's table from the title of an artifact type to the class that restores it.
    titles: dict[str, str] = compiler_utils.TITLE_TO_CLASS_PATH
    titles[_HTML] = HtmlReport.TYPE_NAME
    return titles


def _namespace(executor: str, invocation: Json, inputs_spec: Json) -> argparse.Namespace:
    return argparse.Namespace(
        executor_class_path=executor,
        json_serialized_invocation_args=json.dumps(invocation),
        json_serialized_inputs_spec_args=json.dumps(inputs_spec),
    )


def _listed(invocation: Json, side: str) -> Iterator[tuple[str, list[Json]]]:
    """Yields the names of inputs or outputs with their artifacts."""
    for name, entry in invocation.get(side, {}).get("artifacts", {}).items():
        yield name, entry.get("artifacts", [])


def _artifacts(invocation: Json) -> Iterator[Json]:
    for side in ("inputs", "outputs"):
        for _, artifacts in _listed(invocation, side):
            yield from artifacts


def _title(artifact: Mapping[str, Any]) -> str:
    import yaml

    kind = artifact.get("type", {})
    if "schemaTitle" in kind:
        return str(kind["schemaTitle"])
    return str((yaml.safe_load(kind.get("instanceSchema", "")) or {}).get("title", ""))


if __name__ == "__main__":
    main()
