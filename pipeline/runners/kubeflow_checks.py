"""Compiled pipelines: how they are read, and the rules that a server and its pods enforce.

It knows files that `plateau compile` writes. Their structure is checked by Kubeflow's own protocol
buffers; the rules are those of the backend of Kubeflow Pipelines 2.5 to 2.17, and of Vertex AI.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, TypeAlias

import yaml

from trainer_module.util.checks import require

Target: TypeAlias = Literal["kfp", "vertex"]
Json: TypeAlias = Mapping[str, Any]

ENTRYPOINT = "components.container"
"""Module that runs a component in its container, and the component's driver first."""

LONGEST_ARGUMENT = 100_000
"""Bytes of one argument of a task. Linux allows 131,072; artifacts take some of them."""

_LARGEST_FILE = 10 * 1024 * 1024
_DEEPEST = 64
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
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "STRING": str,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
# An artifact of ExecutorInput: its URI, its type, and what the backend adds.
_ARTIFACT_BYTES = 1000
_COMPILE = "Write one with `plateau compile`."


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
        spec: The PipelineSpec, with the keys of its JSON form.
        platform: The PlatformSpec; None if there is none.
        target: What it was compiled for.
    """

    spec: Json
    platform: Json | None = None
    target: Target = "kfp"

    @property
    def tasks(self) -> Json:
        """The tasks by name."""
        tasks: Json = self.spec["root"]["dag"]["tasks"]
        return tasks

    @property
    def containers(self) -> Mapping[str, Json]:
        """The container of each executor, by label."""
        executors = self.spec["deploymentSpec"]["executors"]
        return {label: executor["container"] for label, executor in executors.items()}

    @property
    def parameters(self) -> Mapping[str, Json]:
        """The parameters of a run by name."""
        found: Mapping[str, Json] = (
            self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        )
        return found

    @property
    def kubernetes(self) -> Mapping[str, Json]:
        """What the platform document says of each executor, by label."""
        found: Any = self.platform or {}
        for key in ("platforms", "kubernetes", "deploymentSpec", "executors"):
            found = found.get(key, {})
        return dict(found)


def load(path: Path) -> Compiled:
    """Reads a file that `plateau compile` wrote, and checks it.

    Args:
        path: YAML file for Kubeflow Pipelines, or JSON file for Vertex AI.

    Raises:
        ValueError: It is another file, or it has `problems`.
        OSError: It cannot be read.
    """
    require(
        path.is_file(), "FILE must be a pipeline that `plateau compile` wrote", str(path), _COMPILE
    )
    try:
        compiled = _compiled(_documents(path))
        found = problems(compiled)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        yaml.YAMLError,
    ) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise ValueError(
            f"FILE must be a pipeline that `plateau compile` wrote, got {str(path)!r} ({reason}). "
            f"{_COMPILE}"
        ) from None
    if found:
        raise ValueError("\n".join(found))
    return compiled


def problems(compiled: Compiled) -> tuple[str, ...]:
    """Returns what would fail on the server or in a pod: rule, value received and remedy."""
    return tuple(problem for rule in _RULES for problem in rule(compiled))


def warnings(compiled: Compiled) -> tuple[str, ...]:
    """Returns what may fail, or may give other results another day."""
    return tuple(warning for rule in _WARNINGS for warning in rule(compiled))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads the YAML that `plateau compile` writes.

    Whole numbers have at most 19 digits, in base 10: the time to read one in base 60 grows with the
    square of its length.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [pair for pair in pairs if not pair[0].endswith((":int", ":timestamp"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?\d{1,19}$"), list("-+0123456789")
)


def _documents(path: Path) -> list[Any]:
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"more than {_LARGEST_FILE // 2**20} MiB")
    text = content.decode("utf-8-sig")
    if text.lstrip().startswith("{"):
        return [json.loads(text)]
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            # A few lines of them can expand without bound.
            raise ValueError("YAML with aliases")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels of nesting")
    parts = yaml.load_all(text, Loader=_Loader)  # noqa: TID251
    return [part for part in parts if part is not None]


def _compiled(documents: list[Any]) -> Compiled:
    if not documents or len(documents) > 2 or not all(isinstance(d, dict) for d in documents):
        raise ValueError("no pipeline")
    first, *rest = documents
    if "pipelineSpec" in first:
        compiled = Compiled(first["pipelineSpec"], None, "vertex")
    else:
        compiled = Compiled(first, rest[0] if rest else None)
    _parse(compiled.spec)
    if compiled.platform is not None and set(compiled.platform) != {"platforms"}:
        raise ValueError("a second document that is no PlatformSpec")
    commands = {label: list(c.get("command", ())) for label, c in compiled.containers.items()}
    others = [label for label, command in commands.items() if ENTRYPOINT not in command]
    if others or not commands:
        raise ValueError(f"{others[0]} does not run {ENTRYPOINT}" if others else "no tasks")
    return compiled


def _parse(spec: Any) -> None:
    """Parses a PipelineSpec strictly.

    Raises:
        ValueError: It is none.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        json_format.ParseDict(_older(spec), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        # The rest lists all fields that there are.
        raise ValueError(str(error).partition(" Available Fields")[0]) from None


def _older(value: Any) -> Any:
    """A spec without the fields that are newer than the protocol buffers installed here."""
    if isinstance(value, dict):
        return {
            key: _older(inner)
            for key, inner in value.items()
            if not re.fullmatch(r"resource(Cpu|Memory)(Limit|Request)|resource(Type|Count)", key)
        }
    return [_older(inner) for inner in value] if isinstance(value, list) else value


def _schema(compiled: Compiled) -> Iterator[str]:
    version = compiled.spec.get("schemaVersion", "")
    if compiled.target == "kfp" and not version.startswith("2.1."):
        yield f"schemaVersion must be 2.1, got {version!r}. {_COMPILE}"


def _name(compiled: Compiled) -> Iterator[str]:
    name = compiled.spec.get("pipelineInfo", {}).get("name", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", name):
        yield (
            f"a pipeline's name must be 1 to 128 lower-case letters, digits and hyphens, got "
            f"{name!r}. Give the run another name."
        )


def _root(compiled: Compiled) -> Iterator[str]:
    root, schemes = compiled.spec.get("defaultPipelineRoot"), _SCHEMES[compiled.target]
    if root is None and compiled.target == "kfp":
        return
    if not any(str(root).startswith(scheme) and root != scheme for scheme in schemes):
        yield (
            f"the pipeline root must begin with {', '.join(schemes)}, got {root!r}. "
            f"Try --root {schemes[0]}BUCKET/plateau."
        )


def _images(compiled: Compiled) -> Iterator[str]:
    for image in sorted({container.get("image", "") for container in compiled.containers.values()}):
        if not re.fullmatch(r"[^\s]+", image):
            yield f"image must be one word, got {image!r}. Name it with --image."
        elif _TFX_IMAGE.fullmatch(image):
            yield (
                f"image must contain this project's packages, got TFX's own, {image!r}. "
                "Build one from deploy/Dockerfile."
            )


def _executors(compiled: Compiled) -> Iterator[str]:
    for label, container in compiled.containers.items():
        path = _option(container, "--executor_class_path")
        if not _is_class(path):
            yield (
                f"the executor of {label} must be a class that can be imported, got {path!r}. "
                f"{_COMPILE}"
            )


def _retries(compiled: Compiled) -> Iterator[str]:
    for name, task in compiled.tasks.items():
        policy = task.get("retryPolicy")
        if compiled.target == "kfp" and policy and not policy.get("backoffMaxDuration"):
            yield (
                f"the retry policy of {name} must have a backoffMaxDuration, got none: Kubeflow "
                f"Pipelines 2.14 to 2.17 takes that for 0 and never tries again. {_COMPILE}"
            )


def _volumes(compiled: Compiled) -> Iterator[str]:
    mounts = {
        (str(mount.get("constant")), str(mount.get("mountPath")))
        for executor in compiled.kubernetes.values()
        for mount in executor.get("pvcMount", ())
    }
    for claim, path in sorted(mounts):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", claim):
            yield (
                "a claim's name becomes the name of a volume, and must be at most 63 lower-case "
                f"letters, digits and hyphens, got {claim!r}. Rename the claim."
            )
        folder = PurePosixPath(path)
        if any(
            folder.is_relative_to(r) or PurePosixPath(r).is_relative_to(folder) for r in _RESERVED
        ):
            yield (
                f"a volume must be mounted apart from folders of the image and of Kubeflow, got "
                f"{path!r}. Try --volume {claim}:/workspace."
            )
    unknown = sorted(set(compiled.kubernetes) - set(compiled.containers))
    if unknown:
        yield (
            "the platform document must name executors of the pipeline, got "
            f"{', '.join(unknown)}. {_COMPILE}"
        )


def _parameters(compiled: Compiled) -> Iterator[str]:
    for name, parameter in compiled.parameters.items():
        kind, default = str(parameter.get("parameterType")), parameter.get("defaultValue")
        if kind not in _TYPES:
            yield f"the type of {name} must be one of {', '.join(_TYPES)}, got {kind!r}. {_COMPILE}"
        elif default is not None and not _fits(default, kind):
            yield f"the default of {name} must be {kind}, got {default!r}. {_COMPILE}"
    for task_name, task in compiled.tasks.items():
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            outer = source.get("componentInputParameter")
            if outer is not None and outer not in compiled.parameters:
                yield (
                    f"{name} of {task_name} must come from a parameter of the pipeline, got "
                    f"{outer!r}. {_COMPILE}"
                )


def _producers(compiled: Compiled) -> Iterator[str]:
    for name, task in compiled.tasks.items():
        before = set(task.get("dependentTasks", ()))
        for key, source in task.get("inputs", {}).get("artifacts", {}).items():
            producer = source.get("taskOutputArtifact", {}).get("producerTask")
            if producer not in compiled.tasks or producer not in before:
                yield (
                    f"{key} of {name} must come from one of its dependentTasks, which alone order "
                    f"tasks, got {producer!r}. {_COMPILE}"
                )


def _arguments(compiled: Compiled) -> Iterator[str]:
    for name, task in compiled.tasks.items():
        component = compiled.spec["components"][task["componentRef"]["name"]]
        values = _values(compiled, task, component)
        artifacts = [
            *task.get("inputs", {}).get("artifacts", {}),
            *component.get("outputDefinitions", {}).get("artifacts", {}),
        ]
        # ExecutorInput is one argument.
        invocation = len(json.dumps(values).encode()) + _ARTIFACT_BYTES * (len(artifacts) + 1)
        container = compiled.containers[component["executorLabel"]]
        longest = max(invocation, *(len(w.encode()) for w in container.get("args", ())))
        if longest > LONGEST_ARGUMENT:
            key = max(values, key=lambda key: len(json.dumps(values[key])), default="")
            yield (
                f"the parameters of {name} must fit in {LONGEST_ARGUMENT:,} bytes, since they are "
                f"one argument of a program, got {longest:,} of which {key} takes most. "
                "Use fewer or shorter class names, or a shorter schema."
            )
        if compiled.target == "kfp":
            for key, value in values.items():
                found = re.search(r"\$\$|\$\(|\{\{", json.dumps(value))
                if found:
                    yield (
                        f"{key} of {name} must not contain $$, $( or {{{{, which Kubernetes and "
                        f"Kubeflow replace, got {found[0]!r}. Rename what contains it."
                    )


def _floating_tags(compiled: Compiled) -> Iterator[str]:
    for image in sorted({container.get("image", "") for container in compiled.containers.values()}):
        name, digest, _ = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not digest and tag in ("", "latest"):
            yield (
                f"image should have a tag that stays what it is, got {image!r}. A later build "
                "would change runs and the cache: name a version or a digest."
            )


def _folders(compiled: Compiled) -> Iterator[str]:
    """Folders that a task would look for inside its own container."""
    for name, parameter in compiled.parameters.items():
        folder = parameter.get("defaultValue")
        if not isinstance(folder, str) or not folder.startswith("/"):
            continue
        for task_name, task in compiled.tasks.items():
            sources = task.get("inputs", {}).get("parameters", {}).values()
            if not any(source.get("componentInputParameter") == name for source in sources):
                continue
            label = compiled.spec["components"][task["componentRef"]["name"]]["executorLabel"]
            mounts = compiled.kubernetes.get(label, {}).get("pvcMount", ())
            places = ["/gcs"] if compiled.target == "vertex" else [m["mountPath"] for m in mounts]
            if not any(PurePosixPath(folder).is_relative_to(place) for place in places):
                yield (
                    f"{name} should be a folder on a volume of {task_name}, got {folder!r}, which "
                    "would be inside the container. Mount a volume there, or name a bucket."
                )
                break


_RULES: tuple[Callable[[Compiled], Iterator[str]], ...] = (
    *(_schema, _name, _root, _images, _executors, _retries, _volumes),
    *(_parameters, _producers, _arguments),
)
_WARNINGS: tuple[Callable[[Compiled], Iterator[str]], ...] = (_floating_tags, _folders)


def _values(compiled: Compiled, task: Json, component: Json) -> dict[str, Any]:
    """The values of a task's parameters, those of a run as by default."""
    definitions = component.get("inputDefinitions", {}).get("parameters", {})
    values = {
        key: found["defaultValue"] for key, found in definitions.items() if "defaultValue" in found
    }
    for key, source in task.get("inputs", {}).get("parameters", {}).items():
        outer = source.get("componentInputParameter")
        values[key] = (
            compiled.parameters.get(outer, {}).get("defaultValue")
            if outer is not None
            else source.get("runtimeValue", {}).get("constant")
        )
    return values


def _fits(value: object, kind: str) -> bool:
    if isinstance(value, bool) and kind != "BOOLEAN":
        return False
    whole = kind != "NUMBER_INTEGER" or not isinstance(value, float) or value.is_integer()
    return whole and isinstance(value, _TYPES[kind])


def _option(container: Json, flag: str) -> str:
    words = list(container.get("args", ()))
    return str(words[words.index(flag) + 1]) if flag in words[:-1] else ""


def _is_class(path: str) -> bool:
    """Whether a dotted path leads to a class; found without importing its package."""
    module, _, name = path.rpartition(".")
    top, *inner = module.split(".")
    try:
        found = find_spec(top)
    except (ImportError, ValueError):
        return False
    for folder in (found.submodule_search_locations or ()) if found else ():
        place = Path(folder, *inner)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file() and re.search(rf"^class {re.escape(name)}\b", file.read_text(), re.M):
                return True
    return False
