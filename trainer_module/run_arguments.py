"""Arguments of `train` inside a `run_fn` of TFX's Trainer or PlateauTrainer."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from trainer_module import history
from trainer_module.schedule import parameters
from trainer_module.schedule.parameters import CHECKPOINTS_KEY, CODE_KEY, SCHEDULE_KEY
from trainer_module.training import checkpoint
from trainer_module.training.callbacks import HistoryFile, TensorBoard
from trainer_module.util.checks import require

_CHUNK = 2**20


def trainer_arguments(fn_args: Any) -> dict[str, Any]:
    """Returns what `train` needs of TFX: schedule, checkpoints, history file and TensorBoard.

    In a `run_fn`, in place of `model.fit`:

        train(model, model.optimizer, make_dataset, eval_dataset, batch_size=20,
              **trainer_arguments(fn_args))

    Args:
        fn_args: From PlateauTrainer; or from TFX's Trainer, whose `custom_config` may hold
            "schedule", the fields of ScheduleConfig and PlateauConfig by name, "checkpoints", a
            folder in which a run that was killed is resumed, and "code", any text that changes with
            the code, so that changed code starts a new run.

    Returns:
        `config`, `directory`, `description`, `callbacks` and `verbose`. History and TensorBoard's
        events go to `fn_args.model_run_dir`.

    Raises:
        UserError: The schedule has an unknown field or a value out of range; a number of steps is
            given, which the schedule would ignore; or PlateauTrainer has hyperparameters or a base
            model that `run_fn` has not read.
    """
    custom = fn_args.custom_config or {}
    fields = custom.get(SCHEDULE_KEY) or {}
    known = parameters.parameter_types()
    unknown = sorted(fields.keys() - known)
    require(
        not unknown,
        f"the schedule in custom_config must have fields among {', '.join(known)}",
        unknown,
        "Correct or remove the others.",
    )
    for name in ("train", "eval"):
        steps = getattr(fn_args, f"{name}_steps")
        require(
            steps is None,
            f"{name}_args must have no num_steps, since an epoch is a pass over the data",
            steps,
            "Leave it out, and set `max_epochs` in the schedule.",
        )
    unread = fn_args.unread() if hasattr(fn_args, "unread") else []
    require(
        not unread,
        "run_fn must use the hyperparameters and the base model that the Trainer is given",
        f"{', '.join(unread)} that it has not read",
        "Read them from fn_args before training, or do not pass them to the component.",
    )
    folder = custom.get(CHECKPOINTS_KEY)
    run_dir = Path(fn_args.model_run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    return {
        "config": parameters.schedule(fields),
        "directory": checkpoint.claim(Path(folder), _run_name(fn_args)) if folder else None,
        "description": {"code": custom.get(CODE_KEY)},
        "callbacks": [
            TensorBoard(run_dir / "tensorboard"),
            HistoryFile(run_dir / history.FILE_NAME),
        ],
        "verbose": True,
    }


def _run_name(fn_args: Any) -> str:
    """Returns a name by content for the checkpoints of a run: TFX gives executions new folders."""
    custom = {k: v for k, v in (fn_args.custom_config or {}).items() if k != CHECKPOINTS_KEY}
    # Not as attributes: PlateauTrainer counts those as read by run_fn.
    unread = vars(fn_args)
    digest = hashlib.sha256(
        json.dumps([custom, unread["hyperparameters"]], sort_keys=True).encode()
    )
    patterns = (*fn_args.train_files, *fn_args.eval_files)
    folders = filter(None, (fn_args.transform_output, unread["base_model"]))
    for path in (
        *(path for pattern in patterns for path in sorted(tf.io.gfile.glob(pattern))),
        *(path for folder in folders for path in files_below(folder)),
    ):
        digest.update(_digest(path))
    return digest.hexdigest()[:16]


def files_below(folder: str) -> Iterator[str]:
    """Yields the files of a folder and its subfolders, sorted."""
    for root, _, names in sorted(tf.io.gfile.walk(folder)):
        yield from (f"{root}/{name}" for name in sorted(names))


def _digest(path: str) -> bytes:
    sha = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.digest()
