"""Engine of Apache Beam for the data steps: a name becomes Beam's options."""

import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trainer_module.util.checks import require

ENGINES = (
    "direct, direct:N, portable://HOST:PORT, flink://HOST:PORT, flink://local, spark://HOST:PORT, "
    "spark://local or dataflow"
)
DATAFLOW_NEEDS = ("project", "region", "temp_location", "sdk_container_image")
"""Options without which nothing can run on Dataflow."""

_NAME = re.compile(
    r"(?P<direct>direct)(:(?P<workers>[1-9][0-9]*))?|(?P<dataflow>dataflow)"
    r"|(?P<portable>portable|flink|spark)://(?P<address>.+)"
)
_HERE = ("localhost", "127.0.0.1", "::1")
_LAUNCHER = "job_server_java_launcher"
_OPTION = re.compile(r"([a-z][a-z0-9_]*)(=.*)?", re.S)
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


@dataclass(frozen=True)
class Engine:
    """What runs Beam pipelines.

    Attributes:
        kind: direct, portable, flink, spark or dataflow.
        workers: Worker processes of `direct`; 1 means this process itself.
        address: HOST:PORT at which the engine listens; None if it is started for the run.
    """

    kind: str
    workers: int = 1
    address: str | None = None

    @property
    def here(self) -> bool:
        """Whether it runs on this machine."""
        host = urlsplit(f"//{self.address}").hostname
        return self.kind != "dataflow" and (self.address is None or host in _HERE)


