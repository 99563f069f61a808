"""A Kubeflow cluster of one machine: driver, Argo's controller, pods and the launcher.

It follows the source of the backend (kubeflow/pipelines, backend/src/v2, releases 2.5.0 to 2.17.0)
and of the Argo versions that it pins, not what this project expects of them. What a task is given
and what is made of its answer goes through Kubeflow's own protocol buffers and through a real ML
Metadata store. Each task's exact command runs as the image's user in a container of its own, with
the image's environment and folders, without network, and without this repository.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import layout
import protojson
import yaml
from cluster_metadata import Metadata
from cluster_task import (
    SCRATCH,
    USER,
    V2_5,
    V2_14,
    V2_17,
    Attempt,
    Context,
    Driver,
    Loss,
    Task,
    Version,
    retried,
    watch,
)

__all__ = ["V2_5", "V2_14", "V2_17", "Attempt", "Cluster", "Loss", "retried", "unavailable"]

HERE = Path(__file__).parent
DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
"""Pipeline root in the ConfigMap kfp-launcher."""
Json = dict[str, Any]


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


class Cluster:
    """A cluster of one machine.

    Args:
        root: Folder for the object store, ML Metadata and the pods.
        app: Folder with the layout of the image's /app.
        claims: Folder of each PersistentVolumeClaim, by name.
        version: Release of Kubeflow Pipelines.
        environment: Environment of the image; that of deploy/Dockerfile if not given.
    """

    def __init__(
        self,
        root: Path,
        app: Path,
        claims: Mapping[str, Path],
        version: Version,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self.app, self.claims, self.version = root, app, claims, version
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
    ) -> Run:
        """Runs a compiled pipeline.

        Args:
            file: The YAML file.
            values: Values of parameters; the file's defaults for the others.
            pipeline_root: Pipeline root of the run; None for that of the server.
            lose: Tasks that lose their first pod.
            only: Tasks to run; None for all. The others hold up none of these.
            cached: Earlier run whose results the other tasks have, as from the server's cache.

        Returns:
            The run; what depends on a task that failed is not in it.
        """
        documents = list(yaml.safe_load_all(file.read_text()))
        spec = self.parse("PipelineSpec", documents[0])
        platform = self.parse("PlatformSpec", documents[1]) if documents[1:] else {}
        self._runs += 1
        run = Run(self)
        parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        root = (pipeline_root or DEFAULT_ROOT).rstrip("/")
        context = Context(
            self,
            spec,
            platform,
            folder=self.root / f"run{self._runs}",
            root="/".join((root, spec["pipelineInfo"]["name"], f"run{self._runs}")),
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
        with ThreadPoolExecutor(2) as pool:
            while waiting or running:
                done = {name for name, task in run.tasks.items() if task.succeeded}
                # Kubeflow orders tasks by dependentTasks alone.
                before = {
                    n: selected & set(t.get("dependentTasks", ())) for n, t in waiting.items()
                }
                for name in [n for n in waiting if before[n] <= done]:
                    pod = Driver(context, run, name, waiting.pop(name))
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
        attempt, log = watch(self.pod(folder, mounts or {}, self.environment, command))
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
            words += [*folders_of(target), "--ro-bind", str(source), target]
        for name in SCRATCH:
            words += ["--bind", str(pod / name), f"/{name}"]
        for path, claim in mounts.items():
            words += [*folders_of(path), "--bind", str(self.claims[claim]), path]
        for name, value in environment.items():
            words += ["--setenv", name, value]
        words += ["--chdir", "/app", "--info-fd", "{info}"]
        user = ["--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--no-new-privs"]
        return [*words, "setpriv", *user, "--bounding-set=-all", *command]


def folders_of(path: str) -> list[str]:
    """Flags that make the parents of a path, readable by every user."""
    return [
        word
        for parent in reversed(Path(path).parents[:-1])
        if not str(parent).startswith(("/usr", "/bin", "/lib", "/etc"))
        for word in ("--perms", "0755", "--dir", str(parent))
    ]
