"""`run_fn` of TFX's Trainer and `tuner_fn` of its Tuner.

TFX reloads this module by its dotted name: it holds functions only.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from trainer_module import history
from trainer_module.config import ImageFeatures, Precision, TableFeatures, TrainConfig, tuned
from trainer_module.distributed import agreement, cluster, rendezvous, strategies, supervision
from trainer_module.models import registry
from trainer_module.run_arguments import files_below
from trainer_module.schedule.parameters import CHECKPOINTS_KEY, CODE_KEY, TRAIN_CONFIG_KEY
from trainer_module.serving.signatures import export
from trainer_module.target import Target
from trainer_module.training import checkpoint, optimizer, precision, warm_start
from trainer_module.training.callbacks import TensorBoard
from trainer_module.training.data import (
    Split,
    evaluation_dataset,
    read_split,
    rows,
    training_factory,
)
from trainer_module.training.loop import train
from trainer_module.util.preemption import Preempted, leaving_on_sigterm

if TYPE_CHECKING:
    # A worker trains without TFX, whose import takes longer than all others together.
    from tfx.components.trainer.fn_args_utils import FnArgs
    from tfx.components.tuner.component import TunerFnResult

TRIALS_KEY = "trials"
_HASHED_AT_ONCE = 1024


def run_fn(fn_args: "FnArgs") -> None:
    """Trains the model of `custom_config["train_config"]` and exports it as a SavedModel.

    Args:
        fn_args: From TFX's Trainer. The model goes to `serving_model_dir`; the history and
            TensorBoard's events go to `model_run_dir`. From the folder
            `custom_config["checkpoints"]`, if given, a run is resumed that has the same config,
            code (`custom_config["code"]`, any text), base model and data. Training starts from the
            weights of `base_model`, if given. All GPUs of the machine are used, and the workers of
            TF_CONFIG, each of which must call this.
    """
    config = TrainConfig.from_json(fn_args.custom_config[TRAIN_CONFIG_KEY])
    code = fn_args.custom_config.get(CODE_KEY)
    fit = functools.partial(
        fit_and_export,
        config,
        transform_graph=fn_args.transform_output,
        train_files=fn_args.train_files,
        eval_files=fn_args.eval_files,
        model_dir=fn_args.serving_model_dir,
        run_dir=fn_args.model_run_dir,
        checkpoints=fn_args.custom_config.get(CHECKPOINTS_KEY),
        code=code,
        base_model=fn_args.base_model,
    )
    place = cluster.locate(os.environ.get(cluster.TF_CONFIG, ""))
    if place is None:
        fit()
        return
    inputs = {
        "the training examples": _paths(fn_args.train_files),
        "the evaluation examples": _paths(fn_args.eval_files),
        "the transform graph": list(files_below(fn_args.transform_output)),
        "the base model": list(files_below(fn_args.base_model)) if fn_args.base_model else [],
    }
    facts = agreement.facts(config, inputs, code, lambda path: tf.io.gfile.GFile(path, "rb"))
    print(place, flush=True)
    with leaving_on_sigterm():
        party = rendezvous.meet(
            place, facts, wait=rendezvous.WAIT, log=functools.partial(print, flush=True)
        )
    with supervision.guarded(party):
        strategy, clock = strategies.connect()
        try:
            fit(strategy=strategy, clock=clock)
        except Exception as error:
            if strategies.is_lost_worker(error):
                raise Preempted from error
            raise


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
    run: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Trains a model and exports it as a SavedModel; with several workers, the chief exports.

    Args:
        config: What to train and how.
        transform_graph: Folder of the preprocessing graph.
        train_files: Patterns of the files to train on.
        eval_files: Patterns of the files that steer the schedule.
        model_dir: Folder that receives the SavedModel.
        run_dir: Folder that receives the history and TensorBoard's events.
        checkpoints: Folder of the checkpoints of many runs; none are written if not given.
        code: Any text that changes with the code: a run is resumed only with its own.
        base_model: Model to take the first weights from.
        run: Name of this run's folder in `checkpoints`; a digest of all it depends on if not given.
        strategy: Strategy to train by; that of all GPUs of this machine if not given.
        clock: Seconds, monotonic; the same on all workers.

    Raises:
        ValueError: Config, data or base model are invalid.
        schedule.NonFiniteError: Loss or metric is NaN or infinite and the schedule says raise.
        preemption.Preempted: SIGTERM arrived; the last finished epoch is in `checkpoints`.
    """
    strategy = strategy or strategies.local()
    chief = strategy is None or strategy.extended.should_checkpoint
    several = strategy is not None and strategies.has_several_workers(strategy)
    transform = tft.TFTransformOutput(transform_graph)
    training = _read(train_files, transform, config)
    validation = _read(eval_files, transform, config)
    if config.loop.deterministic:
        tf.config.experimental.enable_op_determinism()
    folder = None
    # Only one of several workers may claim it, which removes others.
    if checkpoints and chief:
        name = run or _run_name(code, base_model, config, training, validation)
        folder = checkpoint.claim(Path(checkpoints), name)
    make_dataset = training_factory(training, config.features, config.loop.seed)

    def build() -> tuple[keras.Model, keras.optimizers.Optimizer]:
        return _build(config, training)

    target = _target(config, training)
    chosen = precision.choose(
        config.loop.precision,
        build,
        lambda: make_dataset(config.loop.batch_size, 1),
        file=folder / "precision" if folder else None,
        # Trials on each machine by itself could come out differently.
        has_bfloat16=(lambda: False) if several else None,
    )
    if several:
        chosen = cast(Precision, strategies.from_chief(chosen.encode(), strategy).decode())
    keras.config.set_dtype_policy(chosen)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model, descent = build()
    if base_model:
        warm_start.restore(model, base_model)
    record_dir = Path(run_dir)
    if chief:
        record_dir.mkdir(parents=True, exist_ok=True)
    record = train(
        model,
        descent,
        make_dataset,
        evaluation_dataset(validation, config.loop.eval_batch_size),
        config.schedule,
        num_examples=len(training.y),
        batch_size=config.loop.batch_size,
        micro_batch=config.loop.micro_batch,
        find_learning_rate=config.optimization.learning_rate == "auto",
        steps_per_call=config.loop.steps_per_call,
        **_objective(target),
        class_weight=_class_weight(config, training),
        directory=folder,
        description={
            "precision": chosen,
            **({"target": dataclasses.asdict(target)} if target else {}),
        },
        callbacks=[TensorBoard(record_dir / "tensorboard")],
        verbose=True,
        strategy=strategy,
        clock=clock,
    )
    if chief:
        history.write(record, record_dir / history.FILE_NAME)
        export(model, transform, config, model_dir, target)


