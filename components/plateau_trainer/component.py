"""PlateauTrainer: TFX's Trainer with a plateau-aware schedule and the record of what it did."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.proto import trainer_pb2
from tfx.types import component_spec, standard_artifacts, standard_component_specs
from tfx.utils import proto_utils

from components import notebook
from components.artifacts import TrainingHistory
from components.plateau_trainer import executor, logic
from trainer_module.config import TrainConfig

_TRAINER = standard_component_specs.TrainerSpec
_INPUTS = (
    standard_component_specs.EXAMPLES_KEY,
    standard_component_specs.TRANSFORM_GRAPH_KEY,
    standard_component_specs.SCHEMA_KEY,
    standard_component_specs.BASE_MODEL_KEY,
    standard_component_specs.HYPERPARAMETERS_KEY,
)


class PlateauTrainerSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """The Trainer's inputs and outputs, every field of the schedule, and the history."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.TRAIN_CONFIG_KEY: component_spec.ExecutionParameter(type=str),
        executor.CODE_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.CHECKPOINTS_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        standard_component_specs.TRAIN_ARGS_KEY: component_spec.ExecutionParameter(type=str),
        standard_component_specs.EVAL_ARGS_KEY: component_spec.ExecutionParameter(type=str),
        **{
            name: component_spec.ExecutionParameter(type=kind, optional=optional)
            for name, (kind, optional) in logic.parameter_types().items()
        },
    }
    INPUTS: ClassVar[dict[str, Any]] = {name: _TRAINER.INPUTS[name] for name in _INPUTS}
    OUTPUTS: ClassVar[dict[str, Any]] = {
        **_TRAINER.OUTPUTS,
        executor.TRAINING_HISTORY_KEY: component_spec.ChannelParameter(type=TrainingHistory),
    }


class PlateauTrainer(base_component.BaseComponent):  # type: ignore[misc]
    """Trains until its schedule says stop.

    At each stall of the validation metric it decays the learning rate, grows the batch, or both
    (`trainer_module.schedule`). Outputs:

    *   model: SavedModel with the weights of the best epoch (`trainer_module.export`);
    *   model_run: TensorBoard events, `history.jsonl`;
    *   training_history: `components.artifacts.TrainingHistory`, every epoch and every decision
        with its reason, and a summary as custom properties in ML Metadata.
    """

    SPEC_CLASS = PlateauTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        config: TrainConfig,
        *,
        schema: types.BaseChannel | None = None,
        base_model: types.BaseChannel | None = None,
        hyperparameters: types.BaseChannel | None = None,
        runtime: Mapping[str, data_types.RuntimeParameter] | None = None,
        train_split: str = "train",
        eval_split: str = "eval",
        code: str | None = None,
        checkpoints: str | None = None,
    ) -> None:
        """Construct the component.

        Args:
            examples: Raw Examples.
            transform_graph: TransformGraph whose outputs are those of
                `trainer_module.preprocessing.preprocessing_fn`.
            config: The training run. Every field of `config.schedule` (and of its `plateau`)
                becomes an execution property of its own, visible in ML Metadata.
            schema: Schema of the examples.
            base_model: Model to start from instead of random weights; the same network. An empty
                channel, as before the first model is blessed, is no error.
            hyperparameters: Output of TFX's Tuner: its learning_rate, batch_size, patience and
                width_multiplier, or some of them, take the place of the config's.
            runtime: Fields of the schedule, by name, whose values a run of the compiled pipeline
                gives.
            train_split: Split to train on.
            eval_split: Split that steers the schedule.
            code: Any text that changes with the training code, so that the cache notices.
            checkpoints: Folder from which a run that was ended goes on, shared by all executions.

        Raises:
            ValueError: `runtime` names no field of the schedule, or one of another type.
        """
        fixed: dict[str, Any] = logic.parameters(config.schedule)
        for name, parameter in (runtime or {}).items():
            kind, _ = logic.parameter_types().get(name, (None, False))
            if parameter.ptype is not kind:
                raise ValueError(
                    f"a runtime parameter must name a field of the schedule and have its type, "
                    f"got {name!r} of type {parameter.ptype.__name__}. The fields are "
                    f"{', '.join(f'{n}: {k.__name__}' for n, (k, _) in _fields())}."
                )
            fixed[name] = parameter
        arguments: dict[str, Any] = {
            standard_component_specs.EXAMPLES_KEY: examples,
            standard_component_specs.TRANSFORM_GRAPH_KEY: transform_graph,
            standard_component_specs.SCHEMA_KEY: schema,
            standard_component_specs.BASE_MODEL_KEY: base_model,
            standard_component_specs.HYPERPARAMETERS_KEY: hyperparameters,
            executor.TRAIN_CONFIG_KEY: logic.without_schedule(config),
            executor.CODE_KEY: code,
            executor.CHECKPOINTS_KEY: checkpoints,
            standard_component_specs.TRAIN_ARGS_KEY: _json(
                trainer_pb2.TrainArgs(splits=[train_split])
            ),
            standard_component_specs.EVAL_ARGS_KEY: _json(
                trainer_pb2.EvalArgs(splits=[eval_split])
            ),
            standard_component_specs.MODEL_KEY: types.Channel(type=standard_artifacts.Model),
            standard_component_specs.MODEL_RUN_KEY: types.Channel(type=standard_artifacts.ModelRun),
            executor.TRAINING_HISTORY_KEY: types.Channel(type=TrainingHistory),
            **fixed,
        }
        super().__init__(spec=PlateauTrainerSpec(**arguments))


def _fields() -> list[tuple[str, tuple[type, bool]]]:
    return list(logic.parameter_types().items())


def _json(message: Any) -> str:
    return str(proto_utils.proto_to_json(message))


notebook.register()
