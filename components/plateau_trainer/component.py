"""PlateauTrainer: TFX's Trainer with a plateau-aware schedule and the record of what it did."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tfx import types
from tfx.components.util import udf_utils
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.proto import trainer_pb2
from tfx.types import component_spec, standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.utils import json_utils, proto_utils

from components import notebook
from components.artifacts import TrainingHistory
from components.plateau_trainer import executor
from components.plateau_trainer.parameters import without_schedule
from trainer_module.config import TrainConfig
from trainer_module.schedule.parameters import (
    CHECKPOINTS_KEY,
    CODE_KEY,
    TRAIN_CONFIG_KEY,
    parameter_types,
    parameters,
)
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.util.checks import require

_INPUTS = (
    specs.EXAMPLES_KEY,
    specs.TRANSFORM_GRAPH_KEY,
    specs.SCHEMA_KEY,
    specs.BASE_MODEL_KEY,
    specs.HYPERPARAMETERS_KEY,
)


class PlateauTrainerSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """The Trainer's inputs and outputs, every field of the schedule, and the history."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        **{
            name: component_spec.ExecutionParameter(type=str, optional=True)
            for name in executor.TEXTS
        },
        specs.TRAIN_ARGS_KEY: component_spec.ExecutionParameter(type=str),
        specs.EVAL_ARGS_KEY: component_spec.ExecutionParameter(type=str),
        **{
            name: component_spec.ExecutionParameter(type=kind, optional=optional)
            for name, (kind, optional) in parameter_types().items()
        },
    }
    INPUTS: ClassVar[dict[str, Any]] = {name: specs.TrainerSpec.INPUTS[name] for name in _INPUTS}
    OUTPUTS: ClassVar[dict[str, Any]] = {
        **specs.TrainerSpec.OUTPUTS,
        executor.TRAINING_HISTORY_KEY: component_spec.ChannelParameter(type=TrainingHistory),
    }


