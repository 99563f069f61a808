"""What TFX calls: to train, unpack, train, export; to tune, unpack and say how to try.

TFX reloads this module by its dotted name: it holds functions only.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from rich.console import Console

from trainer_module import checkpoint, history, optimizer, precision, warm_start
from trainer_module.config import ImageFeatures, TrainConfig, tuned
from trainer_module.data import Split, evaluation_dataset, read_split, rows, training_factory
from trainer_module.export import export
from trainer_module.loop import train
from trainer_module.models import registry
from trainer_module.progress import ProgressWriter

if TYPE_CHECKING:
    # A worker trains without TFX, whose import takes longer than all others together.
    from tfx.components.trainer.fn_args_utils import FnArgs
    from tfx.components.tuner.component import TunerFnResult

CONFIG_KEY = "train_config"
CHECKPOINTS_KEY = "checkpoints"
CODE_KEY = "code"
TRIALS_KEY = "trials"
_HASHED_AT_ONCE = 1024


def run_fn(fn_args: "FnArgs") -> None:
    """Train the model of `custom_config["train_config"]` and write it as a SavedModel.

    Args:
        fn_args: From TFX's Trainer. The model goes to `serving_model_dir`; the history and
            TensorBoard's events go to `model_run_dir`. If `custom_config["checkpoints"]` names a
            folder, a run that was ended there goes on, provided that config, code
            (`custom_config["code"]`, any text), base model and data are the same. Where there is a
            `base_model`, training starts from its weights.
    """
    fit_and_export(
        TrainConfig.from_json(fn_args.custom_config[CONFIG_KEY]),
        transform_graph=fn_args.transform_output,
        train_files=fn_args.train_files,
        eval_files=fn_args.eval_files,
        model_dir=fn_args.serving_model_dir,
        run_dir=fn_args.model_run_dir,
        checkpoints=fn_args.custom_config.get(CHECKPOINTS_KEY),
        code=fn_args.custom_config.get(CODE_KEY),
        base_model=fn_args.base_model,
    )


def fit_and_export(
    config: TrainConfig,
    *,
    transform_graph: str,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    model_dir: str,
    run_dir: str,
    checkpoints: str | None = None,
    code: str | None = None,
    base_model: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train a model and write it as a SavedModel; with several workers, the chief writes.

    Args:
        config: What to train and how.
        transform_graph: Folder of the preprocessing graph.
        train_files: Patterns of the files to train on.
        eval_files: Patterns of the files that steer the schedule.
        model_dir: Folder that receives the SavedModel.
        run_dir: Folder that receives the history and TensorBoard's events.
        checkpoints: Folder of the checkpoints of many runs; none are written if not given.
        code: Any text that changes with the code: a run goes on only with its own.
        base_model: Model to take the first weights from.
        strategy: Strategy to train by, if not the default one.
        clock: Seconds, monotonic; the same on all workers.

    Raises:
        ValueError: Config, data or base model are no good.
        schedule.NonFiniteError: Loss or metric is NaN or infinite and the schedule says raise.
        preemption.Preempted: SIGTERM arrived; the last finished epoch is in `checkpoints`.
    """
    chief = strategy is None or strategy.extended.should_checkpoint
    transform = tft.TFTransformOutput(transform_graph)
    training = _read(train_files, transform, config)
    validation = _read(eval_files, transform, config)
    if config.loop.deterministic:
        tf.config.experimental.enable_op_determinism()
    folder = _checkpoints(
        checkpoints, code, base_model, config, training, validation, claimed=chief
    )
    make_dataset = training_factory(training, config.features, config.loop.seed)

    def build() -> tuple[keras.Model, keras.optimizers.Optimizer]:
        return _build(config, training)

    chosen = precision.choose(
        config.loop.precision,
        build,
        lambda: make_dataset(config.loop.batch_size, 1),
        memory=folder / "precision" if folder else None,
    )
    keras.config.set_dtype_policy(chosen)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model, descent = build()
    if base_model:
        warm_start.restore(model, base_model)
    run = Path(run_dir)
    if chief:
        run.mkdir(parents=True, exist_ok=True)
    record = train(
        model,
        descent,
        make_dataset,
        evaluation_dataset(validation, config.loop.eval_batch_size),
        config.schedule,
        num_examples=len(training.y),
        batch_size=config.loop.batch_size,
        micro_batch=config.loop.micro_batch,
        steps_per_call=config.loop.steps_per_call,
        directory=folder,
        description={"precision": chosen},
        writers=[
            ProgressWriter(Console(), config.schedule.max_epochs),
            history.TensorBoardWriter(run / "tensorboard"),
        ],
        strategy=strategy,
        clock=clock,
    )
    if chief:
        history.write(record, run / history.FILE_NAME)
        export(model, transform, config, model_dir)


