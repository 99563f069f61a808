"""A Kubeflow cluster of one machine: driver, Argo's controller, pods and the launcher.

It follows the source of the backend (kubeflow/pipelines, backend/src/v2, releases 2.5.0 to 2.17.0)
and of the Argo versions that it pins, not what this project expects of them. What a task is given
and what is made of its answer goes through Kubeflow's own protocol buffers and through a real ML
Metadata store. Each task's exact command runs as the image's user in a container of its own, with
the image's environment and folders, without network, and without this repository.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import layout
import protojson
import yaml
from google.protobuf import json_format
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

HERE = Path(__file__).parent
USER = 10001
MOUNTS = {"minio://": "minio", "s3://": "s3", "gs://": "gcs"}
SCRATCH = ("tmp", *MOUNTS.values(), ".local", ".cache", ".config")
DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
SESSION = json.dumps({"Provider": "minio", "Params": {"fromEnv": "false"}})
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
        seconds: From the signal to the end of the pod; 0 if it was not lost.
    """

    phase: str
    status: int
    seconds: float = 0.0


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


class Run:
    """The result of a run: its tasks, and what they left in the store."""

    def __init__(self, cluster: "Cluster") -> None:
        self.tasks: dict[str, Task] = {}
        self._cluster = cluster

    @property
    def succeeded(self) -> bool:
        return all(task.succeeded or task.skipped for task in self.tasks.values())

    @property
    def failures(self) -> dict[str, str]:
        """The end of the log of each task that failed."""
        return {n: task.log[-3000:] for n, task in self.tasks.items() if not task.succeeded}

    def output(self, task: str, key: str) -> Json:
        """An output artifact as a later task would see it."""
        return self._cluster.metadata.artifact(self.tasks[task].outputs[key])

    def stored(self, task: str, key: str) -> Path:
        """Where an output artifact lies in the object store."""
        return self._cluster.key(self.output(task, key)["uri"])


