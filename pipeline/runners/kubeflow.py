"""Compiles the pipeline for Kubeflow Pipelines or Vertex AI Pipelines.

`create_pipeline` is the same as on this machine. TFX compiles it to the dialect of Vertex AI
Pipelines; `adapted` makes of that what open-source Kubeflow Pipelines runs.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import tyro

from trainer_module.config import ImageFeatures
from trainer_module.util import collector, environment, files
from trainer_module.util.checks import check_fields, require

from ..config import RunConfig
from ..data import dataset
from ..metadata.database import MetadataConfig
from . import beam, kubeflow_checks, logs
from .kubeflow_checks import Compiled, Target

Spec = dict[str, Any]

COMMAND = ("python", "-m", kubeflow_checks.ENTRYPOINT)
RUNTIME = ("strategy", "patience", "max_epochs")
"""Fields of the schedule that a run of the compiled pipeline may set; beside data and pushed."""

_STAND_IN = "minio://mlpipeline/v2/artifacts"
"""For TFX, which needs a root; the file has none, so that the server's own holds."""
_SUFFIX = {"kfp": ".yaml", "vertex": ".json"}
# A Trainer whose pod is lost is retried, and resumes from its last epoch.
_RETRIES = {"maxRetryCount": 3, "backoffDuration": "10s", "backoffFactor": 2.0}
# Without it, Kubeflow Pipelines 2.14 to 2.17 never retry. It counts from the first start and is the
# deadline of later ones, hence a month.
_KFP_RETRIES = {**_RETRIES, "backoffMaxDuration": "2592000s"}
_TOLERATION = re.compile(r"([^\s=:]+)(?:=([^\s=:]*))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?")
_LABEL = re.compile(r"([^\s=]+)=([^\s=]*)")
_HTML = {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
_TRAINER, _TRAINER_EXECUTOR = "Trainer", "Trainer_executor"
# Their results depend on folders whose content a cache key does not see.
_UNCACHED = ("ImageExampleGen", "CsvExampleGen", "LatestBlessed", "Pusher")
_GIB = 2**30 / 10**9
# It may name thousands of classes.
_LONGEST_COMMAND = 1000


@dataclass(frozen=True)
class CompileConfig:
    """What `plateau compile` needs to know.

    Attributes:
        run: The run, whose data is a copy on this machine from which the names of the classes are
            read; not needed where the schema or --classes has them.
        image: Container image, as built from deploy/Dockerfile, with a tag or a digest.
        target: kfp, open-source Kubeflow Pipelines, or vertex, Vertex AI Pipelines.
        root: Pipeline root, under which all artifacts are stored: minio://, s3:// or gs:// and a
            path; gs:// only for vertex. For kfp that of the server if not given.
        volume: CLAIM:/PATH, a PersistentVolumeClaim mounted in each task, for kfp: with data,
            pushed models and checkpoints.
        data_location: Where the tasks find the data: the default of the parameter data. If not
            given, data/NAME on the volume.
        pushed: Where the tasks push models: the default of the parameter pushed. If not given,
            pushed/NAME on the volume.
        cpus: Processor cores of the Trainer's task; the cluster's default if not given.
        memory_gib: Memory of the Trainer's task in GiB; the cluster's default if not given.
        gpus: GPUs of the Trainer's task.
        gpu_type: Resource name of the GPUs for kfp, accelerator type for vertex.
        task_cpus: Processor cores of each other task, and of the Trainer's if --cpus is not given;
            the cluster's default if not given.
        task_memory_gib: Memory of each other task in GiB, and of the Trainer's if --memory-gib is
            not given; the cluster's default if not given.
        toleration: Taint that the Trainer's pod tolerates, as KEY[=VALUE][:EFFECT], such as
            nvidia.com/gpu:NoSchedule; for kfp. May be repeated.
        node_selector: Label of the nodes that the Trainer may run on, as KEY=VALUE; for kfp. May
            be repeated.
        image_pull_secret: Kubernetes secret with which the image is pulled, for kfp.
        file: Where to write the compiled pipeline; NAME.yaml (kfp) or NAME.json (vertex) in the
            current folder if not given.
    """

    run: RunConfig
    image: str
    target: Target = "kfp"
    root: str | None = None
    volume: str | None = None
    data_location: str | None = None
    pushed: str | None = None
    cpus: float | None = None
    memory_gib: float | None = None
    gpus: int = 0
    gpu_type: str = "nvidia.com/gpu"
    task_cpus: float | None = None
    task_memory_gib: float | None = None
    toleration: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    node_selector: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    image_pull_secret: str | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        if self.image is tyro.MISSING:
            # What the command line begins with; the flags complete it.
            return
        check_fields(self)
        beam.check_compiled(self.run.beam, self.target)
        require(
            bool(self.image) and not re.search(r"\s", self.image),
            "image must name a container image",
            self.image,
            "Build one from deploy/Dockerfile and name it with --image.",
        )
        for name in ("cpus", "memory_gib", "task_cpus", "task_memory_gib"):
            value = getattr(self, name)
            flag = name.replace("_", "-")
            require(
                value is None or 0 < value < float("inf"),
                f"{name} must be a number above 0",
                value,
                f"Try --{flag} 4.",
            )
        require(self.gpus >= 0, "gpus must be at least 0", self.gpus, "Try --gpus 1.")
        require(
            self.target == "kfp" or self.volume is None,
            "volume is for --target kfp only",
            self.volume,
            "On Vertex AI, name gs:// folders with --data-location and --pushed.",
        )
        for name in ("toleration", "node_selector", "image_pull_secret"):
            require(
                self.target == "kfp" or not getattr(self, name),
                f"{name} is for --target kfp only",
                getattr(self, name),
                "Leave it out.",
            )
        for text in self.toleration:
            require(
                _TOLERATION.fullmatch(text) is not None,
                "toleration must be KEY[=VALUE][:EFFECT] with the effect NoSchedule, "
                "PreferNoSchedule or NoExecute",
                text,
                "Try --toleration nvidia.com/gpu:NoSchedule.",
            )
        for text in self.node_selector:
            require(
                _LABEL.fullmatch(text) is not None,
                "node_selector must be KEY=VALUE",
                text,
                "Try --node-selector pool=gpu.",
            )
        require(
            self.volume is None or _VOLUME.fullmatch(self.volume) is not None,
            "volume must be CLAIM:/PATH",
            self.volume,
            "Try --volume plateau-workspace:/workspace.",
        )
        require(
            self.target == "kfp" or self.root is not None,
            "root must be given for --target vertex",
            self.root,
            "Try --root gs://BUCKET/plateau.",
        )
        for name, flag in (("data_location", "data-location"), ("pushed", "pushed")):
            require(
                getattr(self, name) is not None or self.volume is not None,
                f"{name} must be given where there is no volume",
                None,
                f"Name a folder that the tasks see with --{flag}, or a volume with --volume.",
            )
        require(
            self.run.metadata == MetadataConfig(),
            "metadata must be left out of a compiled pipeline, which the cluster records",
            str(self.run.metadata.metadata or self.run.metadata.metadata_password_file),
            "Leave out --metadata and --metadata-password-file.",
        )
        require(
            self.run.tune == 0,
            "tune must be left out of a compiled pipeline, whose schedule is given when it is run",
            self.run.tune,
            "Search with `plateau run --tune` first, and compile with what it found.",
        )

    @property
    def mount(self) -> str | None:
        """Where the volume is mounted."""
        return self.volume.partition(":")[2] if self.volume else None

    @property
    def data_folder(self) -> str:
        """Where the tasks find the data."""
        return self.data_location or f"{self.mount}/data/{self.run.name}"

    @property
    def pushed_folder(self) -> str:
        """Where the tasks push models."""
        return self.pushed or f"{self.mount}/pushed/{self.run.name}"

    @property
    def checkpoints(self) -> str | None:
        """A folder that outlives the Trainer's pod; None if there is none."""
        if self.mount:
            return f"{self.mount}/checkpoints"
        if self.target == "vertex":
            # Vertex AI mounts Cloud Storage there.
            return f"/gcs/{self.pipeline_root.removeprefix('gs://')}/checkpoints"
        return None

    @property
    def pipeline_root(self) -> str:
        """Pipeline root, or what stands for that of the server."""
        return (self.root or _STAND_IN).rstrip("/")

    @property
    def destination(self) -> Path:
        """The file that is written."""
        return self.file or Path(f"{self.run.name}{_SUFFIX[self.target]}")


_VOLUME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?:/[^:]*[^:/]")


def default(preset: RunConfig) -> CompileConfig:
    """What the flags of `plateau compile` begin with: all but the image."""
    return CompileConfig(preset, image=tyro.MISSING)


class CompileResult(NamedTuple):
    """A pipeline that was compiled.

    Attributes:
        file: The file.
        train_config: The Trainer's configuration as JSON, for `trainer_module.worker`.
        warnings: What may fail, or give other results another day.
        parameters: Default of each parameter of a run.
    """

    file: Path
    train_config: Path
    warnings: tuple[str, ...]
    parameters: Mapping[str, str | int]


def run(config: CompileConfig, command: str = "") -> CompileResult:
    """Compile and write the file; nothing is written if the compiled pipeline could not run.

    Args:
        config: What to compile.
        command: Command that does so, for the report of the runs.

    Raises:
        ValueError: The names of the classes cannot be found out, or data and flags do not fit.
        OSError: The file cannot be written.
    """
    config = replace(config, run=replace(config.run, classes=classes(config.run)))
    spec = compile_spec(config, command)
    platform = platform_spec(spec, config)
    text = as_text(spec, platform, config)
    compiled = Compiled(spec, platform, config.target)
    problems = kubeflow_checks.problems(compiled)
    if problems:
        raise ValueError("\n".join(problems))
    train_config = config.destination.with_suffix(".train_config.json")
    config.destination.parent.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (train_config, config.run.train_config().to_json() + "\n"),
        (config.destination, text),
    ):
        with files.whole(path) as unfinished:
            unfinished.write_text(content, encoding="utf-8")
    return CompileResult(
        config.destination, train_config, kubeflow_checks.warnings(compiled), defaults(config)
    )


