"""Unpacks the parameters, has TFX's own executor train, packs the history."""

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.trainer.executor import GenericExecutor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from components.plateau_trainer import logic
from trainer_module import history
from trainer_module.config import tuned

TRAIN_CONFIG_KEY = "train_config"
CODE_KEY = "code"
CHECKPOINTS_KEY = "checkpoints"
TRAINING_HISTORY_KEY = "training_history"
_RUN_FN = "trainer_module.entry.run_fn"


class Executor(GenericExecutor):  # type: ignore[misc]
    """Trains with the schedule of its parameters, and reports what happened."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Train, export the model, and write the history.

        Args:
            input_dict: "examples" and "transform_graph"; optionally "schema", "base_model" and
                "hyperparameters".
            output_dict: "model", "model_run" and "training_history".
            exec_properties: The parameters of `component.PlateauTrainerSpec`.

        Raises:
            ValueError: A parameter, a tuned hyperparameter, the data or the base model is no good.
            NonFiniteError: Loss or metric became NaN or infinite and the schedule says raise.
        """
        config = logic.assemble(exec_properties[TRAIN_CONFIG_KEY], exec_properties)
        if input_dict.get(standard_component_specs.HYPERPARAMETERS_KEY):
            found = artifact_utils.get_single_uri(
                input_dict[standard_component_specs.HYPERPARAMETERS_KEY]
            )
            text = Path(io_utils.get_only_uri_in_dir(found)).read_text()
            config = tuned(config, json.loads(text)["values"])
        custom = {
            TRAIN_CONFIG_KEY: config.to_json(),
            CODE_KEY: exec_properties.get(CODE_KEY),
            CHECKPOINTS_KEY: exec_properties.get(CHECKPOINTS_KEY),
        }
        keep = (standard_component_specs.TRAIN_ARGS_KEY, standard_component_specs.EVAL_ARGS_KEY)
        properties = {
            **{key: exec_properties[key] for key in keep},
            standard_component_specs.RUN_FN_KEY: _RUN_FN,
            standard_component_specs.CUSTOM_CONFIG_KEY: json.dumps(custom),
        }
        super().Do(input_dict, output_dict, properties)
        run_dir = artifact_utils.get_single_uri(output_dict[standard_component_specs.MODEL_RUN_KEY])
        record = history.read(Path(run_dir) / history.FILE_NAME)
        artifact = artifact_utils.get_single_instance(output_dict[TRAINING_HISTORY_KEY])
        folder = Path(artifact.uri)
        folder.mkdir(parents=True, exist_ok=True)
        history.write(record, folder / history.FILE_NAME)
        for name, value in logic.summary(record).items():
            if isinstance(value, str):
                artifact.set_string_custom_property(name, value)
            elif isinstance(value, int):
                artifact.set_int_custom_property(name, value)
            else:
                artifact.set_float_custom_property(name, value)
