"""Executor of PlateauTrainer: TFX's own around `run_fn`, with schedule and history."""

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.trainer.executor import GenericExecutor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.types import artifact_utils
from tfx.types import standard_component_specs as specs
from tfx.utils import io_utils, json_utils

from components.plateau_trainer.parameters import assemble, summary
from trainer_module import history
from trainer_module.config import tuned
from trainer_module.schedule.parameters import (
    CHECKPOINTS_KEY,
    CODE_KEY,
    SCHEDULE_KEY,
    TRAIN_CONFIG_KEY,
    parameters,
    schedule,
)
from trainer_module.util.checks import require

TRAINING_HISTORY_KEY = "training_history"

TEXTS = (
    TRAIN_CONFIG_KEY,
    CODE_KEY,
    CHECKPOINTS_KEY,
    specs.MODULE_FILE_KEY,
    specs.MODULE_PATH_KEY,
    specs.RUN_FN_KEY,
    specs.CUSTOM_CONFIG_KEY,
)
"""Parameters that are texts and may be left out."""

RESERVED = (SCHEDULE_KEY, CHECKPOINTS_KEY, CODE_KEY)
"""Keys of `custom_config` by which `trainer_module.trainer_arguments` finds parameters."""

_RUN_FN = "trainer_module.run_fn.run_fn"


class Executor(GenericExecutor):  # type: ignore[misc]
    """Trains with the schedule of its parameters, and writes the history."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Trains, exports the model, and writes the history.

        Args:
            input_dict: "examples"; optionally "transform_graph", "schema", "base_model" and
                "hyperparameters".
            output_dict: "model", "model_run" and "training_history".
            exec_properties: The parameters of `component.PlateauTrainerSpec`.

        Raises:
            UserError: A parameter, a tuned hyperparameter, the data or the base model is invalid,
                or `run_fn` did not train by the schedule.
            NonFiniteError: Loss or metric became NaN or infinite and the schedule says raise.
        """
        own = exec_properties.get(TRAIN_CONFIG_KEY)
        code = exec_properties.get(CODE_KEY)
        keep = [specs.TRAIN_ARGS_KEY, specs.EVAL_ARGS_KEY]
        properties: dict[str, Any] = {}
        custom: dict[str, Any] = {CHECKPOINTS_KEY: exec_properties.get(CHECKPOINTS_KEY)}
        if own:
            config = assemble(own, exec_properties)
            if input_dict.get(specs.HYPERPARAMETERS_KEY):
                uri = artifact_utils.get_single_uri(input_dict[specs.HYPERPARAMETERS_KEY])
                text = Path(io_utils.get_only_uri_in_dir(uri)).read_text()
                config = tuned(config, json.loads(text)["values"])
            custom |= {TRAIN_CONFIG_KEY: config.to_json(), CODE_KEY: code}
            properties[specs.RUN_FN_KEY] = _RUN_FN
        else:
            keep += [specs.MODULE_FILE_KEY, specs.MODULE_PATH_KEY, specs.RUN_FN_KEY]
            users = json_utils.loads(exec_properties.get(specs.CUSTOM_CONFIG_KEY) or "{}")
            # The name of the package that TFX makes of a module file has a digest of its source.
            code = [code, Path(exec_properties.get(specs.MODULE_PATH_KEY) or "").name]
            custom |= {
                **users,
                SCHEDULE_KEY: parameters(schedule(exec_properties)),
                CODE_KEY: json.dumps(code),
            }
        properties |= {key: exec_properties[key] for key in keep if exec_properties.get(key)}
        properties[specs.CUSTOM_CONFIG_KEY] = json_utils.dumps(custom)
        super().Do(input_dict, output_dict, properties)
        run_dir = artifact_utils.get_single_uri(output_dict[specs.MODEL_RUN_KEY])
        path = Path(run_dir) / history.FILE_NAME
        require(
            path.exists(),
            "`run_fn` must train by the schedule, and so leave a history",
            f"no {path}",
            "Call trainer_module.train(..., **trainer_arguments(fn_args)) in place of model.fit.",
        )
        record = history.read(path)
        artifact = artifact_utils.get_single_instance(output_dict[TRAINING_HISTORY_KEY])
        folder = Path(artifact.uri)
        folder.mkdir(parents=True, exist_ok=True)
        history.write(record, folder / history.FILE_NAME)
        for name, value in summary(record).items():
            # TFX has a method for each type.
            kind = {str: "string", int: "int", float: "float"}[type(value)]
            getattr(artifact, f"set_{kind}_custom_property")(name, value)

    def _GetFnArgs(self, *args: Any) -> FnArgs:  # noqa: N802  (TFX's name)
        return _ReadFnArgs(**vars(super()._GetFnArgs(*args)))


class _ReadFnArgs(FnArgs):  # type: ignore[misc]
    """FnArgs that record which of them are read."""

    def __getattribute__(self, name: str) -> Any:
        attributes = object.__getattribute__(self, "__dict__")
        if name in attributes:
            attributes.setdefault("_read", set()).add(name)
        return object.__getattribute__(self, name)

    def unread(self) -> list[str]:
        """Returns which of hyperparameters and base model are set and were not read."""
        values = vars(self)
        read = values.get("_read", set())
        return [n for n in ("hyperparameters", "base_model") if values[n] and n not in read]
