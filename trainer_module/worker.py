"""Train what the pipeline's Trainer trains, outside of TFX: alone, or as one of several workers.

`python -m trainer_module.worker --help` says how. TF_CONFIG, which Kubeflow's training operator
sets, lists the workers. Every worker reads the same data and takes its share of each batch; the
chief alone writes.

Exit status: 0 done; 143 if starting all workers again may help, as after SIGTERM, the loss of a
worker, or one that never came; 2 if it would not.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from annotated_types import Gt

from trainer_module.config import TrainConfig
from trainer_module.distributed import agreement
from trainer_module.distributed.cluster import TF_CONFIG, locate
from trainer_module.distributed.rendezvous import WAIT, ClusterError, meet
from trainer_module.distributed.supervision import status_of, supervise
from trainer_module.util import environment
from trainer_module.util.checks import UserError, check_fields, require
from trainer_module.util.preemption import EXIT_STATUS, FINAL, leaving_on_sigterm

MODEL = "model"
_MAX_CONFIG = 1024**2
_CONFIG_REMEDY = "Give the .train_config.json that `plateau compile` writes."


@dataclass(frozen=True)
class WorkerConfig:
    """Folders and files of a worker."""

    examples: Path
    """Folder of an Examples artifact, with a folder Split-NAME of *.gz files for each split."""

    transform_graph: Path
    """Folder of a TransformGraph artifact."""

    config: Path
    """File of the training configuration, as `plateau compile` writes it."""

    output: Path
    """Folder that receives model/, history.jsonl and tensorboard/."""

    checkpoints: Path | None = None
    """Folder of checkpoints, which only the chief reads and writes; a run that was ended resumes
    from there. None are written if not given."""

    code: str = ""
    """Any text that changes with the code, such as the image's digest: a run resumes only from
    checkpoints of the same code."""

    train_split: str = "train"
    """Split to train on."""

    eval_split: str = "eval"
    """Split that drives the schedule."""

    wait: Annotated[float, Gt(0)] = WAIT
    """Seconds to wait for the other workers."""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as the command line and TF_CONFIG say.

    Args:
        argv: Arguments after the program's name; those of the process if None.

    Returns:
        Exit status.

    Raises:
        preemption.Preempted: SIGTERM arrived; the last finished epoch is in the checkpoints.
    """
    config = tyro.cli(
        WorkerConfig,
        prog="python -m trainer_module.worker",
        description=(__doc__ or "").split("\n\n")[0],
        args=argv,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    # As a container's first process it would not leave on SIGTERM of itself.
    with leaving_on_sigterm():
        try:
            train_config = read(config)
            place = locate(os.environ.get(TF_CONFIG, ""))
            facts = agreement.facts(train_config, _inputs(config), config.code)
            fit_arguments = {"config": train_config, "run": agreement.run_name(facts)}
            if place is None:
                return status_of(lambda: _fit(config, **fit_arguments))
            _log(str(place))
            party = meet(place, facts, wait=config.wait, log=_log)
        except ClusterError as error:
            return _fail(error, error.status)
        except (ValueError, OSError) as error:
            return _fail(error, FINAL)
    if train_config.loop.precision == "auto":
        _log("precision auto: workers must agree, on float32 or what the checkpoints say")
    # A process with threads must not be forked.
    return supervise(party, lambda: _fit_together(config, **fit_arguments))


def read(config: WorkerConfig) -> TrainConfig:
    """Returns the training configuration, if all that is to be read is there.

    Raises:
        ValueError: A folder, file or split is missing, or the configuration is none.
        OSError: The configuration cannot be read.
    """
    check_fields(config)
    require(
        (config.transform_graph / "transform_fn").is_dir(),
        "`transform_graph` must be the folder of a TransformGraph artifact",
        str(config.transform_graph),
        "Give the folder that holds transform_fn, from a run's Transform.",
    )
    splits = sorted(path.name.removeprefix("Split-") for path in config.examples.glob("Split-*"))
    require(
        bool(splits),
        "`examples` must be the folder of an Examples artifact",
        str(config.examples),
        "Give the folder that holds Split-train, from a run's ExampleGen.",
    )
    for name in ("train_split", "eval_split"):
        require(
            bool(_files(config.examples, getattr(config, name))),
            f"`{name}` must name a split of {config.examples} that has files",
            getattr(config, name),
            f"Its splits are {', '.join(splits)}.",
        )
    path = config.config
    require(path.is_file(), "`config` must be a file", str(path), _CONFIG_REMEDY)
    with path.open("rb") as file:
        content = file.read(_MAX_CONFIG + 1)
    require(
        len(content) <= _MAX_CONFIG,
        f"`config` must have at most {_MAX_CONFIG:,} bytes",
        str(path),
        _CONFIG_REMEDY,
    )
    try:
        return TrainConfig.from_json(content.decode())
    except UnicodeDecodeError as error:
        raise UserError("`config` must be UTF-8 text", str(path), _CONFIG_REMEDY) from error


def _fit_together(worker: WorkerConfig, **fit_arguments: Any) -> int:
    def fit() -> int:
        from trainer_module.distributed import strategies

        # Nothing may touch a device before the workers are connected.
        strategy, clock = strategies.connect()
        try:
            return _fit(worker, strategy=strategy, clock=clock, **fit_arguments)
        except Exception as error:
            if not strategies.is_lost_worker(error):
                raise
            # Above stands where in the graph, over a hundred lines.
            reason = str(error).rpartition("is aborted by: ")[2].partition("\n")[0]
            return _fail(f"another worker is gone: {reason}", EXIT_STATUS)

    with leaving_on_sigterm():
        return status_of(fit)


def _fit(worker: WorkerConfig, **fit_arguments: Any) -> int:
    environment.prepare()
    from trainer_module.run_fn import fit_and_export

    try:
        fit_and_export(
            transform_graph=str(worker.transform_graph),
            train_files=_files(worker.examples, worker.train_split),
            eval_files=_files(worker.examples, worker.eval_split),
            model_dir=str(worker.output / MODEL),
            run_dir=str(worker.output),
            checkpoints=str(worker.checkpoints) if worker.checkpoints else None,
            code=worker.code,
            **fit_arguments,
        )
    except (ValueError, OSError) as error:
        return _fail(error, FINAL)
    return 0


def _files(examples: Path, split: str) -> list[str]:
    return sorted(map(str, (examples / f"Split-{split}").glob("*.gz")))


def _inputs(config: WorkerConfig) -> dict[str, list[str]]:
    graph = config.transform_graph.rglob("*")
    return {
        "the training examples": _files(config.examples, config.train_split),
        "the evaluation examples": _files(config.examples, config.eval_split),
        "the transform graph": [str(path) for path in graph if path.is_file()],
    }


def _log(text: str) -> None:
    print(text, flush=True)


def _fail(error: object, status: int) -> int:
    text = f"error: {error}"
    for field in fields(WorkerConfig):
        text = text.replace(f"`{field.name}`", f"--{field.name.replace('_', '-')}")
    print(text, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
