"""Configuration of one run as one typed value, from which the flags of `plateau run` are made."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import tyro
from annotated_types import Ge, Gt, Interval, Le

from components.evaluation.results import OF_TWO
from components.image_example_gen.split import check_expression
from trainer_module.config import (
    Features,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    TableFeatures,
    TrainConfig,
    is_regression,
    metrics,
)
from trainer_module.schedule import forecast
from trainer_module.schedule.scaling import TrainingSpec
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.schedule.state import Stage
from trainer_module.util.checks import check_fields, require

from .metadata.database import parse as parse_database

ENGINES = (
    "direct, direct:N, portable://HOST:PORT, flink://HOST:PORT, flink://local, spark://HOST:PORT, "
    "spark://local or dataflow"
)

DATAFLOW_OPTIONS = ("project", "region", "temp_location", "sdk_container_image")
"""Options of Beam that Dataflow requires."""

# Options of Beam that `--beam` and its other flags set.
_OPTIONS = """
runner direct_running_mode direct_num_workers job_endpoint flink_master flink_job_server_jar
spark_master_url spark_job_server_jar job_server_timeout environment_type environment_config
"""
_ENGINE_OPTIONS = frozenset(_OPTIONS.split())
_ENGINE = re.compile(
    r"(?P<direct>direct)(:(?P<workers>[1-9][0-9]*))?|(?P<dataflow>dataflow)"
    r"|(?P<portable>portable|flink|spark)://(?P<address>.+)"
)
_BEAM_OPTION = re.compile(r"([a-z][a-z0-9_]*)(=.*)?", re.S)

Share = Annotated[float, Interval(ge=0, le=1)]
OptionalShare = Annotated[float | None, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class GateConfig:
    """Thresholds that data and model must reach for the model to be blessed and pushed."""

    min_accuracy: OptionalShare = None
    """Accuracy over all test examples (0 to 1) a model must reach; if not given, the lower end of
    its 95 % Wilson interval must reach the share of the largest class."""
    min_class_accuracy: Share = 0.0
    """Accuracy (0 to 1) it must reach in every single class; 0 for no such gate."""
    min_class_examples: Annotated[int, Ge(0)] = 0
    """Test examples that every class must have, since an accuracy measured on three proves little;
    0 for no such gate."""
    max_accuracy_drop: Share = 0.01
    """How far (0 to 1) its accuracy may lie below that of the last blessed model, measured on the
    same test examples; ignored where there is none yet."""
    min_roc_auc: OptionalShare = None
    """Area under the ROC curve (0 to 1) of two classes, the second one as positive."""
    min_pr_auc: OptionalShare = None
    """Area under the precision-recall curve (0 to 1) of two classes, likewise."""
    min_precision: OptionalShare = None
    """Share (0 to 1) of the examples predicted as the second of two classes that are of it."""
    min_recall: OptionalShare = None
    """Share (0 to 1) of the examples of the second of two classes that are predicted as it."""
    min_f1: OptionalShare = None
    """Harmonic mean (0 to 1) of that precision and recall."""
    min_r2: Annotated[float | None, Le(1)] = None
    """R2 over all test examples a regression must reach (1 is perfect); if not given, the lower end
    of its 95 % interval must reach 0, which the mean of the labels does."""
    max_mae: Annotated[float | None, Ge(0)] = None
    """Mean absolute error, in the label's unit, that a regression may have; no such gate if not
    given."""
    max_r2_drop: Annotated[float, Ge(0)] = 0.01
    """How far its R2 may lie below that of the last blessed model, measured on the same test
    examples; ignored where there is none yet."""
    allow_class_change: bool = False
    """Let the model replace one of images that knows other classes; the drop is then measured on
    the test examples of the classes that both know."""
    max_drift: OptionalShare = None
    """Distance (0 to 1) that the training data of any feature may have moved since the last blessed
    model, less the sampling error: the L-infinity distance of categorical, the Kolmogorov-Smirnov
    distance of numeric features; measured but not bounded if not given."""
    max_skew: OptionalShare = None
    """Distance (0 to 1), measured alike, between training and test data."""
    max_latency: Annotated[float | None, Gt(0)] = None
    """Milliseconds that 99 of 100 requests for one example may take, in a process of their own on
    this machine; no such gate if not given."""
    max_model_mib: Annotated[float | None, Gt(0)] = None
    """Size of the exported model in MiB; no such gate if not given."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        check_fields(self)


