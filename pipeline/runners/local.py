"""Runs the pipeline on this machine, in this process."""

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
from trainer_module.util.checks import require

from ..config import RunConfig
from ..data import dataset
from ..metadata import store as metadata
from . import baseline, beam, cache, disk, lock, logs, progress
from .result import RunResult

_log = logging.getLogger(__name__)


class RunFailedError(RuntimeError):
    """A component, or the making of the pipeline, failed.

    Attributes:
        component: The component that failed; None if none had started.
        log: The log file, which holds the traceback.
    """

    def __init__(self, component: str | None, cause: BaseException, log: Path) -> None:
        """Say what failed in the cause's own words."""
        where = f"{component} failed: " if component else ""
        super().__init__(where + (str(cause) or type(cause).__name__))
        self.component = component
        self.log = log

    @property
    def gate(self) -> bool:
        """Whether nothing is broken, but a gate stopped the run."""
        return isinstance(self.__cause__, GateError)


@dataclass(frozen=True)
class Session:
    """What runs on this machine need, ready for as long as a context lasts.

    Attributes:
        config: The run, with `classes` filled in.
        data: Where the data is.
        output: Output folder, absolute; it is held.
        store: Where runs are recorded.
        log: The log file.
    """

    config: RunConfig
    data: dataset.Dataset
    output: Path
    store: metadata.Store
    log: Path

    def failed(self, cause: Exception, where: str | None) -> RunFailedError:
        """What to raise from a failure, whose traceback goes to the log.

        Args:
            cause: What was raised.
            where: Component, or more, that failed; None if none had started.
        """
        _log.error("%s", "".join(traceback.format_exception(cause)))
        plain = disk.full(cause, self.output) or metadata.plain(cause, self.store)
        return RunFailedError(where, plain, self.log)


@contextlib.contextmanager
def session(config: RunConfig) -> Iterator[Session]:
    """Hold the output folder, open a log, and find data and ML Metadata.

    Args:
        config: What the runs have in common.

    Raises:
        ValueError: The data cannot be used, or flags do not fit it, or the engine of Beam or the
            database of ML Metadata is not there, or TF_CONFIG names several workers.
        GateError: A model of other classes would be replaced.
        disk.DiskFullError: There is no room to begin.
        lock.OutputBusyError: Another run is using the output folder.
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
                found = Session(config, data, output, store, log)
                try:
                    cache.forget_lost(store)
                    baseline.check(config, output, store)
                except GateError:
                    raise
                except Exception as cause:
                    raise found.failed(cause, None) from cause
                yield found


def _resolved(output: Path) -> Path:
    try:
        return output.resolve()
    # What pathlib raises at links in a circle.
    except RuntimeError:
        raise ValueError(
            f"--output must be a folder or lead to one, got {output}, a link that leads in a "
            "circle. Remove the link, or name another folder."
        ) from None


def run(config: RunConfig, console: Console, command: str = "") -> RunResult:
    """Run the pipeline and read back what came of it.

    A failed run leaves earlier pushed models, artifacts and metadata as they were.

    Args:
        config: The run.
        console: Where progress is printed.
        command: Command that repeats the run, for its report.

    Raises:
        ValueError: As `session`.
        disk.DiskFullError: As `session`.
        lock.OutputBusyError: As `session`.
        RunFailedError: A component failed.
    """
    began = time.monotonic()
    with session(config) as here:
        with progress.shown(console) as shown:
            try:
                run_id = execute(here.config, here.data, here.output, command)
            except Exception as cause:
                raise here.failed(cause, shown.component) from cause
        from . import result

        seconds = time.monotonic() - began
        return result.read_run(here.store, run_id, here.config, log=here.log, seconds=seconds)


def compile_pipeline(
    config: RunConfig, data: dataset.Dataset, output: Path, command: str = ""
) -> Any:
    """The pipeline's intermediate representation for this machine.

    Args:
        config: The run, with `classes` filled in.
        data: Where the data is.
        output: Output folder, absolute.
        command: Command that repeats the run, for its report.

    Returns:
        A tfx.proto.orchestration.pipeline_pb2.Pipeline.
    """
    from tfx.dsl.compiler.compiler import Compiler

    from .. import graph

    artifacts = output / "artifacts"
    paths = graph.PipelinePaths(
        data=str(data.folder),
        artifacts=str(artifacts),
        pushed=str(output / "pushed"),
        # Every execution has new folders under the pipeline root; this one they share.
        checkpoints=str(artifacts / "checkpoints"),
        metadata=metadata.store_of(output),
    )
    return Compiler().compile(graph.create_pipeline(config, paths, data.schema, command))


def execute(
    config: RunConfig,
    data: dataset.Dataset,
    output: Path,
    command: str = "",
    to_nodes: Sequence[str] = (),
) -> str:
    """Compile, run, and return the id of the run.

    Args:
        config: The run, with `classes` filled in.
        data: Where the data is.
        output: Output folder, absolute.
        command: Command that repeats the run, for its report.
        to_nodes: Nodes to stop at; the whole pipeline if none are given.
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
