"""Entrypoint of a task's container on Kubeflow: `python -m components.container`.

It runs any component of any TFX pipeline that KubeflowV2DagRunner compiled. TFX's own entrypoint is
made for Vertex AI Pipelines. On open-source Kubeflow Pipelines, input artifacts have no type, the
driver adds an output of its own, the launcher stages artifacts to local folders but passes their
URIs in the object store, nobody runs the driver of an ExampleGen, and an output cannot be left out.
This module handles these and has TFX's entrypoint do the rest.
"""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainer_module.util import collector, environment
from trainer_module.util.checks import require
from trainer_module.util.preemption import leaving_on_sigterm

STAGED = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}
"""Where the launcher puts what lies in an object store."""

_HTML = "system.HTML"
"""Artifact type that Kubeflow's user interface shows as a page."""

_SYSTEM = "system."
"""Namespace of Kubeflow's own artifact types."""

Json = dict[str, Any]


class Arguments(NamedTuple):
    """What the container was started with.

    Attributes:
        executor: Dotted path of the executor's class.
        invocation: ExecutorInput of Kubeflow's pipeline specification, as JSON.
        inputs_spec: ComponentInputsSpec, as JSON.
        beam: Flags for Apache Beam.
    """

    executor: str
    invocation: Json
    inputs_spec: Json
    beam: list[str]


def main(argv: list[str] | None = None) -> None:
    """Run the task; what it made is in the output file of the invocation.

    Raises:
        SystemExit: A folder cannot be written, with the reason; or `preemption.Preempted`: SIGTERM
            arrived, and the exit status is 143.
    """
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    if arguments.executor.startswith(f"{__package__}."):
        # Ours need Keras 3; others have the Keras of their image.
        environment.prepare()
    try:
        # The first process of a container would not leave on SIGTERM of itself.
        with leaving_on_sigterm():
            _run(arguments)
    except PermissionError as error:
        sys.exit(
            f"{error.filename} must be accessible for the container's user (uid {os.getuid()}), "
            f"got {error.strerror!r}. Prepare the volume with deploy/manifests/prepare.yaml."
        )


def _run(arguments: Arguments) -> None:
    remote = typed(declared(arguments.invocation, _registered()), arguments.inputs_spec)
    # The workers of Dataflow see Cloud Storage, and no folder of this container.
    given = remote if on_dataflow(arguments.beam) else staged(remote)
    local = without_absent(given)
    output_file = Path(local["outputs"]["outputFile"])
    output_file.parent.mkdir(parents=True, exist_ok=True)
    if has_driver(arguments.inputs_spec):
        _drive(arguments, local)
        local = with_driven(local, json.loads(output_file.read_text()))
    _execute(arguments, local)
    made = json.loads(output_file.read_text())
    output_file.write_text(json.dumps(unstaged(made, remote, _only_page)))


def declared(invocation: Json, titles: Collection[str]) -> Json:
    """Returns an invocation without the outputs that Kubeflow added.

    Since release 2.5 each task has the output `executor-logs`, which belongs to the launcher.

    Args:
        invocation: ExecutorInput.
        titles: Artifact types that TFX can restore.
    """
    kept: Json = json.loads(json.dumps(invocation))
    outputs = kept["outputs"].get("artifacts", {})
    for name in list(outputs):
        title = _title(outputs[name]["artifacts"][0])
        if title.startswith(_SYSTEM) and title not in titles:
            del outputs[name]
    return kept


def typed(invocation: Json, inputs_spec: Json) -> Json:
    """Returns an invocation whose input artifacts have the types that the component declares.

    Open-source Kubeflow Pipelines passes `{"instanceSchema": ""}`.

    Args:
        invocation: ExecutorInput.
        inputs_spec: ComponentInputsSpec.

    Raises:
        ValueError: Neither says what an input is.
    """
    result: Json = json.loads(json.dumps(invocation))
    declared_types = inputs_spec.get("artifacts", {})
    for name, listed in result.get("inputs", {}).get("artifacts", {}).items():
        for artifact in listed.get("artifacts", ()):
            if not _title(artifact):
                require(
                    name in declared_types,
                    f"the type of input {name!r} must be in --json_serialized_inputs_spec_args",
                    sorted(declared_types),
                    "Compile with KubeflowV2DagRunnerConfig(use_pipeline_spec_2_1=True, ...).",
                )
                artifact["type"] = declared_types[name]["artifactType"]
    return result