def tuner_fn(fn_args: "FnArgs") -> "TunerFnResult":
    """Returns a search for hyperparameters, each trial a run of the loop.

    Args:
        fn_args: From TFX's Tuner. `custom_config` is that of `run_fn`, and "trials", how many to
            try. A search is resumed from the folder "checkpoints", if given.
    """
    from tfx.components.tuner.component import TunerFnResult

    from trainer_module.training.tuner import LoopTuner

    config = TrainConfig.from_json(fn_args.custom_config[TRAIN_CONFIG_KEY])
    trials = fn_args.custom_config[TRIALS_KEY]
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    training = _read(fn_args.train_files, transform, config)
    validation = _read(fn_args.eval_files, transform, config)
    if config.loop.deterministic:
        tf.config.experimental.enable_op_determinism()

    def trial(values: Mapping[str, Any]) -> float:
        trial_config = tuned(config, values)
        keras.backend.clear_session()
        record = train(
            *_build(trial_config, training),
            training_factory(training, trial_config.features, trial_config.loop.seed),
            evaluation_dataset(validation, trial_config.loop.eval_batch_size),
            trial_config.schedule,
            num_examples=len(training.y),
            batch_size=trial_config.loop.batch_size,
            micro_batch=trial_config.loop.micro_batch,
            steps_per_call=trial_config.loop.steps_per_call,
            **_objective(_target(config, training)),
            class_weight=_class_weight(config, training),
            verbose=False,
        )
        return (record.best or record.epochs[-1]).metrics[record.monitor]

    directory = fn_args.working_dir
    if checkpoints := fn_args.custom_config.get(CHECKPOINTS_KEY):
        code = fn_args.custom_config.get(CODE_KEY)
        name = _run_name(code, fn_args.base_model, config, training, validation)
        directory = str(checkpoint.claim(Path(checkpoints), name))
    search = LoopTuner(config, len(training.y), trial, trials=trials, directory=directory)
    return TunerFnResult(tuner=search, fit_kwargs={"verbose": 0})


def _build(config: TrainConfig, training: Split) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    keras.utils.set_random_seed(config.loop.seed)
    # A regression has one output.
    outputs = len(config.classes) or 1
    model = registry.build(training.x.shape[1:], outputs, config.network)
    return model, optimizer.build(config.optimization)


def _class_weight(config: TrainConfig, training: Split) -> dict[int, float] | None:
    """Returns the weight of each class's examples, whose mean over the examples is 1.

    It is that of scikit-learn's `class_weight="balanced"`: examples / (classes x those of the
    class).
    """
    if config.loop.class_weight == "none":
        return None
    counts = np.bincount(training.y, minlength=len(config.classes))
    known = counts > 0
    weights = len(training.y) / (known.sum() * np.maximum(counts, 1))
    return {index: float(weight) for index, weight in enumerate(weights)}


def _target(config: TrainConfig, training: Split) -> Target | None:
    """Returns the scale of the label of a regression; None for classes."""
    features = config.features
    if not isinstance(features, TableFeatures) or features.task != "regression":
        return None
    return Target.of(training.y, is_log=features.label_scale == "log")


def _objective(target: Target | None) -> dict[str, Any]:
    """Returns loss and metrics for `train`, whose defaults are those of classes."""
    if target is None:
        return {}
    return {"loss": target.squared_error, "metrics": {"mae": target.absolute_error}}


def _run_name(code: str | None, base_model: str | None, config: TrainConfig, *splits: Split) -> str:
    """Returns a name by content for the folder of a run: TFX gives executions new folders."""
    digest = hashlib.sha256(config.to_json().encode())
    digest.update(str(code).encode())
    if base_model:
        digest.update(warm_start.digest(base_model))
    for split in splits:
        digest.update(np.ascontiguousarray(split.y).data)
        for start in range(0, len(split.x), _HASHED_AT_ONCE):
            digest.update(rows(split.x, slice(start, start + _HASHED_AT_ONCE)).data)
    return digest.hexdigest()[:16]


def _read(patterns: Sequence[str], transform: tft.TFTransformOutput, config: TrainConfig) -> Split:
    return read_split(
        _paths(patterns),
        transform,
        is_image=isinstance(config.features, ImageFeatures),
        cache_mib=config.loop.cache_mib,
    )


def _paths(patterns: Sequence[str]) -> list[str]:
    return [path for pattern in patterns for path in tf.io.gfile.glob(pattern)]
