"""Tasks of the cluster: what the driver resolves, Argo's retries, and pods with the launcher."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster import Cluster, Run

USER = 10001
MOUNTS = {"minio://": "minio", "s3://": "s3", "gs://": "gcs"}
SCRATCH = ("tmp", *MOUNTS.values(), ".local", ".cache", ".config")
Json = dict[str, Any]


@dataclass(frozen=True)
class Version:
    """What differs between releases of Kubeflow Pipelines.

    Attributes:
        name: The release.
        task_root: Whether outputs have names, and the output file lies beside them (2.15).
        max_duration: Argo's maxDuration, in seconds, of a retry policy without one; None: no limit.
        policy: Argo's retryPolicy where a template names none.
        retries: Retries of a task that has no retry policy.
        numbered_logs: Whether the URI of the logs ends with the number of the attempt.
    """

    name: str
    task_root: bool
    max_duration: float | None
    policy: str
    retries: int = 0
    numbered_logs: bool = False


V2_5 = Version("2.5.0", False, None, "OnFailure")
V2_14 = Version("2.14.0", False, 0.0, "OnFailure")
V2_17 = Version("2.17.0", True, 0.0, "OnError", retries=2, numbered_logs=True)


@dataclass(frozen=True)
class Loss:
    """The loss of a task's first pod.

    Attributes:
        after: Text in the task's log at which it happens.
        vanishes: Whether the pod object is gone at once, as with its node; else its containers get
            SIGTERM, as on an eviction.
    """

    after: str
    vanishes: bool = False


@dataclass(frozen=True)
class Attempt:
    """One pod of a task.

    Attributes:
        phase: Succeeded, Failed (a container ended with a status) or Error (the pod vanished).
        status: Exit status of the container.
    """

    phase: str
    status: int


@dataclass
class Task:
    """The result of a task.

    Attributes:
        name: Its name.
        attempts: Its pods.
        log: What it printed, in all attempts.
        outputs: Id of each output artifact in ML Metadata, by key.
        skipped: Whether its condition did not hold.
    """

    name: str
    attempts: list[Attempt] = field(default_factory=list)
    log: str = ""
    outputs: dict[str, int] = field(default_factory=dict)
    skipped: bool = False

    @property
    def succeeded(self) -> bool:
        return bool(self.attempts) and self.attempts[-1].phase == "Succeeded"


@dataclass(frozen=True)
class Context:
    """What the tasks of a run share."""

    cluster: "Cluster"
    spec: Json
    platform: Json
    folder: Path
    root: str
    parameters: Mapping[str, Any]

    def kubernetes(self, label: str) -> Json:
        """What the platform document says of an executor."""
        executors = (
            self.platform.get("platforms", {})
            .get("kubernetes", {})
            .get("deploymentSpec", {})
            .get("executors", {})
        )
        parsed: Json = self.cluster.parse("KubernetesExecutorConfig", executors.get(label, {}))
        return parsed


class Driver:
    """A task's driver, its retries, and its pods."""

    def __init__(self, context: Context, run: "Run", name: str, task: Json) -> None:
        self._context, self._cluster, self._made = context, context.cluster, run
        self._name, self._task = name, task
        self._component = context.spec["components"][task["componentRef"]["name"]]
        self._label = self._component["executorLabel"]
        executors = context.spec["deploymentSpec"]["executors"]
        self._container = executors[self._label]["container"]

    def run(self, loss: Loss | None) -> Task:
        unknown = {"artifactIterator", "parameterIterator"} & set(self._task)
        unknown |= set(self._task.get("triggerPolicy", ())) - {"condition"}
        assert not unknown, f"this cluster does not know {unknown}"
        given = self._executor_input()
        result, began = Task(self._name), time.monotonic()
        condition = self._task.get("triggerPolicy", {}).get("condition", "true")
        if not _evaluated(condition, given):
            result.skipped = True
            return result
        while True:
            attempt = self._attempt(given, loss, result)
            result.attempts.append(attempt)
            if attempt.phase == "Succeeded":
                return result
            passed = time.monotonic() - began
            policy = self._task.get("retryPolicy")
            if not retried(self._cluster.version, policy, attempt, len(result.attempts), passed):
                return result
            loss = None

    def _executor_input(self) -> Json:
        """What the driver resolves (driver/resolve.go, provisionOutputs in driver/driver.go)."""
        version, inputs = self._cluster.version, self._task.get("inputs", {})
        values = {}
        definitions = self._component.get("inputDefinitions", {}).get("parameters", {})
        for name, source in inputs.get("parameters", {}).items():
            if "componentInputParameter" in source:
                values[name] = self._context.parameters[source["componentInputParameter"]]
            else:
                values[name] = source["runtimeValue"]["constant"]
        for name, definition in definitions.items():
            if name in values:
                values[name] = _typed(name, definition["parameterType"], values[name])
            else:
                optional = definition.get("isOptional") or "defaultValue" in definition
                assert optional, f"neither value nor default value for {name}"
        artifacts = {}
        for name, source in inputs.get("artifacts", {}).items():
            producer = source["taskOutputArtifact"]
            key = self._made.tasks[producer["producerTask"]].outputs[producer["outputArtifactKey"]]
            artifacts[name] = {"artifacts": [self._cluster.metadata.artifact(key)]}
        declared = dict(self._component.get("outputDefinitions", {}).get("artifacts", {}))
        # PUBLISH_LOGS of the API server is on by default.
        declared["executor-logs"] = {"artifactType": {"schemaTitle": "system.Artifact"}}
        root = f"{self._context.root}/{self._name}/{uuid.uuid4()}"
        outputs = {}
        for key, definition in declared.items():
            artifact = {"type": definition["artifactType"], "uri": f"{root}/{key}"}
            if version.task_root:
                artifact["name"] = key
            if "metadata" in definition:
                artifact["metadata"] = definition["metadata"]
            outputs[key] = {"artifacts": [artifact]}
        file = "/tmp/kfp_outputs/output_metadata.json"
        if version.task_root:
            file = f"{_local(root)}/output_metadata.json"
        given = {
            "inputs": {"parameterValues": values, "artifacts": artifacts},
            "outputs": {"artifacts": outputs, "outputFile": file},
        }
        parsed: Json = _whole_numbers(self._cluster.parse("ExecutorInput", given))
        return parsed

    def _attempt(self, given: Json, loss: Loss | None, result: Task) -> Attempt:
        number = len(result.attempts)
        given = json.loads(json.dumps(given))
        if self._cluster.version.numbered_logs:
            logs = given["outputs"]["artifacts"]["executor-logs"]["artifacts"][0]
            logs["uri"] += f"-{number}"
        pod = self._context.folder / self._name / str(number)
        self._stage(given, pod)
        attempt, log = self._contain(given, pod, loss)
        result.log += log
        if attempt.phase == "Succeeded":
            try:
                result.outputs = self._publish(given, pod)
            except ValueError as error:
                result.log += f"failed to publish: {error}"
                return Attempt("Failed", 1)
        return attempt

    def _stage(self, given: Json, pod: Path) -> None:
        """Scratch volumes, with the inputs from the object store and the outputs' folders."""
        for name in SCRATCH:
            (pod / name).mkdir(parents=True)
        for listed in given["inputs"].get("artifacts", {}).values():
            for artifact in listed["artifacts"]:
                _copy(self._cluster.key(artifact["uri"]), pod / _local(artifact["uri"])[1:])
        for listed in given["outputs"]["artifacts"].values():
            local = pod / _local(listed["artifacts"][0]["uri"])[1:]
            local.parent.mkdir(parents=True, exist_ok=True)
        for path in (pod, *pod.rglob("*")):
            os.chown(path, USER, USER)
        for name in SCRATCH:
            # As an emptyDir is made.
            os.chown(pod / name, 0, 0)
            (pod / name).chmod(0o777)

    def _contain(self, given: Json, pod: Path, loss: Loss | None) -> tuple[Attempt, str]:
        environment = self._cluster.environment | {"KFP_POD_NAME": f"{self._name}-pod"}
        words = [*self._container["command"], *self._container.get("args", ())]
        component = {
            key: self._component[key]
            for key in ("inputDefinitions", "outputDefinitions")
            if key in self._component
        }
        launcher = [
            *("/opt/venv/bin/python", "-IS", "/kfp-launcher/launcher.py"),
            *("--executor_input", _dump(given), "--component_spec", _dump(component), "--"),
        ]
        command = [_expanded(word, environment) for word in (*launcher, *words)]
        emissary = ["/opt/venv/bin/python", "-IS", "/var/run/argo/emissary.py", *command]
        kubernetes = self._context.kubernetes(self._label)
        mounts = {m["mountPath"]: _claim(m) for m in kubernetes.get("pvcMount", ())}
        return watch(self._cluster.pod(pod, mounts, environment, emissary), loss)

    def _publish(self, given: Json, pod: Path) -> dict[str, int]:
        """Uploads the outputs and records them (uploadOutputArtifacts in launcher_v2.go)."""
        file = pod / given["outputs"]["outputFile"][1:]
        answer = self._cluster.parse("ExecutorOutput", file.read_text()) if file.exists() else {}
        recorded = {}
        for key, listed in given["outputs"]["artifacts"].items():
            artifact = dict(listed["artifacts"][0])
            changes = answer.get("artifacts", {}).get(key, {}).get("artifacts", ())[:1]
            for change in changes if key != "executor-logs" else ():
                artifact["uri"] = change.get("uri") or artifact["uri"]
                artifact["metadata"] = artifact.get("metadata", {}) | change.get("metadata", {})
            local = pod / _local(artifact["uri"])[1:]
            if local.exists():
                _copy(local, self._cluster.key(artifact["uri"]))
            elif key == "executor-logs":
                continue
            recorded[key] = self._cluster.metadata.record(key, artifact)
        return recorded


