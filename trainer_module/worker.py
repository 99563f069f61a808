"""Train what the pipeline's Trainer trains, outside of TFX: alone, or as one of several workers.

`python -m trainer_module.worker --help` says how. TF_CONFIG, which Kubeflow's training operator
sets, says who the workers are. Every worker reads the same data and takes its share of each batch;
the chief alone writes.

Exit status: 0 done; 143 if starting all workers again may help, as after SIGTERM, the loss of a
worker, or one that never came; 2 if it would not.
"""

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from trainer_module.config import TrainConfig
from trainer_module.distributed import agreement
from trainer_module.distributed.cluster import TF_CONFIG, locate
from trainer_module.distributed.rendezvous import (
    WAIT,
    AbsentError,
    DismissedError,
    dismissing,
    meet,
)
from trainer_module.distributed.supervision import status_of, supervise
from trainer_module.util import environment
from trainer_module.util.checks import require
from trainer_module.util.preemption import EXIT_STATUS, FINAL, leaving_on_sigterm

DONE = 0
MODEL = "model"
_MAX_CONFIG = 1024**2


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know.

    Attributes:
        examples: Folder of an Examples artifact, with a folder Split-NAME of *.gz files for each
            split.
        transform_graph: Folder of a TransformGraph artifact.
        config: File of the training configuration, as `plateau compile` writes it.
        output: Folder that receives model/, history.jsonl and tensorboard/.
        checkpoints: Folder of checkpoints, which only the chief reads and writes; a run that was
            ended resumes from there. None are written if not given.
        code: Any text that changes with the code, such as the image's digest: a run goes on only
            from checkpoints of the same code.
        train_split: Split to train on.
        eval_split: Split that steers the schedule.
        wait: Seconds to wait for the other workers.
    """

    examples: Path
    transform_graph: Path
    config: Path
    output: Path
    checkpoints: Path | None = None
    code: str = ""
    train_split: str = "train"
    eval_split: str = "eval"
    wait: float = WAIT


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line and TF_CONFIG say.

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
            trained = read(config)
            place = locate(os.environ.get(TF_CONFIG, ""))
            if place:
                _say(str(place))
            facts = agreement.facts(trained, _inputs(config), config.code)
            run = agreement.run_name(facts)
            if place is None:
                return _status(lambda: _fit(config, trained, run=run))
            mark = config.checkpoints and config.checkpoints / run / agreement.TRAINED
            if place.is_chief and mark and mark.exists():
                _say("the training is over: the chief exports the model alone")
                with dismissing(place):
                    return _status(lambda: _fit(config, trained, run=run))
            party = meet(place, facts, wait=config.wait, say=_say)
            if trained.loop.precision == "auto":
                _say("precision auto: workers must agree, on float32 or what the checkpoints say")
        except DismissedError as error:
            _say(str(error))
            return DONE
        except AbsentError as error:
            return _complain(error, EXIT_STATUS)
        except (ValueError, OSError) as error:
            return _complain(error, FINAL)
    # A process with threads must not be forked.
    return supervise(party, lambda done: _fit_together(config, trained, run, done))


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
    require(
        0 < config.wait < math.inf,
        "--wait must be a finite number of seconds above 0",
        config.wait,
        "Try --wait 600.",
    )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--config must be UTF-8 text, got {config.config} ({error}). "
            "Give the .train_config.json that `plateau compile` writes."
        ) from None
    return TrainConfig.from_json(text)


def _fit_together(
    config: WorkerConfig, trained: TrainConfig, run: str, done: Callable[[], object]
) -> int:
    def fit() -> None:
        from trainer_module.distributed import strategies

        # Nothing may touch a device before the workers are connected.
        strategy, clock = strategies.connect()
        _fit(config, trained, run=run, strategy=strategy, clock=clock, after_training=done)

    with leaving_on_sigterm():
        return _status(fit)


def _fit(config: WorkerConfig, trained: TrainConfig, **distribution: Any) -> None:
    environment.prepare()
    from trainer_module.run_fn import fit_and_export

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


def _inputs(config: WorkerConfig) -> dict[str, list[str]]:
    graph = config.transform_graph.rglob("*")
    return {
        "the training examples": _files(config.examples, config.train_split),
        "the evaluation examples": _files(config.examples, config.eval_split),
        "the transform graph": [str(path) for path in graph if path.is_file()],
    }


def _status(fit: Callable[[], None]) -> int:
    def run() -> int:
        try:
            fit()
        except (ValueError, OSError) as error:
            return _complain(error, FINAL)
        except Exception as error:
            from trainer_module.distributed import strategies

            if not strategies.is_loss(error):
                raise
            # Above stands where in the graph, over a hundred lines.
            reason = str(error).rpartition("is aborted by: ")[2].partition("\n")[0]
            return _complain(f"another worker is gone: {reason}", EXIT_STATUS)
        return DONE

    return status_of(run)


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(error: object, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