@dataclass(frozen=True)
class BeamConfig:
    """Where Apache Beam runs reading, statistics, transformation and evaluation.

    Attributes:
        beam: Engine: direct, in this process; direct:N, in N processes of this machine;
            portable://HOST:PORT, on a job server of Beam; flink://HOST:PORT or spark://HOST:PORT,
            on a cluster, with local for HOST:PORT on one that is started for the run; dataflow, on
            Google Cloud, for a pipeline compiled for Vertex AI.
        beam_workers: HOST:PORT of the worker pools, as the machines of the engine see them; if not
            given, this process does the work for an engine on this machine.
        job_server_jar: Beam's job server for flink or spark, a .jar of Beam's own version.
        beam_args: More options of Beam, as NAME=VALUE, or NAME for one without a value.
    """

    beam: str = "direct"
    beam_workers: str | None = None
    job_server_jar: Path | None = None
    beam_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks what needs no look at the machine."""
        engine = parse(self.beam)
        portable, needs_jar = _is_portable(engine), engine.kind in ("flink", "spark")
        require(
            self.beam_workers is None or (portable and _is_address(self.beam_workers)),
            "beam_workers must be HOST:PORT, and left out unless the engine is portable, flink or "
            "spark",
            self.beam_workers,
            "Try --beam-workers localhost:50000.",
        )
        require(
            self.beam_workers is not None or not portable or engine.here,
            "beam_workers must be given for an engine on another machine",
            self.beam,
            "Start a worker pool beside it and try --beam-workers localhost:50000.",
        )
        require(
            needs_jar == (self.job_server_jar is not None),
            "job_server_jar must be given for flink and spark, and for no other engine",
            f"--beam {self.beam} with {self.job_server_jar}",
            "Try --job-server-jar FILE.jar, or --beam portable://HOST:PORT for a job server that "
            "runs already.",
        )
        wrong = [option for option in self.beam_args if not _OPTION.fullmatch(option)]
        require(
            not wrong,
            "beam_args must be NAME=VALUE or NAME, without dashes",
            ", ".join(wrong),
            "Try --beam-args project=my-project region=europe-west1.",
        )
        names = {_name(option) for option in self.beam_args}
        taken = {"runner", *map(_name, _engine_args(self, engine))} & names
        require(
            not taken,
            "beam_args must leave out what --beam itself sets",
            ", ".join(sorted(taken)),
            "Leave it out, or name another engine with --beam.",
        )
        missing = [name for name in DATAFLOW_NEEDS if name not in names]
        require(
            engine.kind != "dataflow" or not missing,
            f"beam_args must have {', '.join(DATAFLOW_NEEDS)} for dataflow, which is an engine for "
            "pipelines compiled with --target vertex",
            self.beam_args,
            f"Add {' '.join(f'{name}=...' for name in missing)} to --beam-args.",
        )


def parse(text: str) -> Engine:
    """Returns the engine of a name, the value of `--beam`.

    Raises:
        ValueError: There is no such engine, or its address or number of workers is not one.
    """
    parts = _NAME.fullmatch(text)
    address = parts and parts["address"]
    local = address == "local" and not text.startswith("portable")
    require(
        parts is not None and (address is None or local or _is_address(address)),
        f"beam must be {ENGINES}, with N of 1 or more and a port of 1 to 65535",
        text,
        "Try --beam direct:2.",
    )
    assert parts is not None
    kind = parts["direct"] or parts["dataflow"] or parts["portable"]
    return Engine(kind, int(parts["workers"] or 1), None if local else address)


def pipeline_args(config: BeamConfig, images: bool) -> tuple[str, ...]:
    """Returns Beam's options for a run: `beam_pipeline_args` of the pipeline.

    Args:
        config: The engine.
        images: Whether the examples hold images, of which few fill the memory.

    Returns:
        The options; none for this process itself, which needs none.
    """
    engine = parse(config.beam)
    if engine.kind == "direct" and engine.workers == 1 and not config.beam_args:
        return ()
    args = [*_engine_args(config, engine), *(f"--{option}" for option in config.beam_args)]
    if not any(_name(arg) == "sdk_container_image" for arg in args):
        args += [_NO_SDIST, _NO_LIST]
    if images:
        args.append(_BATCHES_BY_SIZE)
    return tuple(args)


def reading_args(config: BeamConfig) -> tuple[str, ...]:
    """Returns what the component that reads the data adds to the options of the pipeline.

    The data may lie in a folder that is mounted for the task alone, so Dataflow is not for it.
    """
    return (_IN_PROCESS,) if parse(config.beam).kind == "dataflow" else ()


def check(config: BeamConfig) -> None:
    """Checks, before a run on this machine starts, that what it needs is there.

    Raises:
        ValueError: The engine cannot see local files, nobody listens at an address, or the job
            server or the Java that runs it is missing.
    """
    engine = parse(config.beam)
    require(
        engine.kind != "dataflow",
        "beam must be another engine for a run on this machine, whose files Dataflow cannot see",
        config.beam,
        "Compile for Vertex AI: plateau compile --target vertex --beam dataflow.",
    )
    if config.job_server_jar is not None:
        require(
            _absolute(config.job_server_jar).is_file(),
            "job_server_jar must be a file",
            str(config.job_server_jar),
            "Check --job-server-jar.",
        )
        launcher = next(
            (o.partition("=")[2] for o in config.beam_args if _name(o) == _LAUNCHER), "java"
        )
        require(
            shutil.which(launcher) is not None,
            f"{engine.kind} must find Java, which runs Beam's job server",
            launcher,
            f"Put it on PATH, or try --beam-args {_LAUNCHER}=/PATH/TO/java.",
        )
    for field, address in _addresses(config, engine):
        error = _refusal(address)
        require(
            error is None,
            f"{field} must be an address at which something listens ({error})",
            address,
            f"Start it first, or check --{field.replace('_', '-')}.",
        )


def check_compiled(config: BeamConfig, target: str) -> None:
    """Checks that the tasks of a compiled pipeline can work with an engine.

    The files of a task lie in its own pod, where no worker of a cluster sees them. On Dataflow,
    the workers read and write Cloud Storage themselves.

    Args:
        config: The engine.
        target: kfp or vertex.

    Raises:
        ValueError: They cannot.
    """
    kind = parse(config.beam).kind
    require(
        kind == "direct" or (kind == "dataflow" and target == "vertex"),
        "beam must be direct or direct:N in a compiled pipeline, or dataflow with --target vertex, "
        "since no other engine sees the files of a task",
        config.beam,
        "Try --beam direct.",
    )


def _is_portable(engine: Engine) -> bool:
    return engine.kind not in ("direct", "dataflow")


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
    if config.beam_workers is not None and engine.here:
        yield "beam_workers", config.beam_workers


def _refusal(address: str) -> str | None:
    """Returns why a connection is refused; None if it is not."""
    parts = urlsplit(f"//{address}")
    try:
        with socket.create_connection((parts.hostname, parts.port or 0), timeout=_CONNECT_SECONDS):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _is_address(text: str) -> bool:
    """Returns True for HOST:PORT, with brackets around an IPv6 address."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    return bool(host and port) and text.lower() in (f"{host}:{port}", f"[{host}]:{port}")


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _name(arg: str) -> str:
    return arg.removeprefix("--").partition("=")[0]