def unavailable() -> str | None:
    """Why pods cannot be run here; None if they can."""
    if os.geteuid() != 0:
        return "pods have users of their own, which needs root"
    for program in ("bwrap", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not protojson.PYTHON.exists():
        return "needs the newest kfp client: make .venv-kfp/.installed"
    tried = subprocess.run(
        ["bwrap", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"bubblewrap cannot make a sandbox: {tried.stderr}"


class Metadata:
    """ML Metadata behind the backend's conversions (metadata/converter.go, client.go)."""

    def __init__(self, path: Path) -> None:
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = 3
        self._store, self._lock = MetadataStore(config), threading.Lock()

    def record(self, key: str, artifact: Json) -> int:
        """Records an output artifact; returns its id."""
        kind = artifact["type"]
        schema = kind.get("instanceSchema") or f"title: {kind['schemaTitle']}"
        made = metadata_store_pb2.Artifact(uri=artifact["uri"], state="LIVE")
        properties = {
            "display_name": key,
            "store_session_info": SESSION,
            **artifact.get("metadata", {}),
        }
        for name, value in properties.items():
            made.custom_properties[name].CopyFrom(_to_mlmd(name, value))
        with self._lock:
            made.type_id = self._store.put_artifact_type(
                metadata_store_pb2.ArtifactType(name=yaml.safe_load(schema)["title"])
            )
            return int(self._store.put_artifacts([made])[0])

    def artifact(self, identity: int) -> Json:
        """An artifact as the driver hands it to a later task: with an empty type."""
        with self._lock:
            (made,) = self._store.get_artifacts_by_id([identity])
        properties = (*made.properties.items(), *made.custom_properties.items())
        return {
            "name": str(made.id),
            "type": {"instanceSchema": ""},
            "uri": made.uri,
            "metadata": {name: _from_mlmd(value) for name, value in properties},
        }


class Cluster:
    """A cluster of one machine.

    Args:
        root: Folder for the object store, ML Metadata and the pods.
        app: Folder with the layout of the image's /app.
        claims: Folder of each PersistentVolumeClaim, by name.
        version: Release of Kubeflow Pipelines.
        default_root: Pipeline root in the ConfigMap kfp-launcher.
        publish_logs: PUBLISH_LOGS of the API server, on by default.
        environment: Environment of the image; that of deploy/Dockerfile if not given.
    """

    def __init__(
        self,
        root: Path,
        app: Path,
        claims: Mapping[str, Path],
        version: Version,
        default_root: str = DEFAULT_ROOT,
        publish_logs: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self.app, self.claims, self.version = root, app, claims, version
        self.default_root, self.publish_logs = default_root, publish_logs
        self.environment = dict(layout.environment() if environment is None else environment)
        root.mkdir(parents=True, exist_ok=True)
        self.parse = protojson.Parser()
        self.metadata = Metadata(root / "mlmd.sqlite")
        self._runs = 0

    def close(self) -> None:
        self.parse.close()

    def key(self, uri: str) -> Path:
        """Where a URI lies in the object store."""
        return self.root / "store" / uri.replace("://", "/")

    def run(
        self,
        file: Path,
        values: Mapping[str, Any] | None = None,
        pipeline_root: str | None = None,
        lose: Mapping[str, Loss] | None = None,
        only: set[str] | None = None,
        cached: Run | None = None,
        at_once: int = 2,
    ) -> Run:
        """Runs a compiled pipeline.

        Args:
            file: The YAML file.
            values: Values of parameters; the file's defaults for the others.
            pipeline_root: Pipeline root of the run; None for that of the server.
            lose: Tasks that lose their first pod.
            only: Tasks to run; None for all. The others hold up none of these.
            cached: Earlier run whose results the other tasks have, as from the server's cache.
            at_once: Tasks that may run at the same time.

        Returns:
            The run; what depends on a task that failed is not in it.
        """
        documents = list(yaml.safe_load_all(file.read_text()))
        spec = self.parse("PipelineSpec", documents[0])
        platform = self.parse("PlatformSpec", documents[1]) if documents[1:] else {}
        self._runs += 1
        run = Run(self)
        parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        context = _Context(
            self,
            spec,
            platform,
            folder=self.root / f"run{self._runs}",
            root="/".join(
                (
                    (pipeline_root or self.default_root).rstrip("/"),
                    spec["pipelineInfo"]["name"],
                    f"run{self._runs}",
                )
            ),
            parameters={
                name: (values or {}).get(name, parameter.get("defaultValue"))
                for name, parameter in parameters.items()
            },
        )
        tasks = spec["root"]["dag"]["tasks"]
        waiting = {name: task for name, task in tasks.items() if only is None or name in only}
        selected = set(waiting)
        if cached is not None:
            run.tasks = {name: t for name, t in cached.tasks.items() if name not in selected}
        running: dict[Future[Task], str] = {}
        with ThreadPoolExecutor(at_once) as pool:
            while waiting or running:
                done = {name for name, task in run.tasks.items() if task.succeeded}
                # Kubeflow orders tasks by dependentTasks alone.
                before = {
                    n: selected & set(t.get("dependentTasks", ())) for n, t in waiting.items()
                }
                for name in [n for n in waiting if before[n] <= done]:
                    pod = _Driver(context, run, name, waiting.pop(name))
                    running[pool.submit(pod.run, (lose or {}).get(name))] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    run.tasks[running.pop(future)] = future.result()
        return run

    def job(self, manifest: Path, seconds: float) -> tuple[bool, str]:
        """Runs a Job's container for some seconds, after kubelet's change of owner (fsGroup).

        Returns:
            Whether it was still running or succeeded, and what it printed.
        """
        spec = yaml.safe_load(manifest.read_text())["spec"]["template"]["spec"]
        container = spec["containers"][0]
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in spec["volumes"]
            if "persistentVolumeClaim" in volume
        }
        mounts = {
            mount["mountPath"]: claims[mount["name"]]
            for mount in container["volumeMounts"]
            if mount["name"] in claims
        }
        for claim in mounts.values():
            for path in (self.claims[claim], *self.claims[claim].rglob("*")):
                os.chown(path, -1, spec["securityContext"]["fsGroup"])
                path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))
        command = [*container["command"], *container.get("args", ())]
        status, log = self.execute(["timeout", str(seconds), *command], mounts)
        return status in (0, 124), log

    def execute(
        self, command: list[str], mounts: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Runs a command in a container of the image; returns its status and what it printed."""
        folder = self.root / "container"
        for name in SCRATCH:
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name).chmod(0o777)
        attempt, log = _watch(self.pod(folder, mounts or {}, self.environment, command))
        return attempt.status, log

    def pod(
        self, pod: Path, mounts: Mapping[str, str], environment: Json, command: list[str]
    ) -> list[str]:
        """A command in a container of the image, as its user."""
        words = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--as-pid-1"]
        words += ["--die-with-parent", "--new-session", "--clearenv"]
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        for path in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"):
            words += ["--ro-bind-try", path, path]
        words += ["--proc", "/proc", "--dev", "/dev"]
        words += ["--perms", "1777", "--size", str(64 * 2**20), "--tmpfs", "/dev/shm"]
        bound = {sys.base_prefix: Path(sys.base_prefix), "/opt/venv": Path(sys.prefix)}
        bound |= {"/app": self.app, "/kfp-launcher/launcher.py": HERE / "launcher.py"}
        bound |= {"/var/run/argo/emissary.py": HERE / "emissary.py"}
        for target, source in bound.items():
            words += [*_folders(target), "--ro-bind", str(source), target]
        for name in SCRATCH:
            words += ["--bind", str(pod / name), f"/{name}"]
        for path, claim in mounts.items():
            words += [*_folders(path), "--bind", str(self.claims[claim]), path]
        for name, value in environment.items():
            words += ["--setenv", name, value]
        words += ["--chdir", "/app", "--info-fd", "{info}"]
        user = ["--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--no-new-privs"]
        return [*words, "setpriv", *user, "--bounding-set=-all", *command]


@dataclass(frozen=True)
class _Context:
    cluster: Cluster
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


class _Driver:
    """A task's driver, its retries, and its pods."""

    def __init__(self, context: _Context, run: Run, name: str, task: Json) -> None:
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
        if self._cluster.publish_logs:
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
        if self._cluster.publish_logs and self._cluster.version.numbered_logs:
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
        return _watch(self._cluster.pod(pod, mounts, environment, emissary), loss)

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


def _watch(command: list[str], loss: Loss | None = None) -> tuple[Attempt, str]:
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
    lines, lost = [], None
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if loss and lost is None and loss.after in line:
            lost = time.monotonic()
            os.kill(inside["child-pid"], signal.SIGKILL if loss.vanishes else signal.SIGTERM)
    status = process.wait()
    seconds = time.monotonic() - lost if lost is not None else 0.0
    if lost is not None and loss is not None and loss.vanishes:
        return Attempt("Error", status, seconds), "".join(lines)
    return Attempt("Failed" if status else "Succeeded", status, seconds), "".join(lines)


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


def _to_mlmd(name: str, value: Any) -> metadata_store_pb2.Value:
    made = metadata_store_pb2.Value()
    if isinstance(value, bool):
        made.int_value = int(value)
    elif isinstance(value, int | float):
        made.double_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, list):
        json_format.ParseDict({"list": value}, made.struct_value)
    elif isinstance(value, dict):
        json_format.ParseDict({"struct": value}, made.struct_value)
    else:
        raise ValueError(f"unknown/unsupported value of {name}: {value}")
    return made


def _from_mlmd(value: metadata_store_pb2.Value) -> Any:
    kind = value.WhichOneof("value")
    if kind == "struct_value":
        return json_format.MessageToDict(value.struct_value)
    found = getattr(value, kind)
    return float(found) if kind == "int_value" else found


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


def _folders(path: str) -> list[str]:
    """Flags that make the parents of a path, readable by every user."""
    return [
        word
        for parent in reversed(Path(path).parents[:-1])
        if not str(parent).startswith(("/usr", "/bin", "/lib", "/etc"))
        for word in ("--perms", "0755", "--dir", str(parent))
    ]


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