class PlateauTrainer(base_component.BaseComponent):  # type: ignore[misc]
    """Trains until its schedule says stop.

    At each plateau of the validation metric it decays the learning rate, grows the batch, or both
    (`trainer_module.schedule.schedule`). It runs a `run_fn` of the user's own, as TFX's Trainer
    does, that calls `train(..., **trainer_arguments(fn_args))` in place of `model.fit`; or, from a
    `TrainConfig`, that of Plateau. Outputs:

    *   model: SavedModel that `run_fn` wrote;
    *   model_run: TensorBoard events, `history.jsonl`;
    *   training_history: `components.artifacts.TrainingHistory`, every epoch and every decision
        with its reason, and a summary as custom properties in ML Metadata.
    """

    SPEC_CLASS = PlateauTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel | None = None,
        config: TrainConfig | None = None,
        *,
        schedule: ScheduleConfig | None = None,
        module_file: str | None = None,
        run_fn: str | None = None,
        schema: types.BaseChannel | None = None,
        base_model: types.BaseChannel | None = None,
        hyperparameters: types.BaseChannel | None = None,
        train_args: trainer_pb2.TrainArgs | None = None,
        eval_args: trainer_pb2.EvalArgs | None = None,
        custom_config: Mapping[str, Any] | None = None,
        runtime: Mapping[str, data_types.RuntimeParameter] | None = None,
        code: str | None = None,
        checkpoints: str | None = None,
    ) -> None:
        """Constructs the component.

        Args:
            examples: Examples, raw or transformed.
            transform_graph: TransformGraph; with `config`, one whose outputs are those of
                `trainer_module.preprocessing.preprocessing_fn`.
            config: The training run of `trainer_module.run_fn.run_fn`, with its schedule.
            schedule: The schedule of a `run_fn` of one's own. Every field (and of its `plateau`)
                becomes an execution property of its own, visible in ML Metadata.
            module_file: Python file with a function `run_fn`, as for TFX's Trainer.
            run_fn: Dotted path of such a function. One of `config`, `module_file` and `run_fn` must
                be given.
            schema: Schema of the examples.
            base_model: Model to start from instead of random weights; with `config`, of the same
                network. An empty channel, as before the first model is blessed, is no error.
            hyperparameters: Output of TFX's Tuner. With `config`, its learning_rate, batch_size,
                patience and width_multiplier, or some of them, take the place of the config's;
                otherwise `run_fn` must read them.
            train_args: Splits to train on, "train" if none. The schedule says how long, so
                `num_steps` is refused.
            eval_args: Splits that steer the schedule, "eval" if none.
            custom_config: What else `run_fn` finds in `fn_args.custom_config`.
            runtime: Fields of the schedule, by name, whose values a run of the compiled pipeline
                gives.
            code: Any text that changes with the training code, so that the cache notices;
                `module_file` needs none.
            checkpoints: Folder from which a run that was ended is resumed, shared by all
                executions.

        Raises:
            UserError: None or several of `config`, `module_file` and `run_fn`, an argument that
                would have no effect, or a field of `runtime` that the schedule does not have.
        """
        sources = {"config": config, "module_file": module_file, "run_fn": run_fn}
        require(
            sum(value is not None for value in sources.values()) == 1,
            "exactly one of `config`, `module_file` and `run_fn` must be given",
            [name for name, value in sources.items() if value is not None],
            "Pass the file of your run_fn as `module_file`.",
        )
        if config is not None:
            require(
                transform_graph is not None,
                "`transform_graph` must be given with `config`",
                None,
                'Pass transform.outputs["transform_graph"].',
            )
            require(
                schedule is None and custom_config is None,
                "`schedule` and `custom_config` must be left out with `config`, which has both",
                {"schedule": schedule, "custom_config": custom_config},
                "Set config.schedule.",
            )
            schedule = config.schedule
        taken = sorted(set(custom_config or {}) & set(executor.RESERVED))
        require(
            not taken,
            f"`custom_config` must leave {', '.join(executor.RESERVED)} to the component",
            taken,
            "Pass them as arguments of PlateauTrainer.",
        )
        values: dict[str, Any] = parameters(schedule or ScheduleConfig())
        known = {name: kind for name, (kind, _) in parameter_types().items()}
        for name, parameter in (runtime or {}).items():
            require(
                known.get(name) is parameter.ptype,
                "`runtime` must name fields of the schedule, each with its type",
                f"{name}: {parameter.ptype.__name__}",
                f"The fields are {', '.join(f'{n}: {k.__name__}' for n, k in known.items())}.",
            )
            values[name] = parameter
        arguments: dict[str, Any] = {
            specs.EXAMPLES_KEY: examples,
            specs.TRANSFORM_GRAPH_KEY: transform_graph,
            specs.SCHEMA_KEY: schema,
            specs.BASE_MODEL_KEY: base_model,
            specs.HYPERPARAMETERS_KEY: hyperparameters,
            specs.MODULE_FILE_KEY: module_file,
            specs.RUN_FN_KEY: run_fn,
            specs.CUSTOM_CONFIG_KEY: (
                None if custom_config is None else json_utils.dumps(dict(custom_config))
            ),
            TRAIN_CONFIG_KEY: None if config is None else without_schedule(config),
            CODE_KEY: code,
            CHECKPOINTS_KEY: checkpoints,
            specs.TRAIN_ARGS_KEY: _json(train_args or trainer_pb2.TrainArgs()),
            specs.EVAL_ARGS_KEY: _json(eval_args or trainer_pb2.EvalArgs()),
            specs.MODEL_KEY: types.Channel(type=standard_artifacts.Model),
            specs.MODEL_RUN_KEY: types.Channel(type=standard_artifacts.ModelRun),
            executor.TRAINING_HISTORY_KEY: types.Channel(type=TrainingHistory),
            **values,
        }
        super().__init__(spec=PlateauTrainerSpec(**arguments))
        if module_file and udf_utils.should_package_user_modules():
            udf_utils.add_user_module_dependency(
                self,
                specs.MODULE_FILE_KEY,
                specs.MODULE_PATH_KEY,
            )


def _json(message: Any) -> str:
    require(
        not message.num_steps,
        "`train_args` and `eval_args` must have no num_steps: an epoch is a pass over the data",
        message.num_steps,
        "Leave it out, and set max_epochs in the schedule.",
    )
    return str(proto_utils.proto_to_json(message))


notebook.register()