def tuner_fn(fn_args: "FnArgs") -> "TunerFnResult":
    """Search for hyperparameters, each trial a run of the loop.

    Args:
        fn_args: From TFX's Tuner. `custom_config` is that of `run_fn`, and "trials", how many to
            try; a search that was ended goes on from the folder "checkpoints".
    """
    from tfx.components.tuner.component import TunerFnResult

    from trainer_module.tuning import LoopTuner

    config = TrainConfig.from_json(fn_args.custom_config[CONFIG_KEY])
    trials = fn_args.custom_config[TRIALS_KEY]
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    training = _read(fn_args.train_files, transform, config)
    validation = _read(fn_args.eval_files, transform, config)
    if config.loop.deterministic:
        tf.config.experimental.enable_op_determinism()

    def trial(values: Mapping[str, Any]) -> float:
        tried = tuned(config, values)
        keras.backend.clear_session()
        record = train(
            *_build(tried, training),
            training_factory(training, tried.features, tried.loop.seed),
            evaluation_dataset(validation, tried.loop.eval_batch_size),
            tried.schedule,
            num_examples=len(training.y),
            batch_size=tried.loop.batch_size,
            micro_batch=tried.loop.micro_batch,
            steps_per_call=tried.loop.steps_per_call,
        )
        values_seen = [epoch.metrics[record.monitor] for epoch in record.epochs]
        return record.best.metrics[record.monitor] if record.best else values_seen[-1]

    folder = _checkpoints(
        fn_args.custom_config.get(CHECKPOINTS_KEY),
        fn_args.custom_config.get(CODE_KEY),
        fn_args.base_model,
        config,
        training,
        validation,
    )
    directory = str(folder or fn_args.working_dir)
    search = LoopTuner(config, len(training.y), trial, trials=trials, directory=directory)
    return TunerFnResult(tuner=search, fit_kwargs={"verbose": 0})


def _build(config: TrainConfig, training: Split) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    keras.utils.set_random_seed(config.loop.seed)
    model = registry.build(training.x.shape[1:], len(config.classes), config.network)
    return model, optimizer.build(config.optimization)


def _checkpoints(
    root: str | None,
    code: str | None,
    base_model: str | None,
    config: TrainConfig,
    *splits: Split,
    claimed: bool = True,
) -> Path | None:
    """The folder of this very run, found by content: TFX gives every execution new folders.

    Only one of several workers may claim it, which removes others.
    """
    if not root:
        return None
    digest = hashlib.sha256(config.to_json().encode())
    digest.update(str(code).encode())
    if base_model:
        digest.update(warm_start.digest(base_model))
    for split in splits:
        digest.update(np.ascontiguousarray(split.y).data)
        for start in range(0, len(split.x), _HASHED_AT_ONCE):
            digest.update(rows(split.x, slice(start, start + _HASHED_AT_ONCE)).data)
    name = digest.hexdigest()[:16]
    return checkpoint.claim(Path(root), name) if claimed else Path(root) / name


def _read(patterns: Sequence[str], transform: tft.TFTransformOutput, config: TrainConfig) -> Split:
    return read_split(
        [path for pattern in patterns for path in tf.io.gfile.glob(pattern)],
        transform,
        picture=isinstance(config.features, ImageFeatures),
        cache_mib=config.loop.cache_mib,
    )
