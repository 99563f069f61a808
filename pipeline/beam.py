"""Where Apache Beam runs the data steps: an engine by name becomes Beam's options."""

import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from trainer_module.checks import require

Kind: TypeAlias = Literal["direct", "portable", "flink", "spark", "dataflow"]

ENGINES = (
    "direct, direct:N, portable://HOST:PORT, flink://HOST:PORT, flink://local, spark://HOST:PORT, "
    "spark://local or dataflow"
)
DATAFLOW_NEEDS = ("project", "region", "temp_location", "sdk_container_image")
"""Options without which nothing can run on Dataflow."""

_PORTABLE: tuple[Kind, ...] = ("portable", "flink", "spark")
_JAR: tuple[Kind, ...] = ("flink", "spark")
_PORTS = {"portable": 8099, "flink": 8081, "spark": 7077}
_LOCAL = "local"
_HERE = ("localhost", "127.0.0.1", "::1")
_LAUNCHER = "job_server_java_launcher"
_OPTION = re.compile(r"([a-z][a-z0-9_]*)(=.*)?", re.S)
_CONNECT_SECONDS = 3.0
# A worker begins with importing TensorFlow and TFX, which takes a busy machine minutes.
_JOB_SERVER_SECONDS = 300

# Given any options at all, TFX packs an sdist of itself for each component, 1.3 to 1.8 seconds
# each, unless it is told of an image. None of the engines that get this starts one: their workers
# live in an environment where everything is installed.
_NO_SDIST = "--sdk_container_image=unused"
# Beam would list the packages of this environment for each component, and nobody reads it.
_NO_LIST = "--experiments=disable_logging_submission_environment"
# Beam lets batches grow as long as that pays, whatever the size of a picture.
_BATCHES_BY_SIZE = "--tfxio_use_byte_size_batching=true"
_IN_PROCESS = "--runner=DirectRunner"
_ON_DATAFLOW = "--runner=DataflowRunner"


@dataclass(frozen=True)
class Address:
    """A host and a port.

    Attributes:
        host: Name or number of the host, without brackets.
        port: The port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """HOST:PORT, with brackets around an IPv6 number."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def here(self) -> bool:
        """Whether it is one of this machine."""
        return self.host in _HERE


