"""Reader of compiled pipelines, and the rules that a server and its pods enforce.

It knows files that `plateau compile` writes. Their structure is checked by Kubeflow's own protocol
buffers; the rules are those of the backend of Kubeflow Pipelines 2.5 to 2.17, and of Vertex AI.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import yaml

from trainer_module.util.checks import UserError, require

Target: TypeAlias = Literal["kfp", "vertex"]
Json: TypeAlias = Mapping[str, Any]

ENTRYPOINT = "components.container"
"""Module that runs a component in its container, and the component's driver first."""

LONGEST_ARGUMENT = 100_000
"""Bytes of one argument of a task. Linux allows 131,072; artifacts take some of them."""

_LARGEST_FILE = 10 * 1024 * 1024
_DEEPEST = 64
# Text is quoted, and reading a number in base 60 takes the square of its length.
_LONGEST_PLAIN = 500
_LONGEST_REASON = 200
_SCHEMES: Mapping[Target, tuple[str, ...]] = {
    "kfp": ("minio://", "s3://", "gs://"),
    "vertex": ("gs://",),
}
# Folders of the launcher, of Argo and of the image.
_RESERVED = (
    *("/kfp-workspace", "/kfp-launcher", "/minio", "/s3", "/gcs", "/tmp", "/var/run/argo"),  # noqa: S108
    *("/app", "/opt/venv", "/bin", "/dev", "/etc", "/lib", "/proc", "/sbin", "/sys", "/usr"),
)
_TFX_IMAGE = re.compile(r"(gcr\.io/tfx-oss-public|(docker\.io/)?tensorflow)/tfx([:@].*)?")
_TYPES = {"NUMBER_INTEGER": int, "STRING": str}
# Newer than the protocol buffers installed here.
_NEW_FIELDS = re.compile(r"resource(Cpu|Memory)(Limit|Request)|resource(Type|Count)")
# An artifact of ExecutorInput: its URI, its type, and what the backend adds.
_ARTIFACT_BYTES = 1000
_COMPILE = "Write one with `plateau compile`."


@dataclass(frozen=True)
class Compiled:
    """Compiled pipeline."""

    spec: Json
    """The PipelineSpec, with the keys of its JSON form."""
    platform: Json | None = None
    """The PlatformSpec; None if there is none."""
    target: Target = "kfp"
    """What it was compiled for."""

    @property
    def tasks(self) -> Mapping[str, Json]:
        """The tasks by name."""
        return dict(self.spec["root"]["dag"]["tasks"])

    @property
    def containers(self) -> Mapping[str, Json]:
        """The container of each executor, by label."""
        executors = self.spec["deploymentSpec"]["executors"]
        return {label: executor["container"] for label, executor in executors.items()}

    @property
    def images(self) -> list[str]:
        """The container images, each once."""
        return sorted({container.get("image", "") for container in self.containers.values()})

    @property
    def parameters(self) -> Mapping[str, Json]:
        """The parameters of a run by name."""
        return dict(self.spec["root"].get("inputDefinitions", {}).get("parameters", {}))

    @property
    def kubernetes(self) -> Mapping[str, Json]:
        """The part of the platform document for each executor, by label."""
        part: Any = self.platform or {}
        for key in ("platforms", "kubernetes", "deploymentSpec", "executors"):
            part = part.get(key, {})
        return dict(part)

    def component(self, task: Json) -> Json:
        """Returns the component of a task."""
        return dict(self.spec["components"][task["componentRef"]["name"]])


def load(path: Path) -> Compiled:
    """Reads a file that `plateau compile` wrote, and checks it.

    Args:
        path: YAML file for Kubeflow Pipelines, or JSON file for Vertex AI.

    Raises:
        UserError: It is another file, or breaks a rule.
        OSError: It cannot be read.
    """
    rule = "FILE must be a pipeline that `plateau compile` wrote"
    require(path.is_file(), rule, str(path), _COMPILE)
    try:
        compiled = _compiled(_documents(path))
        check(compiled)
    except UserError:
        raise
    except (
        *(ValueError, LookupError, TypeError, AttributeError, RecursionError),
        yaml.YAMLError,
    ) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise UserError(rule, str(path), f"{_COMPILE} ({reason})") from None
    return compiled


