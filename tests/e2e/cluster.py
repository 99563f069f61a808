"""Plays Kubeflow's driver and launcher for a compiled pipeline, without a cluster.

Each task's exact container command runs in a sandbox that has the image's folder layout, its own
staging folders and the volume, but neither this repository nor a network. Artifacts travel through
an object store that no task can see.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
OUTPUT_FILE = "/tmp/kfp_outputs/output_metadata.json"
MOUNTS = {"minio://": "/minio", "s3://": "/s3", "gs://": "/gcs"}
PREEMPTED = 143
Json = dict[str, Any]


@dataclass
class Task:
    """What became of a task.

    Attributes:
        name: Its name.
        statuses: Exit status of each attempt.
        log: What it printed, all attempts.
        outputs: Its artifacts as RuntimeArtifacts, by key.
    """

    name: str
    statuses: list[int] = field(default_factory=list)
    log: str = ""
    outputs: dict[str, Json] = field(default_factory=dict)


@dataclass
class Run:
    """What became of a run.

    Attributes:
        tasks: The tasks that were started, by name.
        store: Folder that stands for the object store.
    """

    tasks: dict[str, Task]
    store: Path

    @property
    def succeeded(self) -> bool:
        return all(task.statuses[-1] == 0 for task in self.tasks.values())

    def stored(self, task: str, key: str) -> Path:
        """Where an artifact lies in the store."""
        return _key(self.store, self.tasks[task].outputs[key]["uri"])


def available() -> str | None:
    """Why tasks cannot be run in sandboxes here; None if they can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    tried = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"bubblewrap cannot make a sandbox: {tried.stderr}"