def watch(command: list[str], loss: Loss | None = None) -> tuple[Attempt, str]:
    """Runs a pod to its end."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [str(write) if word == "{info}" else word for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[write],
    )
    os.close(write)
    with os.fdopen(read) as info:
        inside = _first_json(info)
    lines, lost = [], False
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if loss and not lost and loss.after in line:
            lost = True
            os.kill(inside["child-pid"], signal.SIGKILL if loss.vanishes else signal.SIGTERM)
    status = process.wait()
    phase = "Failed" if status else "Succeeded"
    return Attempt("Error" if lost and loss and loss.vanishes else phase, status), "".join(lines)


def retried(
    version: Version, policy: Json | None, attempt: Attempt, attempts: int, passed: float
) -> bool:
    """Returns whether Argo starts another pod (processNodeRetries in controller/operator.go).

    Args:
        version: The release.
        policy: RetryPolicy of the task; None if it has none.
        attempt: The last pod.
        attempts: Pods so far.
        passed: Seconds since the start of the first one.
    """
    limit = policy["maxRetryCount"] if policy else version.retries
    if policy:
        most = _seconds(policy["backoffMaxDuration"]) if "backoffMaxDuration" in policy else None
        most = version.max_duration if most is None else most
        delay = _seconds(policy.get("backoffDuration", "0s"))
        delay *= policy.get("backoffFactor", 1.0) ** (attempts - 1)
        # Max duration limit exceeded; or the backoff would exceed it.
        if most is not None and passed + delay > most:
            return False
    kinds = {"OnFailure": ("Failed",), "OnError": ("Error",), "Always": ("Failed", "Error")}
    return attempt.phase in kinds[version.policy] and attempts <= limit


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def _typed(name: str, kind: str, value: Any) -> Any:
    """A parameter as the driver checks and converts it."""
    if kind == "STRING":
        return value if isinstance(value, str) else json.dumps(_whole_numbers(value))
    kinds = {"NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool}
    kinds |= {"LIST": list, "STRUCT": dict}
    assert isinstance(value, kinds[kind]), f"input parameter {name} type mismatch: {value!r}"
    return value


def _evaluated(condition: str, given: Json) -> bool:
    """Evaluates a condition (expression/expression.go) of CEL's subset that TFX writes."""

    class Message(dict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            return self[name]

    fields = json.loads(json.dumps(given), object_hook=Message)
    python = condition.replace("&&", " and ").replace("!(", " not (")
    return bool(eval(python, {"__builtins__": {}, "true": True}, fields))


def _whole_numbers(value: Any) -> Any:
    """A JSON value as protojson writes it: 2.0 as 2."""
    if isinstance(value, dict):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _dump(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _expanded(word: str, environment: Mapping[str, str]) -> str:
    """A word of a command as Kubernetes expands it: $(NAME), and $$ for $."""

    def expand(found: re.Match[str]) -> str:
        whole, name = found[0], found[1]
        return "$" if whole == "$$" else environment.get(name, whole)

    return re.sub(r"\$\$|\$\(([^)]*)\)", expand, word)


def _claim(mount: Json) -> str:
    source = mount.get("pvcNameParameter")
    claim = source["runtimeValue"]["constant"] if source else mount["constant"]
    # The claim's name becomes the volume's name.
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", claim), f"no DNS label: {claim}"
    return str(claim)


def _local(uri: str) -> str:
    for scheme, folder in MOUNTS.items():
        if uri.startswith(scheme):
            return f"/{folder}/{uri.removeprefix(scheme)}"
    raise AssertionError(f"unsupported storage scheme: {uri}")


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        # An object store has no empty folders.
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            target = destination / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        destination.mkdir(parents=True, exist_ok=True)
    elif source.exists():
        shutil.copyfile(source, destination)


def _first_json(stream: Any) -> Json:
    text = ""
    for line in stream:
        text += line
        try:
            found: Json = json.loads(text)
        except json.JSONDecodeError:
            continue
        return found
    raise AssertionError(f"the sandbox did not start: {text}")