def _documents(path: Path) -> list[Any]:
    """Returns the documents of a YAML or JSON file that may be hostile."""
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"more than {_LARGEST_FILE // 2**20} MiB")
    text = content.decode("utf-8-sig")
    if text.lstrip().startswith("{"):
        return [json.loads(text)]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            # A few lines of them can expand without bound.
            raise ValueError("YAML with aliases")
        plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if plain and len(event.value) > _LONGEST_PLAIN:
            raise ValueError("a long value without quotes")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels of nesting")
    parts = yaml.load_all(text, Loader=loader)  # noqa: TID251
    return [part for part in parts if part is not None]


def _compiled(documents: list[Any]) -> Compiled:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    if not documents or len(documents) > 2 or not all(isinstance(d, dict) for d in documents):
        raise ValueError("no pipeline")
    first, *rest = documents
    if "pipelineSpec" in first:
        compiled = Compiled(first["pipelineSpec"], None, "vertex")
    else:
        compiled = Compiled(first, rest[0] if rest else None)
    try:
        json_format.ParseDict(_without_new_fields(compiled.spec), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        # The rest lists all fields that there are.
        raise ValueError(str(error).partition(" Available Fields")[0]) from None
    if compiled.platform is not None and set(compiled.platform) != {"platforms"}:
        raise ValueError("a second document that is no PlatformSpec")
    if not compiled.containers:
        raise ValueError("no tasks")
    for label, container in compiled.containers.items():
        if ENTRYPOINT not in list(container.get("command", ())):
            raise ValueError(f"{label} does not run {ENTRYPOINT}")
    return compiled


def _without_new_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_new_fields(v) for k, v in value.items() if not _NEW_FIELDS.fullmatch(k)}
    return [_without_new_fields(each) for each in value] if isinstance(value, list) else value


def check(compiled: Compiled) -> None:
    """Raises UserError for what would fail on the server or in a pod."""
    _check_header(compiled)
    _check_images(compiled)
    _check_volumes(compiled)
    _check_parameters(compiled)
    for name, task in compiled.tasks.items():
        _check_task(compiled, name, task)
        _check_arguments(compiled, name, task)


def _check_header(compiled: Compiled) -> None:
    version = str(compiled.spec.get("schemaVersion"))
    require(
        compiled.target == "vertex" or version.startswith("2.1."),
        "schemaVersion must be 2.1",
        version,
        _COMPILE,
    )
    name = compiled.spec.get("pipelineInfo", {}).get("name", "")
    require(
        re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", name) is not None,
        "a pipeline's name must be 1 to 128 lower-case letters, digits and hyphens",
        name,
        "Give the run another name.",
    )
    root, schemes = compiled.spec.get("defaultPipelineRoot"), _SCHEMES[compiled.target]
    require(
        (root is None and compiled.target == "kfp")
        or (str(root).startswith(schemes) and root not in schemes),
        f"the pipeline root (`root`) must begin with {', '.join(schemes)}",
        root,
        f"Try `root={schemes[0]}BUCKET/plateau`.",
    )


def _check_images(compiled: Compiled) -> None:
    for image in compiled.images:
        require(
            re.fullmatch(r"\S+", image) is not None,
            "`image` must be one word",
            image,
            "Name it with `image`.",
        )
        require(
            _TFX_IMAGE.fullmatch(image) is None,
            "`image` must contain this project's packages, which TFX's own has not",
            image,
            "Build one from deploy/Dockerfile.",
        )


def _check_volumes(compiled: Compiled) -> None:
    mounts = [m for each in compiled.kubernetes.values() for m in each.get("pvcMount", ())]
    for claim, path in {(str(m.get("constant")), str(m.get("mountPath"))) for m in mounts}:
        require(
            re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", claim) is not None,
            "a claim's name becomes the name of a volume, and must be at most 63 lower-case "
            "letters, digits and hyphens",
            claim,
            "Rename the claim.",
        )
        folder = PurePosixPath(path)
        require(
            not any(
                folder.is_relative_to(reserved) or PurePosixPath(reserved).is_relative_to(folder)
                for reserved in _RESERVED
            ),
            "a volume must be mounted apart from folders of the image and of Kubeflow",
            path,
            f"Try `volume={claim}:/workspace`.",
        )
    unknown = sorted(set(compiled.kubernetes) - set(compiled.containers))
    require(
        not unknown,
        "the platform document must name executors of the pipeline",
        ", ".join(unknown),
        _COMPILE,
    )


def _check_parameters(compiled: Compiled) -> None:
    for name, parameter in compiled.parameters.items():
        kind, default = str(parameter.get("parameterType")), parameter.get("defaultValue")
        require(
            default is None or type(default) is _TYPES.get(kind),
            f"the default of {name} must be {kind}",
            default,
            _COMPILE,
        )