class Cluster:
    """A cluster of one machine.

    Args:
        root: Folder for the object store and the pods.
        app: Folder with the layout of the image's /app.
        claims: Folder of each PersistentVolumeClaim, by name.
    """

    def __init__(self, root: Path, app: Path, claims: Mapping[str, Path]) -> None:
        self._root, self._app, self._claims = root, app, claims
        self._runs = 0

    def run(
        self,
        file: Path,
        values: Mapping[str, Any] | None = None,
        preempt: Mapping[str, str] | None = None,
        at_once: int = 2,
    ) -> Run:
        """Run a compiled pipeline.

        Args:
            file: The YAML file.
            values: Values of parameters; the file's defaults for the others.
            preempt: Text in a task's log at which its pod is sent away, once, by task.
            at_once: Tasks that may run at the same time.

        Returns:
            The run; what depends on a task that failed is not in it.
        """
        spec, *platform = yaml.safe_load_all(file.read_text())
        self._runs += 1
        pods = self._root / f"run{self._runs}"
        made = Run({}, self._root / "store")
        parameters = {
            name: (values or {}).get(name, parameter.get("defaultValue"))
            for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items()
        }
        waiting = dict(spec["root"]["dag"]["tasks"])
        running: dict[Future[Task], str] = {}
        with ThreadPoolExecutor(at_once) as pool:
            while waiting or running:
                done = {name for name, task in made.tasks.items() if task.statuses[-1] == 0}
                for name in [n for n, task in waiting.items() if _needs(task) <= done]:
                    pod = _Pod(self, spec, platform, pods / name, made, name, parameters)
                    marker = (preempt or {}).get(name)
                    running[pool.submit(pod.run, waiting.pop(name), marker)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    made.tasks[running.pop(future)] = future.result()
        return made

    def command(self, folder: Path, mounts: Mapping[str, str], command: list[str]) -> list[str]:
        """A container's command, in its sandbox.

        Args:
            folder: The pod's folder: what it stages, and its /tmp.
            mounts: Claim by mount path.
            command: The command.
        """
        venv = Path(sys.prefix)
        hidden = {"proc", "dev", "sys", "tmp", "app", *(p[1:] for p in MOUNTS.values())}
        hidden |= {path.split("/")[1] for path in mounts}
        system = [
            f"/{name}"
            for name in sorted(path.name for path in Path("/").iterdir())
            if name not in hidden
        ]
        # As in a container, the program is process 1, an ordinary user, and has no network.
        words = ["bwrap", "--unshare-all", "--uid", "10001", "--gid", "10001", "--as-pid-1"]
        words += ["--die-with-parent", "--new-session", "--clearenv"]
        for path in system:
            words += ["--ro-bind-try", path, path]
        words += ["--proc", "/proc", "--dev", "/dev", "--bind", str(folder / "tmp"), "/tmp"]
        words += ["--tmpfs", str(REPOSITORY), "--ro-bind", str(venv), str(venv)]
        words += ["--ro-bind", str(self._app), "/app"]
        for path in MOUNTS.values():
            words += ["--bind", str(folder / path[1:]), path]
        for path, claim in mounts.items():
            words += ["--bind", str(self._claims[claim]), path]
        environment = {
            "PATH": f"{venv}/bin:/usr/bin:/bin",
            "PYTHONPATH": "/app",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/tmp",
            "TF_USE_LEGACY_KERAS": "0",
        }
        for name, value in environment.items():
            words += ["--setenv", name, value]
        return [*words, "--chdir", "/app", "--info-fd", "{info}", *command]


class _Pod:
    """One task's driver, launcher and container."""

    def __init__(
        self,
        cluster: Cluster,
        spec: Json,
        platform: list[Json],
        folder: Path,
        made: Run,
        name: str,
        parameters: Mapping[str, Any],
    ) -> None:
        self._cluster, self._spec, self._platform = cluster, spec, platform
        self._folder, self._made, self._name = folder, made, name
        self._parameters = parameters

    def run(self, task: Json, preempt: str | None) -> Task:
        unknown = {"triggerPolicy", "artifactIterator", "parameterIterator"} & set(task)
        assert not unknown, f"this cluster does not know {unknown}"
        component = self._spec["components"][task["componentRef"]["name"]]
        label = component["executorLabel"]
        container = self._spec["deploymentSpec"]["executors"][label]["container"]
        given = self._executor_input(task, component)
        result = Task(self._name)
        retries = int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
        for attempt in range(retries + 1):
            self._stage(given)
            words = [
                _filled(word, given) for word in (*container["command"], *container.get("args", ()))
            ]
            status, log = self._contain(
                words, self._mounts(label), preempt if not attempt else None
            )
            result.statuses.append(status)
            result.log += log
            if status == 0:
                result.outputs = self._upload(given)
                break
        return result

    def _executor_input(self, task: Json, component: Json) -> Json:
        inputs = task.get("inputs", {})
        definitions = component.get("inputDefinitions", {}).get("parameters", {})
        values = {
            name: definition["defaultValue"]
            for name, definition in definitions.items()
            if "defaultValue" in definition
        }
        for name, source in inputs.get("parameters", {}).items():
            if "componentInputParameter" in source:
                values[name] = self._parameters[source["componentInputParameter"]]
            else:
                values[name] = source["runtimeValue"]["constant"]
        artifacts = {
            name: {
                "artifacts": [
                    self._made.tasks[source["producerTask"]].outputs[source["outputArtifactKey"]]
                ]
            }
            for name, found in inputs.get("artifacts", {}).items()
            for source in [found["taskOutputArtifact"]]
        }
        base = "/".join(
            (
                self._spec["defaultPipelineRoot"],
                self._spec["pipelineInfo"]["name"],
                self._folder.parent.name,
                self._name,
            )
        )
        outputs = {
            key: {
                "artifacts": [
                    {
                        "name": f"{self._folder.parent.name}/{self._name}/{key}",
                        "type": definition["artifactType"],
                        "uri": f"{base}/{key}",
                        "metadata": definition.get("metadata", {}),
                    }
                ]
            }
            for key, definition in component.get("outputDefinitions", {})
            .get("artifacts", {})
            .items()
        }
        return {
            "inputs": {"parameterValues": values, "artifacts": artifacts},
            "outputs": {"artifacts": outputs, "outputFile": OUTPUT_FILE},
        }

    def _stage(self, given: Json) -> None:
        """Fresh local folders for each attempt, with the inputs copied out of the store."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for path in ("/tmp", *MOUNTS.values()):
            (self._folder / path[1:]).mkdir(parents=True)
        for listed in given["inputs"]["artifacts"].values():
            for artifact in listed["artifacts"]:
                source = _key(self._made.store, artifact["uri"])
                _copy(source, self._local(artifact["uri"]))
        for listed in given["outputs"]["artifacts"].values():
            self._local(listed["artifacts"][0]["uri"]).parent.mkdir(parents=True, exist_ok=True)

    def _mounts(self, label: str) -> dict[str, str]:
        executors = {
            name: platform
            for document in self._platform
            for name, platform in document["platforms"]["kubernetes"]["deploymentSpec"][
                "executors"
            ].items()
        }
        mounts = executors.get(label, {}).get("pvcMount", ())
        return {mount["mountPath"]: mount["constant"] for mount in mounts}

    def _contain(
        self, words: list[str], mounts: Mapping[str, str], preempt: str | None
    ) -> tuple[int, str]:
        read, write = os.pipe()
        command = self._cluster.command(self._folder, mounts, words)
        process = subprocess.Popen(
            [str(write) if word == "{info}" else word for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[write],
        )
        os.close(write)
        with os.fdopen(read) as info:
            inner = _first_json(info)
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if preempt and preempt in line:
                preempt = None
                os.kill(inner["child-pid"], signal.SIGTERM)
        return process.wait(), "".join(lines)

    def _upload(self, given: Json) -> dict[str, Json]:
        """Take what the task made into the store, and its metadata with it."""
        told = self._folder / OUTPUT_FILE[1:]
        made = json.loads(told.read_text()) if told.exists() else {}
        outputs = {}
        for key, listed in given["outputs"]["artifacts"].items():
            artifact = dict(listed["artifacts"][0])
            for change in made.get("artifacts", {}).get(key, {}).get("artifacts", ())[:1]:
                artifact["uri"] = change.get("uri") or artifact["uri"]
                artifact["metadata"] = {**artifact["metadata"], **change.get("metadata", {})}
            local = self._local(artifact["uri"])
            if local.exists():
                _copy(local, _key(self._made.store, artifact["uri"]))
            outputs[key] = artifact
        return outputs

    def _local(self, uri: str) -> Path:
        for scheme, mount in MOUNTS.items():
            if uri.startswith(scheme):
                return self._folder / mount[1:] / uri.removeprefix(scheme)
        raise AssertionError(f"the launcher stages no {uri}")


def _needs(task: Json) -> set[str]:
    inputs = task.get("inputs", {}).get("artifacts", {}).values()
    producers = {found["taskOutputArtifact"]["producerTask"] for found in inputs}
    return producers | set(task.get("dependentTasks", ()))


def _filled(word: str, given: Json) -> str:
    """A word of the command with its placeholders filled in."""
    if word == "{{$}}":
        return json.dumps(given)

    def fill(found: re.Match[str]) -> str:
        side, kind, name, what = found.groups()
        if kind == "parameters":
            return str(given["inputs"]["parameterValues"][name])
        return str(given[side][kind][name]["artifacts"][0][what])

    pattern = r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\['([^']+)'\](?:\.(\w+))?\}\}"
    return re.sub(pattern, fill, word)


def _key(store: Path, uri: str) -> Path:
    return store / uri.replace("://", "/")


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
