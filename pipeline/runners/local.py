"""Local runner: the pipeline in this process."""

import contextlib
import dataclasses
import logging
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from components.gate import GateError
from trainer_module.distributed import cluster
from trainer_module.util import collector, environment
from trainer_module.util.checks import UserError, require

from ..config import RunConfig
from ..data import dataset
from ..metadata import store as metadata
from . import baseline, beam, cache, disk, lock, logs, progress
from .result import RunResult

_log = logging.getLogger(__name__)


class RunFailedError(RuntimeError):
    """Failure of a component, or before the first one.

    Attributes:
        component: The component that failed; None if none had started.
        log: The log file, which holds the traceback.
    """

    def __init__(self, component: str | None, cause: BaseException, log: Path) -> None:
        where = f"{component} failed: " if component else ""
        super().__init__(where + (str(cause) or type(cause).__name__))
        self.component = component
        self.log = log

    @property
    def gate(self) -> bool:
        """Whether a gate stopped the run."""
        return isinstance(self.__cause__, GateError)


@dataclass(frozen=True)
class Session:
    """Locked output folder, log, data and ML Metadata of runs on this machine."""

    config: RunConfig
    """The run, with `classes` filled in."""
    data: dataset.Dataset
    output: Path
    """Output folder, absolute and locked."""
    store: metadata.Store
    log: Path

    def failed(self, cause: Exception, where: str | None) -> RunFailedError:
        """Logs the traceback of a failure and returns what to raise from it.

        Args:
            cause: The error of a library or component.
            where: Name of what failed; None if no component had started.
        """
        _log.error("%s", "".join(traceback.format_exception(cause)))
        plain = disk.full(cause, self.output) or metadata.plain(cause, self.store)
        return RunFailedError(where, plain, self.log)


@contextlib.contextmanager
def session(config: RunConfig) -> Iterator[Session]:
    """Locks the output folder, opens a log, data and ML Metadata.

    Args:
        config: Configuration that the runs share.

    Raises:
        UserError: The data cannot be used, or flags do not fit it; the engine of Beam or the
            database of ML Metadata does not answer; TF_CONFIG names several workers; the disk is
            full; or another run is using the output folder.
        GateError: A model of other classes would be replaced.
        RunFailedError: ML Metadata cannot be opened for writing.
    """
    place = cluster.locate(os.environ.get(cluster.TF_CONFIG, ""))
    require(
        place is None,
        f"{cluster.TF_CONFIG} must not name several workers for a run of the whole pipeline",
        str(place),
        "Unset it, or train on several workers with `python -m trainer_module.worker`.",
    )
    beam.check(config.beam)
    output = _resolved(config.folder)
    with disk.named(output), lock.hold(output):
        log = logs.path_for(output, datetime.now())
        with logs.capture(log, config.verbose):
            data = dataset.resolve(config, output)
            config = dataclasses.replace(config, classes=data.classes)
            environment.prepare(config.verbose)
            database = config.metadata
            with metadata.ready(
                database.metadata, database.metadata_password_file, output
            ) as store:
                opened = Session(config, data, output, store, log)
                try:
                    cache.mark_deleted(store)
                    baseline.check(config, output, store)
                except GateError:
                    raise
                except Exception as cause:
                    raise opened.failed(cause, None) from cause
                yield opened


def _resolved(output: Path) -> Path:
    try:
        return output.resolve()
    # What pathlib raises at links in a circle.
    except RuntimeError:
        raise UserError(
            "`output` must be a folder, and no link that leads in a circle",
            str(output),
            "Remove the link, or name another folder.",
        ) from None


def run(config: RunConfig, console: Console, command: str = "") -> RunResult:
    """Runs the pipeline and returns its result.

    A failed run leaves earlier pushed models, artifacts and metadata as they were.

    Args:
        config: The run.
        console: Where progress is printed.
        command: Command that repeats the run, for its report.

    Raises:
        UserError: As `session`.
        GateError: As `session`.
        RunFailedError: A component failed.
    """
    began = time.monotonic()
    with session(config) as opened:
        with progress.shown(console) as display:
            try:
                run_id = execute(opened.config, opened.data, opened.output, command)
            except Exception as cause:
                raise opened.failed(cause, display.component) from cause
        from . import result

        seconds = time.monotonic() - began
        return result.read_run(opened.store, run_id, opened.config, log=opened.log, seconds=seconds)


def compile_pipeline(
    config: RunConfig, data: dataset.Dataset, output: Path, command: str = ""
) -> Any:
    """Returns the pipeline's intermediate representation, a pipeline_pb2.Pipeline.

    Args: as `execute`.
    """
    from tfx.dsl.compiler.compiler import Compiler

    from .. import graph

    artifacts = output / "artifacts"
    paths = graph.PipelinePaths(
        data=str(data.folder),
        source=str(data.source),
        artifacts=str(artifacts),
        pushed=str(output / "pushed"),
        # Every execution has new folders under the pipeline root; this one they share.
        checkpoints=str(artifacts / "checkpoints"),
        metadata=metadata.store_of(output),
    )
    beam_args = beam.pipeline_args(config)
    return Compiler().compile(
        graph.create_pipeline(config, paths, data.schema, command, beam_args=beam_args)
    )


def execute(
    config: RunConfig,
    data: dataset.Dataset,
    output: Path,
    command: str = "",
    to_nodes: Sequence[str] = (),
) -> str:
    """Compiles and runs the pipeline, and returns the id of the run.

    Args:
        config: The run, with `classes` filled in.
        data: The data set.
        output: Output folder, absolute.
        command: Command that repeats the run, for its report.
        to_nodes: Last nodes to run; all nodes if empty.
    """
    with collector.paused():
        from tfx.dsl.compiler import constants
        from tfx.orchestration.local.local_dag_runner import LocalDagRunner
        from tfx.orchestration.portable import runtime_parameter_utils
        from tfx.proto.orchestration import pipeline_pb2

        ir = compile_pipeline(config, data, output, command)
    logs.silence_libraries()
    _log.info(progress.STEPS, len(ir.nodes))
    # LocalDagRunner draws an id of its own only where none is set, and does not tell it.
    run_id = metadata.mark(datetime.now().isoformat(), metadata.store_of(output))
    runtime_parameter_utils.substitute_runtime_parameter(
        ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
    )
    part = pipeline_pb2.RunOptions(partial_run=pipeline_pb2.PartialRun(to_nodes=to_nodes))
    LocalDagRunner().run_with_ir(ir, run_options=part if to_nodes else None)
    return run_id
