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

from pipeline import beam, dataset, doctor, logs
from pipeline.config import RunConfig
from pipeline.database import MetadataConfig
from pipeline.doctor import Target
from trainer_module import collector, environment, files
from trainer_module.checks import check_choices, require
from trainer_module.config import ImageFeatures

Spec = dict[str, Any]

COMMAND = ("python", "-m", "pipeline.kubeflow_task")
RUNTIME = ("strategy", "patience", "max_epochs")
"""Fields of the schedule that a run of the compiled pipeline may set; beside data and pushed."""

_ROOT = "minio://mlpipeline/v2/artifacts"
_SUFFIX = {"kfp": ".yaml", "vertex": ".json"}
# A pod that is sent away is tried again, and goes on from its last epoch.
_RETRIES = {"maxRetryCount": 3, "backoffDuration": "10s", "backoffFactor": 2.0}
_TRAINER = "Trainer"
# Their results depend on folders whose content a cache key does not see.
_UNCACHED = ("ImageExampleGen", "CsvExampleGen", "LatestBlessed", "Pusher")
_GIB = 2**30 / 10**9


@dataclass(frozen=True)
class CompileConfig:
    """What `plateau compile` needs to know.

    Attributes:
        run: The run, whose data is a copy on this machine from which the names of the classes are
            read; not needed where the schema or --classes has them.
        image: Container image, as built from deploy/Dockerfile, with a tag or a digest.
        target: kfp, open-source Kubeflow Pipelines, or vertex, Vertex AI Pipelines.
        root: Pipeline root, under which all artifacts are stored: minio://, s3:// or gs:// and a
            path; gs:// only for vertex. For kfp minio://mlpipeline/v2/artifacts if not given.
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
    file: Path | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        if self.image is tyro.MISSING:
            # What the command line begins with; the flags complete it.
            return
        check_choices(self)
        beam.check_compiled(self.run.beam, self.target)
        require(
            bool(self.image) and not re.search(r"\s", self.image),
            "image must name a container image",
            self.image,
            "Build one from deploy/Dockerfile and name it with --image.",
        )
        for name in ("cpus", "memory_gib"):
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
        """Pipeline root."""
        return (self.root or _ROOT).rstrip("/")

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
        findings: What `plateau doctor` has to say.
        parameters: Default of each parameter of a run.
    """

    file: Path
    train_config: Path
    findings: tuple[doctor.Finding, ...]
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
    platform = volume_platform(spec, config.volume) if config.volume else None
    text = as_text(spec, platform, config)
    checked = doctor.Compiled(spec=spec, platform=platform, target=config.target)
    findings = doctor.check(checked, config.target)
    if doctor.broken(findings):
        raise ValueError(
            "a compiled pipeline must pass `plateau doctor`, got "
            + " ".join(f"{f.where}: {f.what} {f.remedy}" for f in findings)
        )
    train_config = config.destination.with_suffix(".train_config.json")
    config.destination.parent.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (train_config, config.run.train_config().to_json() + "\n"),
        (config.destination, text),
    ):
        with files.whole(path) as unfinished:
            unfinished.write_text(content, encoding="utf-8")
    return CompileResult(config.destination, train_config, findings, defaults(config))


def classes(config: RunConfig) -> tuple[str, ...]:
    """Class names: those given, of the schema, or of the folders of a local copy of the data.

    Raises:
        ValueError: None of them has any.
    """
    if config.classes:
        return config.classes
    if config.data is not None and isinstance(config.features, ImageFeatures):
        from components.image_example_gen.logic import scan

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

            from pipeline import graph

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
            command,
            {name: parameters[name] for name in RUNTIME},
        )
        if config.cpus or config.memory_gib or config.gpus:
            (trainer,) = (node for node in wired.components if node.id == _TRAINER)
            trainer.with_platform_config(_resources(config))
        runner = KubeflowV2DagRunner(
            KubeflowV2DagRunnerConfig(
                default_image=config.image,
                default_commands=list(COMMAND),
                use_pipeline_spec_2_1=True,
            )
        )
        job = runner.run(wired, write_out=False)
    return adapted(job["pipelineSpec"], config.target, config.pipeline_root, given)


def adapted(compiled: Spec, target: Target, root: str, given: Mapping[str, str | int]) -> Spec:
    """What the target runs, of what TFX compiles.

    TFX drops the defaults of runtime parameters, and lets every task be cached. Open-source
    Kubeflow Pipelines knows no lifecycle hooks; there, `pipeline.kubeflow_task` runs the driver.

    Args:
        compiled: PipelineSpec as JSON values.
        target: Who runs it.
        root: Pipeline root.
        given: Default of each runtime parameter.
    """
    spec: Spec = json.loads(json.dumps(compiled))
    spec["defaultPipelineRoot"] = root
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    for name, value in given.items():
        parameters[name]["defaultValue"] = value
    tasks = spec["root"]["dag"]["tasks"]
    for name in _UNCACHED:
        if name in tasks:
            tasks[name].pop("cachingOptions", None)
    tasks[_TRAINER]["retryPolicy"] = dict(_RETRIES)
    if target == "kfp":
        for executor in spec["deploymentSpec"]["executors"].values():
            executor.get("container", {}).pop("lifecycle", None)
    return spec


def volume_platform(spec: Spec, volume: str) -> Spec:
    """The platform specification that mounts a volume in every task.

    Args:
        spec: The pipeline specification.
        volume: CLAIM:/PATH.
    """
    claim, _, path = volume.partition(":")
    mount = {
        "constant": claim,
        "mountPath": str(PurePosixPath(path)),
        "pvcNameParameter": {"runtimeValue": {"constant": claim}},
    }
    executors = {label: {"pvcMount": [mount]} for label in spec["deploymentSpec"]["executors"]}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


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
    import yaml

    # Anchors and aliases, which equal objects would become, are refused by careful readers.
    documents = json.loads(json.dumps([spec, *([platform] if platform else [])]))
    return str(yaml.safe_dump_all(documents, sort_keys=True, width=100))


def _resources(config: CompileConfig) -> Any:
    from kfp.pipeline_spec import pipeline_spec_pb2

    kind = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec
    resources = kind(cpu_limit=config.cpus or 0, memory_limit=(config.memory_gib or 0) * _GIB)
    if config.gpus:
        resources.accelerator.type = config.gpu_type
        resources.accelerator.count = config.gpus
    return resources