def _check_task(compiled: Compiled, name: str, task: Json) -> None:
    policy = task.get("retryPolicy")
    require(
        compiled.target == "vertex" or not policy or bool(policy.get("backoffMaxDuration")),
        f"the retry policy of {name} must have a backoffMaxDuration: Kubeflow Pipelines 2.14 to "
        "2.17 takes none for 0 and never tries again",
        policy,
        _COMPILE,
    )
    for key, source in task.get("inputs", {}).get("parameters", {}).items():
        outer = source.get("componentInputParameter")
        require(
            outer is None or outer in compiled.parameters,
            f"{key} of {name} must come from a parameter of the pipeline",
            outer,
            _COMPILE,
        )
    for key, source in task.get("inputs", {}).get("artifacts", {}).items():
        producer = source.get("taskOutputArtifact", {}).get("producerTask")
        require(
            producer in compiled.tasks and producer in task.get("dependentTasks", ()),
            f"{key} of {name} must come from one of its dependentTasks, which alone order tasks",
            producer,
            _COMPILE,
        )


def _check_arguments(compiled: Compiled, name: str, task: Json) -> None:
    component = compiled.component(task)
    values = dict(_values(compiled, task, component))
    artifacts = [
        *task.get("inputs", {}).get("artifacts", {}),
        *component.get("outputDefinitions", {}).get("artifacts", {}),
    ]
    # ExecutorInput is one argument.
    invocation = len(json.dumps(values).encode()) + _ARTIFACT_BYTES * (len(artifacts) + 1)
    args = compiled.containers[component["executorLabel"]].get("args", ())
    longest = max(invocation, *(len(word.encode()) for word in args))
    largest = max(values, key=lambda key: len(json.dumps(values[key])), default="")
    require(
        longest <= LONGEST_ARGUMENT,
        f"the parameters of {name}, of which {largest} takes most, must fit in "
        f"{LONGEST_ARGUMENT:,} bytes, since they are one argument of a program",
        longest,
        "Use fewer or shorter class names, or a shorter schema.",
    )
    for key, value in values.items():
        special = re.search(r"\$\$|\$\(|\{\{", json.dumps(value))
        require(
            compiled.target == "vertex" or special is None,
            f"{key} of {name} must not contain $$, $( or {{{{, which Kubernetes and Kubeflow "
            "replace",
            special and special[0],
            "Rename what contains it.",
        )


def _values(compiled: Compiled, task: Json, component: Json) -> Iterator[tuple[str, Any]]:
    """Yields the parameters of a task with their values, those of a run by default."""
    for key, definition in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if "defaultValue" in definition:
            yield key, definition["defaultValue"]
    for key, source in task.get("inputs", {}).get("parameters", {}).items():
        outer = source.get("componentInputParameter")
        if outer is None:
            yield key, source.get("runtimeValue", {}).get("constant")
        else:
            yield key, compiled.parameters.get(outer, {}).get("defaultValue")


def warnings(compiled: Compiled) -> tuple[str, ...]:
    """Returns what may fail, or may give other results another day."""
    return (*_floating_tags(compiled), *_missing_folders(compiled))


def _floating_tags(compiled: Compiled) -> Iterator[str]:
    for image in compiled.images:
        name, digest, _ = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not digest and tag in ("", "latest"):
            yield (
                f"image should have a tag that stays what it is, got {image!r}. A later build "
                "would change runs and the cache: name a version or a digest."
            )


def _missing_folders(compiled: Compiled) -> Iterator[str]:
    """Yields the folders that a task would look for inside its own container."""
    for name, parameter in compiled.parameters.items():
        folder = str(parameter.get("defaultValue"))
        for task_name, task in compiled.tasks.items() if folder.startswith("/") else ():
            sources = task.get("inputs", {}).get("parameters", {}).values()
            if not any(source.get("componentInputParameter") == name for source in sources):
                continue
            label = compiled.component(task)["executorLabel"]
            mounts = compiled.kubernetes.get(label, {}).get("pvcMount", ())
            places = ["/gcs"] if compiled.target == "vertex" else [m["mountPath"] for m in mounts]
            if not any(PurePosixPath(folder).is_relative_to(place) for place in places):
                yield (
                    f"{name} should be a folder on a volume of {task_name}, got {folder!r}, which "
                    "would be inside the container. Mount a volume there, or name a bucket."
                )
                break