def classes(config: RunConfig) -> tuple[str, ...]:
    """Class names: those given, of the schema, or of the folders of a local copy of the data.

    Raises:
        ValueError: None of them has any.
    """
    if config.classes:
        return config.classes
    if config.data is not None and isinstance(config.features, ImageFeatures):
        from components.image_example_gen.folder import scan

        return scan(config.data.expanduser().resolve()).classes
    file = dataset.schema_file(config)
    named = dataset.labels(file) if file is not None else ()
    require(
        len(named) >= 2,
        "the names of the classes must be known when a pipeline is compiled",
        named,
        "Name them with --classes, or a copy of the data on this machine with --data.",
    )
    return named


def defaults(config: CompileConfig) -> dict[str, str | int]:
    """The parameters of a run, with the values they have if nobody gives others."""
    schedule = config.run.schedule
    return {
        "data": config.data_folder,
        "pushed": config.pushed_folder,
        "strategy": schedule.strategy,
        "patience": schedule.plateau.patience,
        "max_epochs": schedule.max_epochs,
    }


def compile_spec(config: CompileConfig, command: str = "") -> Spec:
    """The pipeline specification, as JSON values.

    Args:
        config: What to compile, with the run's `classes` filled in.
        command: Command that does so, for the report of the runs.
    """
    given = defaults(config)
    environment.prepare(config.run.verbose)
    # What TFX says while it compiles concerns nobody.
    with logs.capture(Path(os.devnull), config.run.verbose):
        with collector.paused():
            from tfx.orchestration.data_types import RuntimeParameter
            from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
                KubeflowV2DagRunner,
                KubeflowV2DagRunnerConfig,
            )

            from .. import graph

        logs.silence_libraries()
        parameters = {
            name: RuntimeParameter(name=name, ptype=type(value), default=value)
            for name, value in given.items()
        }
        paths = graph.PipelinePaths(
            data=parameters["data"],
            artifacts=config.pipeline_root,
            pushed=parameters["pushed"],
            checkpoints=config.checkpoints,
        )
        wired = graph.create_pipeline(
            config.run,
            paths,
            dataset.schema_text(config.run, config.run.classes),
            command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]} ...",
            {name: parameters[name] for name in RUNTIME},
        )
        runner = KubeflowV2DagRunner(
            KubeflowV2DagRunnerConfig(
                default_image=config.image,
                default_commands=list(COMMAND),
                use_pipeline_spec_2_1=True,
            )
        )
        job = runner.run(wired, write_out=False)
    return adapted(job["pipelineSpec"], config)


