"""Compilation for Kubeflow Pipelines and Vertex AI Pipelines.

`create_pipeline` is the same as on this machine. TFX compiles it to the dialect of Vertex AI
Pipelines, which is then adapted to what open-source Kubeflow Pipelines runs.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from annotated_types import Ge, Gt

from trainer_module.util import collector, environment, files
from trainer_module.util.checks import check_fields, require

from ..config import MetadataConfig, RunConfig
from ..data import dataset
from . import beam, kubeflow_checks, logs

Spec = dict[str, Any]

COMMAND = ("python", "-m", "components.container")
RUNTIME = ("strategy", "patience", "max_epochs")
"""Fields of the schedule that a run of the compiled pipeline may set; beside data and pushed."""

_PLACEHOLDER_ROOT = "minio://mlpipeline/v2/artifacts"
"""For TFX, which needs a root; the file has none, so that the server's own holds."""
# Without backoffMaxDuration, Kubeflow Pipelines 2.14 to 2.17 never retry. It counts from the first
# start and is the deadline of later ones, hence a month.
_RETRIES = {"maxRetryCount": 3, "backoffDuration": "10s", "backoffFactor": 2.0}
_KFP_RETRIES = {**_RETRIES, "backoffMaxDuration": "2592000s"}
_TOLERATION = re.compile(r"([^\s=:]+)(?:=([^\s=:]*))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?")
_SCHEMES = {"kfp": "(minio|s3|gs)", "vertex": "gs"}
# Field, form of its value, the same in words, and an example. A claim's name becomes that of a
# volume.
_FORMS = (
    ("image", re.compile(r"\S+"), "one word", "registry.example/plateau:1"),
    (
        "volume",
        re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?:/[^:]*[^:/]"),
        "CLAIM:/PATH, the claim 1 to 63 lower-case letters, digits and hyphens",
        "plateau-workspace:/workspace",
    ),
    (
        "toleration",
        _TOLERATION,
        "KEY[=VALUE][:EFFECT] with the effect NoSchedule, PreferNoSchedule or NoExecute",
        "nvidia.com/gpu:NoSchedule",
    ),
    ("node_selector", re.compile(r"[^\s=]+=[^\s=]*"), "KEY=VALUE", "pool=gpu"),
)
_HTML = {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
_TRAINER, _TRAINER_EXECUTOR = "Trainer", "Trainer_executor"
# Their results depend on folders whose content a cache key does not see.
_UNCACHED = ("ImageExampleGen", "CsvExampleGen", "LatestBlessed", "Pusher")
_GIB = 2**30 / 10**9
# It may name thousands of classes.
_LONGEST_COMMAND = 1000
_Positive = Annotated[float | None, Gt(0)]


@dataclass(frozen=True)
class CompileConfig:
    """Flags of `plateau compile`."""

    run: RunConfig
    """The run, whose data is a copy on this machine from which the names of the classes are read;
    not needed where the schema or --classes has them."""
    image: str
    """Container image, as built from deploy/Dockerfile, with a tag or a digest."""
    target: Literal["kfp", "vertex"] = "kfp"
    """kfp, open-source Kubeflow Pipelines, or vertex, Vertex AI Pipelines."""
    root: str | None = None
    """Pipeline root, under which all artifacts are stored: minio://, s3:// or gs:// and a path;
    gs:// only for vertex. For kfp that of the server if not given."""
    volume: str | None = None
    """CLAIM:/PATH, a PersistentVolumeClaim mounted in each task, for kfp: with data, pushed models
    and checkpoints."""
    data_location: str | None = None
    """Where the tasks find the data: the default of the parameter data. If not given, data/NAME on
    the volume."""
    pushed: str | None = None
    """Where the tasks push models: the default of the parameter pushed. If not given, pushed/NAME
    on the volume."""
    cpus: _Positive = None
    """Processor cores of the Trainer's task; the cluster's default if not given."""
    memory_gib: _Positive = None
    """Memory of the Trainer's task in GiB; the cluster's default if not given."""
    gpus: Annotated[int, Ge(0)] = 0
    """GPUs of the Trainer's task."""
    gpu_type: str = "nvidia.com/gpu"
    """Resource name of the GPUs for kfp, accelerator type for vertex."""
    task_cpus: _Positive = None
    """Processor cores of each other task, and of the Trainer's if --cpus is not given; the
    cluster's default if not given."""
    task_memory_gib: _Positive = None
    """Memory of each other task in GiB, and of the Trainer's if --memory-gib is not given; the
    cluster's default if not given."""
    toleration: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Taint that the Trainer's pod tolerates, as KEY[=VALUE][:EFFECT], such as
    nvidia.com/gpu:NoSchedule; for kfp. May be repeated."""
    node_selector: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Label of the nodes that the Trainer may run on, as KEY=VALUE; for kfp. May be repeated."""
    image_pull_secret: str | None = None
    """Kubernetes secret with which the image is pulled, for kfp."""
    file: Path | None = None
    """Where to write the compiled pipeline; NAME.yaml (kfp) or NAME.json (vertex) in the current
    folder if not given."""

    def __post_init__(self) -> None:
        """Checks what can be checked without data."""
        if self.image is tyro.MISSING:
            # What the command line begins with; the flags complete it.
            return
        check_fields(self)
        beam.check_compiled(self.run.beam, self.target)
        for name in ("volume", "toleration", "node_selector", "image_pull_secret"):
            value = getattr(self, name)
            require(
                self.target == "kfp" or not value,
                f"`{name}` is for `target=kfp` only",
                value,
                f"Leave `{name}` out; on Vertex AI, data lies in gs:// folders.",
            )
        for name, form, words, example in _FORMS:
            value = getattr(self, name)
            for text in value if isinstance(value, tuple) else (value,):
                require(
                    text is None or form.fullmatch(text) is not None,
                    f"`{name}` must be {words}",
                    text,
                    f"Try `{name}={example}`.",
                )
        root = re.fullmatch(rf"{_SCHEMES[self.target]}://.+", self.root or "")
        require(
            root is not None or (self.root is None and self.target == "kfp"),
            "`root` must begin with gs:// for `target=vertex`, and with minio://, s3:// or gs:// "
            "for `target=kfp`",
            self.root,
            "Try `root=gs://BUCKET/plateau`.",
        )
        for name in ("data_location", "pushed"):
            require(
                getattr(self, name) is not None or self.volume is not None,
                f"`{name}` must be given where there is no volume",
                None,
                f"Name a folder that the tasks see with `{name}`, or a volume with `volume`.",
            )
        require(
            self.run.metadata == MetadataConfig(),
            "`metadata` must be left out of a compiled pipeline, which the cluster records",
            str(self.run.metadata.metadata or self.run.metadata.metadata_password_file),
            "Leave `metadata` and `metadata_password_file` out.",
        )
        require(
            self.run.tune == 0,
            "`tune` must be left out of a compiled pipeline, whose schedule is given when it runs",
            self.run.tune,
            "Search with `plateau run --tune` first, and compile with the result.",
        )

    @property
    def mount(self) -> str | None:
        """Path at which the volume is mounted."""
        return self.volume.partition(":")[2] if self.volume else None

    @property
    def checkpoints(self) -> str | None:
        """Folder that outlives the Trainer's pod; None if there is none."""
        if self.mount:
            return f"{self.mount}/checkpoints"
        if self.target == "vertex":
            # Vertex AI mounts Cloud Storage there.
            return f"/gcs/{self.pipeline_root.removeprefix('gs://')}/checkpoints"
        return None

    @property
    def pipeline_root(self) -> str:
        """Pipeline root, or a placeholder for that of the server."""
        return (self.root or _PLACEHOLDER_ROOT).rstrip("/")

    @property
    def destination(self) -> Path:
        """File that is written."""
        suffix = ".yaml" if self.target == "kfp" else ".json"
        return self.file or Path(f"{self.run.name}{suffix}")

    @property
    def parameters(self) -> dict[str, str | int]:
        """Parameters of a run with their defaults."""
        schedule = self.run.schedule
        return {
            "data": self.data_location or f"{self.mount}/data/{self.run.name}",
            "pushed": self.pushed or f"{self.mount}/pushed/{self.run.name}",
            "strategy": schedule.strategy,
            "patience": schedule.plateau.patience,
            "max_epochs": schedule.max_epochs,
        }


def default(preset: RunConfig) -> CompileConfig:
    """Returns what the flags of `plateau compile` begin with: all but the image."""
    return CompileConfig(preset, image=tyro.MISSING)


class CompileResult(NamedTuple):
    """Pipeline that was compiled."""

    file: Path
    """The file."""
    train_config: Path
    """The Trainer's configuration as JSON, for `trainer_module.worker`."""


def run(config: CompileConfig, command: str = "") -> CompileResult:
    """Compiles and writes the file; nothing is written if the compiled pipeline could not run.

    Args:
        config: What to compile.
        command: Command that does so, for the report of the runs.

    Raises:
        UserError: The names of the classes are unknown, data and flags do not fit, or the
            parameters of a task could not be passed on.
        OSError: The file cannot be written.
    """
    config = replace(config, run=replace(config.run, classes=dataset.class_names(config.run)))
    spec = compile_spec(config, command)
    kubeflow_checks.check(spec, config.target)
    train_config = config.destination.with_suffix(".train_config.json")
    config.destination.parent.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (train_config, config.run.train_config().to_json() + "\n"),
        (config.destination, as_text(spec, config)),
    ):
        with files.atomic(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return CompileResult(config.destination, train_config)


def compile_spec(config: CompileConfig, command: str = "") -> Spec:
    """Returns the pipeline specification, as JSON values.

    Args:
        config: What to compile, with the run's `classes` filled in.
        command: Command that does so, for the report of the runs.
    """
    environment.prepare(config.run.verbose)
    # What TFX logs while it compiles is no concern of users.
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
            for name, value in config.parameters.items()
        }
        paths = graph.PipelinePaths(
            data=parameters["data"],
            artifacts=config.pipeline_root,
            pushed=parameters["pushed"],
            checkpoints=config.checkpoints,
        )
        pipeline = graph.create_pipeline(
            config.run,
            paths,
            dataset.schema_text(config.run, config.run.classes),
            command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]} ...",
            {name: parameters[name] for name in RUNTIME},
            beam.pipeline_args(config.run),
        )
        runner = KubeflowV2DagRunner(
            KubeflowV2DagRunnerConfig(
                default_image=config.image,
                default_commands=list(COMMAND),
                use_pipeline_spec_2_1=True,
            )
        )
        spec: Spec = runner.run(pipeline, write_out=False)["pipelineSpec"]
    _adapt(spec, config)
    return spec