@dataclass(frozen=True)
class Engine:
    """What runs Beam pipelines.

    Attributes:
        kind: Which program.
        workers: Worker processes of `direct`; 1 means this process itself.
        address: Where the engine listens; None if it is started for the run, or has no address.
    """

    kind: Kind
    workers: int = 1
    address: Address | None = None

    @property
    def here(self) -> bool:
        """Whether it runs on this machine."""
        return self.kind != "dataflow" and (self.address is None or self.address.here)


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
        """Check all that can be checked without looking around."""
        engine = parse(self.beam)
        if self.beam_workers is not None:
            require(
                engine.kind in _PORTABLE,
                "beam_workers must be left out unless the engine is portable, flink or spark",
                self.beam_workers,
                "Leave out --beam-workers, or name the engine with --beam.",
            )
            _address(self.beam_workers, "beam_workers", "Try --beam-workers localhost:50000.")
        require(
            self.beam_workers is not None or engine.kind not in _PORTABLE or engine.here,
            "beam_workers must be given for an engine on another machine",
            self.beam,
            "Start a worker pool beside it and try --beam-workers localhost:50000.",
        )
        require(
            engine.kind not in _JAR or self.job_server_jar is not None,
            f"job_server_jar must be given for {engine.kind}, which Beam reaches by a job server",
            self.job_server_jar,
            "Try --job-server-jar FILE.jar; of a job server that runs already, name the address: "
            "--beam portable://HOST:PORT.",
        )
        require(
            engine.kind in _JAR or self.job_server_jar is None,
            "job_server_jar must be left out unless the engine is flink or spark",
            str(self.job_server_jar),
            "Leave out --job-server-jar, or try --beam flink://local.",
        )
        names = []
        for option in self.beam_args:
            found = _OPTION.fullmatch(option)
            require(
                found is not None,
                "beam_args must be NAME=VALUE or NAME, without dashes",
                option,
                "Try --beam-args project=my-project region=europe-west1.",
            )
            assert found is not None
            names.append(found[1])
        taken = {"runner", *map(_name, _engine_args(self, engine))} & set(names)
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
    """The engine of a name.

    Args:
        text: Value of `--beam`.

    Raises:
        ValueError: There is no such engine, or its address or number of workers is not one.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        name, colon, count = text.partition(":")
        if name == "direct":
            return Engine("direct", _count(text, count) if colon else 1)
        if text == "dataflow":
            return Engine("dataflow")
        scheme = name
    require(
        scheme != "dask",
        f"beam must be {ENGINES}; on Dask, TFX's components fail",
        text,
        "Try --beam direct:2.",
    )
    for kind in _PORTABLE:
        if scheme == kind:
            remedy = f"Try --beam {kind}://localhost:{_PORTS[kind]}."
            if kind in _JAR and rest == _LOCAL:
                return Engine(kind)
            return Engine(kind, address=_address(rest, f"beam of {kind}", remedy, shown=text))
    raise ValueError(f"beam must be {ENGINES}, got {text!r}. Try --beam direct.")


def pipeline_args(config: BeamConfig, pictures: bool) -> tuple[str, ...]:
    """Beam's options for a run: `beam_pipeline_args` of the pipeline.

    Args:
        config: The engine.
        pictures: Whether the examples hold pictures, of which few fill the memory.

    Returns:
        The options; none for this process itself, which needs none.
    """
    engine = parse(config.beam)
    if engine.kind == "direct" and engine.workers == 1 and not config.beam_args:
        return ()
    args = [*_engine_args(config, engine), *(f"--{option}" for option in config.beam_args)]
    if not any(_name(arg) == "sdk_container_image" for arg in args):
        args += [_NO_SDIST, _NO_LIST]
    if pictures:
        args.append(_BATCHES_BY_SIZE)
    return tuple(args)


def reading_args(config: BeamConfig) -> tuple[str, ...]:
    """What the component that reads the data adds to the options of the pipeline.

    The data may lie in a folder that is mounted for the task alone, so Dataflow is not for it.
    """
    return (_IN_PROCESS,) if parse(config.beam).kind == "dataflow" else ()


def on_dataflow(args: Sequence[str]) -> bool:
    """Whether a component with these options works on Dataflow, on URIs and no staged files.

    Args:
        args: Options of Beam, of which the last of a name counts.
    """
    runners = [arg for arg in args if _name(arg) == "runner"]
    return runners[-1:] == [_ON_DATAFLOW]


def check(config: BeamConfig) -> None:
    """Look whether what a run on this machine needs is there, before it starts.

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
            str(address),
            f"Start it first, or check --{field.replace('_', '-')}.",
        )


def check_compiled(config: BeamConfig, target: str) -> None:
    """Check that the tasks of a compiled pipeline can work with an engine.

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


def _engine_args(config: BeamConfig, engine: Engine) -> list[str]:
    if engine.kind == "direct":
        if engine.workers == 1:
            return [_IN_PROCESS]
        return [
            _IN_PROCESS,
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={engine.workers}",
        ]
    if engine.kind == "dataflow":
        return [_ON_DATAFLOW]
    where = str(engine.address) if engine.address else None
    jar = str(_absolute(config.job_server_jar)) if config.job_server_jar else ""
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
    options.append(f"--job_server_timeout={_JOB_SERVER_SECONDS}")
    if config.beam_workers is None:
        return [*options, "--environment_type=LOOPBACK"]
    return [
        *options,
        "--environment_type=EXTERNAL",
        f"--environment_config={config.beam_workers}",
    ]


def _addresses(config: BeamConfig, engine: Engine) -> Iterator[tuple[str, Address]]:
    if engine.address is not None:
        yield "beam", engine.address
    # What a name means on another machine cannot be told from here.
    if config.beam_workers is not None and engine.here:
        yield "beam_workers", _address(config.beam_workers, "beam_workers", "")


def _refusal(address: Address) -> str | None:
    """Why a connection is refused; None if it is not."""
    try:
        with socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _address(text: str, what: str, remedy: str, shown: str | None = None) -> Address:
    rule = f"{what} must have the address HOST:PORT, with a port of 1 to 65535"
    shown = text if shown is None else shown
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    # Nothing but host and port may be there, and nothing may have been passed over in silence.
    address = Address(host or "", port or 0)
    require(bool(host and port) and str(address) == text.lower(), rule, shown, remedy)
    return address


def _count(text: str, count: str) -> int:
    require(
        re.fullmatch(r"[0-9]+", count) is not None and int(count) >= 1,
        "beam must name at least 1 worker in direct:N",
        text,
        "Try --beam direct:2.",
    )
    return int(count)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _name(arg: str) -> str:
    return arg.removeprefix("--").partition("=")[0]
