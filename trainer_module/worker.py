"""Train what the pipeline's Trainer trains, outside of TFX: alone, or as one of several workers.

`python -m trainer_module.worker --help` says how. TF_CONFIG, which Kubeflow's training operator
sets, says who the workers are. Every worker reads the same data and takes its share of each batch;
the chief alone writes.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from trainer_module import environment
from trainer_module.checks import require
from trainer_module.config import TrainConfig
from trainer_module.preemption import EXIT_STATUS, leaving_on_sigterm

if TYPE_CHECKING:
    import tensorflow as tf

DONE, ERROR, USAGE = 0, 1, 2
MODEL = "model"
TF_CONFIG = "TF_CONFIG"
_CHIEF, _WORKER = "chief", "worker"
_MAX_CONFIG = 1024**2
_SHOWN = 200


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know.

    Attributes:
        examples: Folder of an Examples artifact, with a folder Split-NAME of *.gz files for each
            split.
        transform_graph: Folder of a TransformGraph artifact.
        config: File of the training configuration, as `plateau compile` writes it.
        output: Folder that receives model/, history.jsonl and tensorboard/.
        checkpoints: Folder of checkpoints, which all workers see; a run that was ended goes on
            from there. None are written if not given.
        code: Any text that changes with the code, such as the image's digest: a run goes on only
            from checkpoints of the same code.
        train_split: Split to train on.
        eval_split: Split that steers the schedule.
    """

    examples: Path
    transform_graph: Path
    config: Path
    output: Path
    checkpoints: Path | None = None
    code: str = ""
    train_split: str = "train"
    eval_split: str = "eval"


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of several workers this process is.

    Attributes:
        kind: Kind of its task: chief or worker.
        index: Its number among the tasks of that kind.
        workers: How many there are, the chief included.
    """

    kind: str
    index: int
    workers: int

    def __str__(self) -> str:
        """As a person would say it."""
        return f"{self.kind} {self.index}, one of {self.workers} workers"


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line and TF_CONFIG say.

    Args:
        argv: Arguments after the program's name; those of the process if None.

    Returns:
        Exit status: 0 done, 1 error, 2 bad usage, 143 to be started again.

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
            trained = read(config)
            place = locate(os.environ.get(TF_CONFIG, ""))
        except (ValueError, OSError) as error:
            return _complain(error, USAGE)
        try:
            return _train(config, trained, place)
        except (ValueError, OSError) as error:
            return _complain(error, ERROR)


def read(config: WorkerConfig) -> TrainConfig:
    """The training configuration, when all that is to be read is there.

    Raises:
        ValueError: A folder, file or split is missing, or the configuration is none.
        OSError: The configuration cannot be read.
    """
    graph = config.transform_graph
    require(
        (graph / "transform_fn").is_dir(),
        "--transform-graph must be the folder of a TransformGraph artifact",
        str(graph),
        "Give the folder that holds transform_fn, from a run's Transform.",
    )
    splits = sorted(path.name[len("Split-") :] for path in config.examples.glob("Split-*"))
    require(
        bool(splits),
        "--examples must be the folder of an Examples artifact",
        str(config.examples),
        "Give the folder that holds Split-train, from a run's ExampleGen.",
    )
    for flag, split in (("train", config.train_split), ("eval", config.eval_split)):
        require(
            bool(_files(config.examples, split)),
            f"--{flag}-split must name a split of {config.examples} that has files",
            split,
            f"Splits there: {', '.join(splits)}.",
        )
    require(
        config.config.is_file(),
        "--config must be a file",
        str(config.config),
        "Give the .train_config.json that `plateau compile` writes.",
    )
    with config.config.open("rb") as file:
        content = file.read(_MAX_CONFIG + 1)
    require(
        len(content) <= _MAX_CONFIG,
        f"--config must have at most {_MAX_CONFIG:,} bytes",
        "more",
        "Give the .train_config.json that `plateau compile` writes.",
    )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--config must be UTF-8 text, got {config.config} ({error}). "
            "Give the .train_config.json that `plateau compile` writes."
        ) from None
    return TrainConfig.from_json(text)


def locate(text: str) -> Place | None:
    """Which of several workers TF_CONFIG makes this process; None if there is no other.

    Args:
        text: Value of TF_CONFIG; empty if it is not set.

    Raises:
        ValueError: Not JSON, not of TF_CONFIG's form, or a cluster with tasks that do not train.
    """
    try:
        given = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{TF_CONFIG} must be JSON, got {text[:_SHOWN]!r} ({error}). "
            "Leave it unset to train with one process."
        ) from None
    form = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    remedy = f"Its form is {form}."
    require(isinstance(given, dict), f"{TF_CONFIG} must be a JSON object", text, remedy)
    cluster = given.get("cluster") or {}
    require(
        isinstance(cluster, dict)
        and all(isinstance(hosts, list) and hosts for hosts in cluster.values()),
        f"{TF_CONFIG} must list the addresses of each kind of task",
        text,
        remedy,
    )
    others = sorted(set(cluster) - {_CHIEF, _WORKER})
    require(
        not others,
        f"{TF_CONFIG} may have tasks of the kinds {_CHIEF} and {_WORKER} only",
        ", ".join(others),
        "Take the others out of the job: each worker trains and evaluates.",
    )
    workers = sum(map(len, cluster.values()))
    if workers < 2:
        return None
    task = given.get("task")
    for kind, hosts in cluster.items():
        for index in range(len(hosts)):
            if isinstance(task, dict) and (task.get("type"), task.get("index")) == (kind, index):
                return Place(kind, index, workers)
    raise ValueError(
        f"{TF_CONFIG} must say which of its tasks this is, got {repr(task)[:_SHOWN]}. {remedy}"
    )


def agreed(config: TrainConfig) -> TrainConfig:
    """A config in which nothing is left to what a worker measures on its own machine."""
    if config.loop.precision != "auto":
        return config
    return dataclasses.replace(config, loop=dataclasses.replace(config.loop, precision="float32"))


def _train(config: WorkerConfig, trained: TrainConfig, place: Place | None) -> int:
    environment.prepare()
    if place is None:
        _fit(config, trained)
        return DONE
    from tensorflow import errors

    try:
        _fit_together(config, trained, place)
    # What a collective operation raises when one of the others has left, and what a worker is told
    # that comes back before the others have noticed.
    except (
        errors.AbortedError,
        errors.CancelledError,
        errors.DeadlineExceededError,
        errors.UnavailableError,
    ) as error:
        print(f"another worker is gone: {error}", file=sys.stderr)
        return EXIT_STATUS
    return DONE


def _fit_together(config: WorkerConfig, trained: TrainConfig, place: Place) -> None:
    import tensorflow as tf

    # Nothing may touch a device before the workers have found each other.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    print(place, flush=True)
    if agreed(trained) != trained:
        print("precision float32: auto tries each machine by itself, and workers must agree")
    _fit(config, agreed(trained), strategy=strategy, clock=_clock_of_the_chief(strategy))


def _fit(config: WorkerConfig, trained: TrainConfig, **distribution: Any) -> None:
    from trainer_module.entry import fit_and_export

    fit_and_export(
        trained,
        transform_graph=str(config.transform_graph),
        train_files=_files(config.examples, config.train_split),
        eval_files=_files(config.examples, config.eval_split),
        model_dir=str(config.output / MODEL),
        run_dir=str(config.output),
        checkpoints=str(config.checkpoints) if config.checkpoints else None,
        code=config.code,
        **distribution,
    )


def _files(examples: Path, split: str) -> list[str]:
    return sorted(map(str, (examples / f"Split-{split}").glob("*.gz")))


def _clock_of_the_chief(strategy: "tf.distribute.Strategy") -> Callable[[], float]:
    """One clock for all workers, so that a time budget ends after the same epoch for each."""
    import tensorflow as tf

    first = strategy.extended.should_checkpoint

    def seconds(context: Any) -> tf.Tensor:
        mine = first and context.replica_id_in_sync_group == 0
        return tf.constant(time.monotonic() if mine else 0.0, tf.float64)

    def clock() -> float:
        values = strategy.experimental_distribute_values_from_function(seconds)
        return float(strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None))

    return clock


def _complain(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