def adapted(compiled: Spec, config: CompileConfig) -> Spec:
    """What the target runs, of what TFX compiles.

    TFX drops the defaults of runtime parameters, and lets every task be cached. Open-source
    Kubeflow Pipelines knows no lifecycle hooks; there, `components.container` runs the driver.

    Args:
        compiled: PipelineSpec as JSON values.
        config: What to compile.
    """
    spec: Spec = json.loads(json.dumps(compiled))
    if config.root:
        # Otherwise the web page would offer ours in place of the administrator's.
        spec["defaultPipelineRoot"] = config.pipeline_root
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    for name, value in defaults(config).items():
        parameters[name]["defaultValue"] = value
    tasks = spec["root"]["dag"]["tasks"]
    for name in _UNCACHED:
        if name in tasks:
            tasks[name].pop("cachingOptions", None)
    tasks[_TRAINER]["retryPolicy"] = dict(_KFP_RETRIES if config.target == "kfp" else _RETRIES)
    for component in spec["components"].values():
        for output in component.get("outputDefinitions", {}).get("artifacts", {}).values():
            if "title: components.HtmlReport" in output["artifactType"].get("instanceSchema", ""):
                # Kubeflow's user interface shows a page of this type alone.
                output["artifactType"] = dict(_HTML)
    for label, executor in spec["deploymentSpec"]["executors"].items():
        container = executor["container"]
        if config.target == "kfp":
            container.pop("lifecycle", None)
        resources = _resources(config, label == _TRAINER_EXECUTOR)
        if resources:
            container["resources"] = resources
    return spec