def on_dataflow(args: Sequence[str]) -> bool:
    """Returns whether a component works on Dataflow, on URIs and no staged files.

    Args:
        args: Options of Beam.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    runner = PipelineOptions(list(args)).view_as(StandardOptions).runner
    return "dataflow" in (runner or "").lower()


def staged(invocation: Json) -> Json:
    """An invocation whose artifacts lie where the launcher puts them.

    Args:
        invocation: ExecutorInput with URIs of an object store, or of local files already.
    """
    local: Json = json.loads(json.dumps(invocation))
    for artifact in _artifacts(local):
        artifact["uri"] = local_path(artifact["uri"])
    return local


def local_path(uri: str) -> str:
    """The staged path of a URI; a path stays what it is."""
    for scheme, folder in STAGED.items():
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    return uri


def without_absent(invocation: Json) -> Json:
    """An invocation without the inputs that say of themselves that there is nothing.

    Args:
        invocation: ExecutorInput; see `components.latest_blessed`.
    """
    from components.artifacts import ABSENT

    kept: Json = json.loads(json.dumps(invocation))
    artifacts = kept.get("inputs", {}).get("artifacts", {})
    for name in list(artifacts):
        there = [
            artifact
            for artifact in artifacts[name].get("artifacts", ())
            if not artifact.get("metadata", {}).get(ABSENT)
        ]
        if there:
            artifacts[name]["artifacts"] = there
        else:
            del artifacts[name]
    return kept


def has_driver(inputs_spec: Json) -> bool:
    """Whether TFX has a driver for the component: one that reads files that are no artifact.

    Args:
        inputs_spec: ComponentInputsSpec.
    """
    return {"input_base", "input_config"} <= set(inputs_spec.get("parameters", {}))


def with_driven(invocation: Json, driven: Json) -> Json:
    """An invocation whose outputs have the properties that the driver gave them.

    TFX's entrypoint takes over the parameters from the output file, but not these.

    Args:
        invocation: ExecutorInput.
        driven: ExecutorOutput of the driver.
    """
    merged: Json = json.loads(json.dumps(invocation))
    outputs = merged["outputs"]["artifacts"]
    for name, made in driven.get("artifacts", {}).items():
        for artifact, source in zip(outputs[name]["artifacts"], made["artifacts"], strict=True):
            artifact.setdefault("metadata", {}).update(source.get("metadata", {}))
    return merged


def unstaged(made: Json, invocation: Json, only_page: Callable[[str], str | None]) -> Json:
    """What a task made, under the URIs that the launcher knows.

    Kubeflow's user interface shows a page whose URI is the file, not its folder.

    Args:
        made: ExecutorOutput with staged paths.
        invocation: ExecutorInput as the launcher gave it.
        only_page: From a staged folder to the name of the only HTML file in it.
    """
    known = {local_path(artifact["uri"]): artifact["uri"] for artifact in _artifacts(invocation)}
    result: Json = json.loads(json.dumps(made))
    outputs = invocation["outputs"].get("artifacts", {})
    for name, given in outputs.items():
        pages = _title(given["artifacts"][0]) == _HTML
        for artifact in result.get("artifacts", {}).get(name, {}).get("artifacts", ()):
            uri = given["artifacts"][0]["uri"]
            page = only_page(local_path(uri)) if pages else None
            artifact["uri"] = f"{uri}/{page}" if page else uri
            metadata = artifact.get("metadata", {})
            for key, value in metadata.items():
                # A blessing names the models it compared.
                if isinstance(value, str):
                    metadata[key] = known.get(value, value)
    return result


def _parse(argv: list[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m components.container", description=__doc__)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True, type=_json)
    parser.add_argument("--json_serialized_inputs_spec_args", default={}, type=_json)
    known, beam = parser.parse_known_args(argv)
    return Arguments(
        known.executor_class_path,
        known.json_serialized_invocation_args,
        known.json_serialized_inputs_spec_args,
        beam,
    )


def _json(text: str) -> Json:
    try:
        value = json.loads(text)
    # What is nested too deeply.
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        shown = textwrap.shorten(text, 80, placeholder=" ...")
        raise argparse.ArgumentTypeError(
            f"must be a JSON object, as Kubeflow's launcher writes it, got {shown!r}"
        )
    return value


def _drive(arguments: Arguments, invocation: Json) -> None:
    from tfx.orchestration.kubeflow.v2.file_based_example_gen import driver

    driver.main(
        argparse.Namespace(
            json_serialized_invocation_args=json.dumps(invocation),
            json_serialized_inputs_spec_args=json.dumps(arguments.inputs_spec),
        )
    )


def _registered() -> Collection[str]:
    """Registers the type of a page with TFX; returns the titles that it can restore."""
    with collector.paused():
        from tfx.orchestration.kubeflow.v2 import compiler_utils

        from components.artifacts import HtmlReport

    # TFX's table from the title of an artifact type to the class that restores it.
    titles: dict[str, str] = compiler_utils.TITLE_TO_CLASS_PATH
    titles[_HTML] = HtmlReport.TYPE_NAME
    return titles


def _execute(arguments: Arguments, invocation: Json) -> None:
    with collector.paused():
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    kubeflow_v2_run_executor.main(
        (
            argparse.Namespace(
                executor_class_path=arguments.executor,
                json_serialized_invocation_args=json.dumps(invocation),
                json_serialized_inputs_spec_args=json.dumps(arguments.inputs_spec),
            ),
            arguments.beam,
        )
    )


def _artifacts(invocation: Json) -> Iterator[Json]:
    for side in ("inputs", "outputs"):
        for listed in invocation.get(side, {}).get("artifacts", {}).values():
            yield from listed.get("artifacts", ())


def _title(artifact: Mapping[str, Any]) -> str:
    import yaml

    kind = artifact.get("type", {})
    if "schemaTitle" in kind:
        return str(kind["schemaTitle"])
    return str((yaml.safe_load(kind.get("instanceSchema", "")) or {}).get("title", ""))


def _only_page(folder: str) -> str | None:
    pages = sorted(path.name for path in Path(folder).glob("*.html"))
    return pages[0] if len(pages) == 1 else None


if __name__ == "__main__":
    main()
