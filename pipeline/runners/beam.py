"""Translation of a BeamConfig to Apache Beam's options."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from trainer_module.config import ImageFeatures
from trainer_module.util.checks import require

from ..config import BeamConfig, Engine, RunConfig

_LAUNCHER = "job_server_java_launcher"
_CONNECT_SECONDS = 3.0
# A worker begins with importing TensorFlow and TFX, which takes a busy machine minutes.
_JOB_SERVER_SECONDS = 300

# Given any options at all, TFX packs an sdist of itself for each component, 1.3 to 1.8 seconds
# each, unless an image is named. None of the engines that get this starts one: their workers
# run in an environment where everything is installed.
_NO_SDIST = "--sdk_container_image=unused"
# Beam would list the packages of this environment for each component, and nobody reads it.
_NO_LIST = "--experiments=disable_logging_submission_environment"
# Beam lets batches grow as long as that pays, whatever the size of an image.
_BATCHES_BY_SIZE = "--tfxio_use_byte_size_batching=true"
_IN_PROCESS = "--runner=DirectRunner"
_ON_DATAFLOW = "--runner=DataflowRunner"


def pipeline_args(run: RunConfig) -> tuple[str, ...]:
    """Returns Beam's options for a run; none for this process itself, which needs none."""
    config = run.beam
    engine = config.engine
    if engine.kind == "direct" and engine.workers == 1 and not config.beam_args:
        return ()
    args = [*_engine_args(config, engine), *(f"--{option}" for option in config.beam_args)]
    if not any(_name(arg) == "sdk_container_image" for arg in args):
        args += [_NO_SDIST, _NO_LIST]
    if isinstance(run.features, ImageFeatures):
        args.append(_BATCHES_BY_SIZE)
    return tuple(args)


def check(config: BeamConfig) -> None:
    """Checks the engine before a run on this machine.

    Raises:
        UserError: The engine cannot see local files, nothing listens at an address, or the job
            server or the Java that runs it is missing.
    """
    engine = config.engine
    require(
        engine.kind != "dataflow",
        "`beam` must be another engine for a run on this machine, whose files Dataflow cannot see",
        config.beam,
        "Compile for Vertex AI: `plateau compile --target vertex --beam dataflow`.",
    )
    if config.job_server_jar is not None:
        require(
            _absolute(config.job_server_jar).is_file(),
            "`job_server_jar` must be a file",
            str(config.job_server_jar),
            "Check the path.",
        )
        launcher = next(
            (o.partition("=")[2] for o in config.beam_args if _name(o) == _LAUNCHER), "java"
        )
        require(
            shutil.which(launcher) is not None,
            f"{engine.kind} must find Java, which runs Beam's job server",
            launcher,
            f"Put it on PATH, or try `beam_args={_LAUNCHER}=/PATH/TO/java`.",
        )
    for field, address in _addresses(config, engine):
        error = _refusal(address)
        require(
            error is None,
            f"`{field}` must be an address at which something listens ({error})",
            address,
            f"Start it first, or check `{field}`.",
        )


def check_compiled(config: BeamConfig, target: str) -> None:
    """Raises UserError unless the tasks of a compiled pipeline can work with the engine.

    The files of a task lie in its own pod, where no worker of a cluster sees them. On Dataflow,
    the workers read and write Cloud Storage themselves.
    """
    kind = config.engine.kind
    require(
        kind == "direct" or (kind == "dataflow" and target == "vertex"),
        "`beam` must be direct or direct:N in a compiled pipeline, or dataflow with "
        "`target=vertex`, since no other engine sees the files of a task",
        config.beam,
        "Try `beam=direct`.",
    )


def _engine_args(config: BeamConfig, engine: Engine) -> list[str]:
    if engine.kind == "dataflow":
        return [_ON_DATAFLOW]
    if engine.kind == "direct":
        many = [
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={engine.workers}",
        ]
        return [_IN_PROCESS, *(many if engine.workers > 1 else [])]
    where = engine.address
    jar = _absolute(config.job_server_jar) if config.job_server_jar else ""
    options = {
        "portable": ["--runner=PortableRunner", f"--job_endpoint={where}"],
        "flink": [
            "--runner=FlinkRunner",
            f"--flink_master={where or '[local]'}",
            f"--flink_job_server_jar={jar}",
        ],
        "spark": [
            "--runner=SparkRunner",
            f"--spark_master_url={f'spark://{where}' if where else 'local[*]'}",
            f"--spark_job_server_jar={jar}",
        ],
    }[engine.kind]
    environment = (
        ["--environment_type=EXTERNAL", f"--environment_config={config.beam_workers}"]
        if config.beam_workers
        else ["--environment_type=LOOPBACK"]
    )
    return [*options, f"--job_server_timeout={_JOB_SERVER_SECONDS}", *environment]


def _addresses(config: BeamConfig, engine: Engine) -> Iterator[tuple[str, str]]:
    if engine.address is not None:
        yield "beam", engine.address
    # What a name means on another machine cannot be known here.
    if config.beam_workers is not None and engine.is_local:
        yield "beam_workers", config.beam_workers


def _refusal(address: str) -> str | None:
    """Returns why a connection is refused; None if it is not."""
    parts = urlsplit(f"//{address}")
    try:
        with socket.create_connection((parts.hostname, parts.port or 0), timeout=_CONNECT_SECONDS):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _name(arg: str) -> str:
    return arg.removeprefix("--").partition("=")[0]
