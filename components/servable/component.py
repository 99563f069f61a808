"""Servable: component that blesses a model that can be served."""

import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs

import schemas
from components.servable import executor
from trainer_module.util.checks import require

_MODEL = standard_component_specs.MODEL_KEY
_EXAMPLES = standard_component_specs.EXAMPLES_KEY
_EVALUATION = standard_component_specs.EVALUATION_KEY
_BLESSING = standard_component_specs.BLESSING_KEY


class ServableSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """Specification of Servable."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.SPLIT_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.LATENCY_KEY: component_spec.ExecutionParameter(type=float, optional=True),
        executor.SIZE_KEY: component_spec.ExecutionParameter(type=float, optional=True),
        executor.TIMEOUT_KEY: component_spec.ExecutionParameter(type=int),
        executor.LABEL_KEY: component_spec.ExecutionParameter(type=str),
        executor.LEAVE_OUT_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        _MODEL: component_spec.ChannelParameter(type=standard_artifacts.Model),
        _EXAMPLES: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        _EVALUATION: component_spec.ChannelParameter(
            type=standard_artifacts.ModelEvaluation, optional=True
        ),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {
        _BLESSING: component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing),
    }


class Servable(base_component.BaseComponent):  # type: ignore[misc]
    """Loads a model in a process of its own, sends it requests, and blesses it if it answers well.

    The output `blessing` gates TFX's Pusher (`infra_blessing=`). It does what TFX's InfraValidator
    does, without Docker or Kubernetes, and in any runner. A model that fails a check, even one
    that crashes or hangs the process, is not blessed, and the pipeline continues; each check is in
    `servable.json` beside the marker, with its value and its threshold.

    Servable knows a model by its signatures alone. It tries each one that takes serialized
    examples, or tensors named like the examples' features, and gives the reason for each other.
    Where a sample of files that were converted lies beside the examples (`schemas.ORIGINALS`),
    those are sent too: their answers must be those to the stored images, or errors.
    """

    SPEC_CLASS = ServableSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        evaluation: types.BaseChannel | None = None,
        split: str | None = None,
        max_latency_ms_p99: float | None = None,
        max_model_mib: float | None = None,
        timeout_s: int = 900,
        label: str = schemas.LABEL,
        leave_out: Sequence[str] = (),
    ) -> None:
        """Constructs the component.

        Args:
            model: Model to try.
            examples: Examples the requests are made of.
            evaluation: ModelEvaluation of this model on this split. If given, the model must
                reach the accuracy and the cross-entropy in it once more: those of Keras
                (SparseCategoricalAccuracy, BinaryAccuracy, ...), or metrics of such names.
            split: Split of the examples; `test` if not given, or `eval` where there is no `test`.
            max_latency_ms_p99: Milliseconds that 99 of 100 requests for one example may take,
                without network; None for no limit.
            max_model_mib: MiB that the model may take on disk; None for no limit.
            timeout_s: Seconds after which the process is killed and the model not blessed.
            label: Raw feature that names the class, if there is one.
            leave_out: Signatures that are not to be tried.

        Raises:
            UserError: A limit is not positive.
        """
        for name, value in (
            ("max_latency_ms_p99", max_latency_ms_p99),
            ("max_model_mib", max_model_mib),
            ("timeout_s", timeout_s),
        ):
            require(
                value is None or 0 < value < math.inf,
                f"`{name}` must be a positive number",
                value,
                "Choose what the model may take; None sets no limit to latency and size.",
            )
        super().__init__(
            spec=ServableSpec(
                model=model,
                examples=examples,
                evaluation=evaluation,
                split=split,
                max_latency_ms_p99=None
                if max_latency_ms_p99 is None
                else float(max_latency_ms_p99),
                max_model_mib=None if max_model_mib is None else float(max_model_mib),
                timeout_s=timeout_s,
                label=label,
                leave_out=json.dumps(list(leave_out)),
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