_NO_GATES = GateConfig()
OF_ANY = ("max_drift", "max_skew", "max_latency", "max_model_mib")
"""Gates of data and servable, which fit every task."""
OF_NUMBERS = ("min_r2", "max_mae", "max_r2_drop")
"""Gates on a regression."""
OF_CLASSES = tuple(f.name for f in fields(GateConfig) if f.name not in (*OF_ANY, *OF_NUMBERS))
"""Gates on a classification."""
_OF_TWO = tuple(f"min_{name}" for name in OF_TWO)


@dataclass(frozen=True)
class Engine:
    """Runner of Beam pipelines, parsed from the value of `--beam`."""

    kind: str
    """direct, portable, flink, spark or dataflow."""
    workers: int = 1
    """Worker processes of `direct`; 1 means this process itself."""
    address: str | None = None
    """HOST:PORT at which the engine listens; None if it is started for the run."""

    @property
    def is_portable(self) -> bool:
        """Whether Beam submits its pipelines to a job server."""
        return self.kind in ("portable", "flink", "spark")

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine."""
        host = urlsplit(f"//{self.address}").hostname
        local = self.address is None or host in ("localhost", "127.0.0.1", "::1")
        return self.kind != "dataflow" and local


@dataclass(frozen=True)
class BeamConfig:
    """Apache Beam's engine for reading, statistics, transformation and evaluation."""

    beam: str = "direct"
    """Engine: direct, in this process; direct:N, in N processes of this machine;
    portable://HOST:PORT, on a job server of Beam; flink://HOST:PORT or spark://HOST:PORT, on a
    cluster, with local for HOST:PORT on one that is started for the run; dataflow, on Google Cloud,
    for a pipeline compiled for Vertex AI."""
    beam_workers: str | None = None
    """HOST:PORT of the worker pools, as the machines of the engine see them; if not given, this
    process does the work for an engine on this machine."""
    job_server_jar: Path | None = None
    """Beam's job server for flink or spark, a .jar of Beam's own version."""
    beam_args: tuple[str, ...] = ()
    """More options of Beam, as NAME=VALUE, or NAME for one without a value."""

    def __post_init__(self) -> None:
        """Checks what needs no access to the engine."""
        engine = self.engine
        require(
            self.beam_workers is None or (engine.is_portable and _is_address(self.beam_workers)),
            "`beam_workers` must be HOST:PORT, and left out unless the engine is portable, flink "
            "or spark",
            self.beam_workers,
            "Try `beam_workers=localhost:50000`.",
        )
        require(
            self.beam_workers is not None or not engine.is_portable or engine.is_local,
            "`beam_workers` must be given for an engine on another machine",
            self.beam,
            "Start a worker pool beside it and try `beam_workers=localhost:50000`.",
        )
        require(
            (engine.kind in ("flink", "spark")) == (self.job_server_jar is not None),
            "`job_server_jar` must be given for flink and spark, and for no other engine",
            f"{self.beam} with {self.job_server_jar}",
            "Try `job_server_jar=FILE.jar`, or `beam=portable://HOST:PORT` for a job server that "
            "runs already.",
        )
        wrong = [option for option in self.beam_args if not _BEAM_OPTION.fullmatch(option)]
        require(
            not wrong,
            "`beam_args` must be NAME=VALUE or NAME, without dashes",
            ", ".join(wrong),
            "Try `beam_args=project=my-project`.",
        )
        names = {option.partition("=")[0] for option in self.beam_args}
        require(
            not names & _ENGINE_OPTIONS,
            "`beam_args` must leave out what `beam` itself sets",
            ", ".join(sorted(names & _ENGINE_OPTIONS)),
            "Leave it out, or name another engine with `beam`.",
        )
        missing = [name for name in DATAFLOW_OPTIONS if name not in names]
        require(
            engine.kind != "dataflow" or not missing,
            f"`beam_args` must have {', '.join(DATAFLOW_OPTIONS)} for dataflow, which is an engine "
            "for pipelines compiled for Vertex AI",
            self.beam_args,
            f"Add {' '.join(f'{name}=...' for name in missing)} to `beam_args`.",
        )

    @property
    def engine(self) -> Engine:
        """The engine that `beam` names."""
        return parse_engine(self.beam)