def platform_spec(spec: Spec, config: CompileConfig) -> Spec | None:
    """The platform specification: volume, pull secret and nodes; None if there is nothing to say.

    Args:
        spec: The pipeline specification.
        config: What to compile.
    """
    shared: Spec = {}
    if config.volume:
        claim, _, path = config.volume.partition(":")
        shared["pvcMount"] = [
            {
                "constant": claim,
                "mountPath": str(PurePosixPath(path)),
                "pvcNameParameter": {"runtimeValue": {"constant": claim}},
            }
        ]
    if config.image_pull_secret:
        shared["imagePullSecret"] = [{"secretName": config.image_pull_secret}]
    trainer = dict(shared)
    if config.node_selector:
        trainer["nodeSelector"] = {
            "labels": dict(label.split("=", 1) for label in config.node_selector)
        }
    if config.toleration:
        trainer["tolerations"] = [_toleration(text) for text in config.toleration]
    executors = {
        label: trainer if label == _TRAINER_EXECUTOR else shared
        for label in spec["deploymentSpec"]["executors"]
    }
    if not trainer:
        return None
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def _toleration(text: str) -> Spec:
    found = _TOLERATION.fullmatch(text)
    assert found is not None
    key, value, effect = found.groups()
    return {
        "key": key,
        "operator": "Exists" if value is None else "Equal",
        **({"value": value} if value else {}),
        **({"effect": effect} if effect else {}),
    }


def as_text(spec: Spec, platform: Spec | None, config: CompileConfig) -> str:
    """The file: YAML documents for kfp, a PipelineJob as JSON for vertex."""
    if config.target == "vertex":
        job = {
            "displayName": spec["pipelineInfo"]["name"],
            "pipelineSpec": spec,
            "runtimeConfig": {
                "gcsOutputDirectory": config.pipeline_root,
                "parameterValues": defaults(config),
            },
        }
        return json.dumps(job, indent=1, sort_keys=True) + "\n"
    return _yaml([spec, *([platform] if platform else [])])


def _yaml(documents: list[Spec]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Quotes every text: other readers of YAML take 1e3 for a number."""

    Dumper.add_representer(
        str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    )
    # Anchors and aliases, which equal objects would become, are refused by careful readers.
    plain = json.loads(json.dumps(documents))
    return str(yaml.dump_all(plain, Dumper=Dumper, sort_keys=True, width=100))


def _resources(config: CompileConfig, trainer: bool) -> Spec:
    """ResourceSpec of a task, with a request and a limit of each resource that is given."""
    cpus = (config.cpus if trainer else None) or config.task_cpus
    gib = (config.memory_gib if trainer else None) or config.task_memory_gib
    resources: Spec = {}
    if cpus:
        resources |= {"cpuLimit": cpus, "cpuRequest": cpus}
    if gib:
        resources |= {"memoryLimit": gib * _GIB, "memoryRequest": gib * _GIB}
    if trainer and config.gpus:
        resources["accelerator"] = {"type": config.gpu_type, "count": str(config.gpus)}
    if config.target == "kfp":
        # Since 2.3, and exact: the server writes the numbers above as floats of gigabytes.
        if cpus:
            resources |= {"resourceCpuLimit": f"{cpus:g}", "resourceCpuRequest": f"{cpus:g}"}
        if gib:
            text = f"{gib:g}Gi"
            resources |= {"resourceMemoryLimit": text, "resourceMemoryRequest": text}
        if trainer and config.gpus:
            resources["accelerator"] |= {
                "resourceType": config.gpu_type,
                "resourceCount": str(config.gpus),
            }
    return resources