def _adapt(spec: Spec, config: CompileConfig) -> None:
    """Changes a PipelineSpec that TFX compiled to one that the target runs.

    TFX drops the defaults of runtime parameters, and lets every task be cached. Open-source
    Kubeflow Pipelines knows no lifecycle hooks; there, `components.container` runs the driver.
    """
    if config.root:
        # Otherwise the web page would offer ours in place of the administrator's.
        spec["defaultPipelineRoot"] = config.pipeline_root
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    for name, value in config.parameters.items():
        parameters[name]["defaultValue"] = value
    tasks = spec["root"]["dag"]["tasks"]
    for name in _UNCACHED:
        if name in tasks:
            tasks[name].pop("cachingOptions", None)
    # A Trainer whose pod is lost is retried, and resumes from its last epoch.
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


def _resources(config: CompileConfig, trainer: bool) -> Spec:
    """Returns the ResourceSpec of a task, with a request and a limit of each resource."""
    cpus = (config.cpus if trainer else None) or config.task_cpus
    gib = (config.memory_gib if trainer else None) or config.task_memory_gib
    gpus = str(config.gpus) if trainer and config.gpus else None
    resources: Spec = {}
    if cpus:
        resources |= {"cpuLimit": cpus, "cpuRequest": cpus}
    if gib:
        resources |= {"memoryLimit": gib * _GIB, "memoryRequest": gib * _GIB}
    if gpus:
        resources["accelerator"] = {"type": config.gpu_type, "count": gpus}
    if config.target == "vertex":
        return resources
    # Since 2.3, and exact: the server writes the numbers above as floats of gigabytes.
    if cpus:
        resources |= {"resourceCpuLimit": f"{cpus:g}", "resourceCpuRequest": f"{cpus:g}"}
    if gib:
        resources |= {"resourceMemoryLimit": f"{gib:g}Gi", "resourceMemoryRequest": f"{gib:g}Gi"}
    if gpus:
        resources["accelerator"] |= {"resourceType": config.gpu_type, "resourceCount": gpus}
    return resources