@dataclass(frozen=True)
class MetadataConfig:
    """Store of ML Metadata, which records the runs."""

    metadata: str | None = None
    """MySQL database for ML Metadata, as mysql://USER@HOST/DATABASE, in place of a file in the
    output folder; the folder remembers it. The password is read from PLATEAU_METADATA_PASSWORD."""
    metadata_password_file: Path | None = None
    """File that holds the database's password, in place of that variable; the folder remembers the
    file's name."""

    def __post_init__(self) -> None:
        """Checks the form of the URL."""
        if self.metadata is not None:
            parse_database(self.metadata)


@dataclass(frozen=True)
class RunConfig:
    """Configuration of a run. Every field is a flag; a preset gives the defaults."""

    name: tyro.conf.Suppress[str]
    """Name of the preset, from which the pipeline and the committed schema are named."""
    features: Features
    """How raw examples become tensors."""
    data: Path | None = None
    """Folder with a subfolder of images for each class; for a table a CSV file, or a folder of CSV
    files."""
    output: Path | None = None
    """Folder for all that a run writes: artifacts, metadata, pushed models, logs. If not given,
    runs/ and the name of the preset; for a preset without a data set of its own (images), the name
    of the data folder."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the label indices; if not given, the names of the subfolders in
    alphabetical order. A regression has none."""
    schema: Path | None = None
    """TFMD schema (.pbtxt) the data must satisfy; if not given, the preset's committed one, or for
    images one written from the class names, or for your own table one inferred from it."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """What to do about an image that cannot be decoded: stop and name it, or leave it out and count
    it."""
    on_missing_label: Literal["fail", "skip"] = "fail"
    """What to do about rows of a table that have no label: stop and name them, or leave them out
    and count them."""
    group_by: str | None = None
    """Regular expression that finds in an image's path below the data folder what its group is
    called: a person, say, or a burst. The images of a group lie in one split."""
    warm_start: bool = False
    """Start from the weights of the last blessed model, if there is one."""
    tune: Annotated[int, Ge(0)] = 0
    """Trials of a search for learning rate, first batch, patience and model width; 0 for no
    search."""
    verbose: bool = False
    """Show the log on the console too."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Model."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """What happens at a plateau."""
    optimization: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Training loop."""
    gates: GateConfig = field(default_factory=GateConfig)
    """What a model must reach to be pushed."""
    beam: BeamConfig = field(default_factory=BeamConfig)
    """Where Apache Beam runs the data steps."""
    metadata: MetadataConfig = field(default_factory=MetadataConfig)
    """Where ML Metadata records the runs."""
    data_set: tyro.conf.Suppress[str] = ""
    """Name of the data set: that of its committed schema, and of the built-in data used where
    `data` is not given."""
    inferred_schema: tyro.conf.Suppress[str] = ""
    """Schema that was inferred from a table, as text (.pbtxt), used where `schema` is not given."""

    def __post_init__(self) -> None:
        """Checks what involves more than one field."""
        check_fields(self)
        is_table = isinstance(self.features, TableFeatures)
        require(
            not is_table or is_regression(self.features) or len(self.classes) >= 2,
            "`classes` must name two classes or more for a table",
            self.classes,
            "Name them in the order of the label values.",
        )
        if is_regression(self.features):
            _refuse(self.gates, OF_CLASSES, "a regression", "`min_r2` or `max_mae`")
        else:
            _refuse(self.gates, OF_NUMBERS, "a classification", "`min_accuracy`")
        if len(self.classes) not in (0, 2):
            what = f"{len(self.classes)} classes"
            _refuse(self.gates, _OF_TWO, what, "`min_class_accuracy`")
        require(
            is_table or self.on_missing_label == "fail",
            "`on_missing_label` is for tables",
            self.on_missing_label,
            "Leave it out: the label of an image is the name of its folder.",
        )
        if self.group_by is not None:
            require(
                not is_table,
                "`group_by` is for images",
                self.group_by,
                "Leave it out: the rows of a table are split by their contents.",
            )
            check_expression(self.group_by)
        monitors = [f"{prefix}{m}" for prefix in ("", "val_") for m in metrics(self.features)]
        require(
            self.schedule.plateau.monitor in monitors,
            f"`monitor` must be one of {', '.join(monitors)}",
            self.schedule.plateau.monitor,
            "Try `monitor=val_loss` with `mode=min`.",
        )
        self.forecast(sys.maxsize)

    @property
    def title(self) -> str:
        """Name of the run for people: that of the preset, or of the user's own data."""
        if self.data_set or self.data is None:
            return self.name
        try:
            data = self.data.expanduser().resolve()
            name = data.stem if data.is_file() else data.name
        # Reading the data raises the error that names the folder.
        except (OSError, RuntimeError):
            name = ""
        # The root of the file system has no name.
        return name or self.name

    @property
    def folder(self) -> Path:
        """The output folder: `output`, or the default one."""
        return Path("runs") / self.title if self.output is None else self.output

    def forecast(self, num_examples: int) -> tuple[Stage, ...]:
        """Returns what the schedule will do at each plateau.

        Args:
            num_examples: Training examples in an epoch.
        """
        optimization = self.optimization
        spec = TrainingSpec(num_examples, optimization.optimizer, optimization.momentum)
        return forecast.stages(self.schedule, spec, optimization.known_rate, self.loop.batch_size)

    def train_config(self) -> TrainConfig:
        """Returns the part that the Trainer reads."""
        return TrainConfig(
            features=self.features,
            classes=self.classes,
            network=self.network,
            optimization=self.optimization,
            schedule=self.schedule,
            loop=self.loop,
        )


def _refuse(gates: GateConfig, names: Iterable[str], what: str, instead: str) -> None:
    """Raises UserError if a gate is set that means nothing for what is predicted."""
    given = {n: value for n in names if (value := getattr(gates, n)) != getattr(_NO_GATES, n)}
    values = list(given.values())
    require(
        not given,
        f"{', '.join(f'`{name}`' for name in given)} must be left out for {what}",
        values[0] if len(values) == 1 else values,
        f"Set {instead} instead.",
    )


def parse_engine(text: str) -> Engine:
    """Returns the engine that a value of `--beam` names."""
    parts = _ENGINE.fullmatch(text)
    address = parts and parts["address"]
    local = address == "local" and not text.startswith("portable")
    require(
        parts is not None and (address is None or local or _is_address(address)),
        f"`beam` must be {ENGINES}, with N of 1 or more and a port of 1 to 65535",
        text,
        "Try `beam=direct:2`.",
    )
    assert parts is not None
    kind = parts["direct"] or parts["dataflow"] or parts["portable"]
    return Engine(kind, int(parts["workers"] or 1), None if local else address)


def _is_address(text: str) -> bool:
    """Returns True for HOST:PORT, with brackets around an IPv6 address."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    return bool(host and port) and text.lower() in (f"{host}:{port}", f"[{host}]:{port}")