def platform_spec(spec: Spec, config: CompileConfig) -> Spec | None:
    """Returns the platform specification: volume, pull secret, nodes; None if it would be empty."""
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
        labels = dict(label.split("=", 1) for label in config.node_selector)
        trainer["nodeSelector"] = {"labels": labels}
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
    match = _TOLERATION.fullmatch(text)
    assert match is not None
    key, value, effect = match.groups()
    return {
        "key": key,
        "operator": "Exists" if value is None else "Equal",
        **({"value": value} if value else {}),
        **({"effect": effect} if effect else {}),
    }


def as_text(spec: Spec, config: CompileConfig) -> str:
    """Returns the file: YAML documents for kfp, a PipelineJob as JSON for vertex."""
    if config.target == "vertex":
        job = {
            "displayName": spec["pipelineInfo"]["name"],
            "pipelineSpec": spec,
            "runtimeConfig": {
                "gcsOutputDirectory": config.pipeline_root,
                "parameterValues": config.parameters,
            },
        }
        return json.dumps(job, indent=1, sort_keys=True) + "\n"
    documents = [spec, platform_spec(spec, config)]
    return _yaml([document for document in documents if document])


def _yaml(documents: list[Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Quotes every text: other readers of YAML take 1e3 for a number."""

        def ignore_aliases(self, data: object) -> bool:
            """Writes equal objects out: careful readers refuse aliases."""
            return True

    Dumper.add_representer(
        str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    )
    return str(yaml.dump_all(documents, Dumper=Dumper, sort_keys=True, width=100))
