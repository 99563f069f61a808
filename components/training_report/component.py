"""TrainingReport: component that writes a run's report as one HTML page."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs

import schemas
from components import artifacts, notebook
from components.training_report import executor
from components.training_report.mistakes import LOOKED_AT
from schemas import parameter
from trainer_module.util.checks import require

_KEYS = standard_component_specs


def _input(kind: type[types.Artifact], optional: bool = False) -> Any:
    return component_spec.ChannelParameter(type=kind, optional=optional)


class TrainingReportSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """Specification of TrainingReport."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        executor.CLASSES_KEY: component_spec.ExecutionParameter(type=str),
        executor.SPLIT_KEY: component_spec.ExecutionParameter(type=str),
        executor.LABEL_KEY: component_spec.ExecutionParameter(type=str),
        executor.TITLE_KEY: component_spec.ExecutionParameter(type=str),
        executor.SOURCE_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.NETWORK_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.COMMAND_KEY: component_spec.ExecutionParameter(type=str),
        executor.FINGERPRINT_KEY: component_spec.ExecutionParameter(type=str),
        executor.ROUNDING_KEY: component_spec.ExecutionParameter(type=float),
        executor.LOOK_AT_KEY: component_spec.ExecutionParameter(type=int),
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        executor.HISTORY_KEY: _input(artifacts.TrainingHistory, optional=True),
        executor.MODEL_RUN_KEY: _input(standard_artifacts.ModelRun, optional=True),
        _KEYS.EVALUATION_KEY: _input(standard_artifacts.ModelEvaluation),
        _KEYS.BLESSING_KEY: _input(standard_artifacts.ModelBlessing),
        _KEYS.STATISTICS_KEY: _input(standard_artifacts.ExampleStatistics),
        _KEYS.SCHEMA_KEY: _input(standard_artifacts.Schema),
        _KEYS.ANOMALIES_KEY: _input(standard_artifacts.ExampleAnomalies, optional=True),
        _KEYS.MODEL_KEY: _input(standard_artifacts.Model, optional=True),
        _KEYS.EXAMPLES_KEY: _input(standard_artifacts.Examples, optional=True),
        executor.INFRA_BLESSING_KEY: _input(standard_artifacts.InfraBlessing, optional=True),
        executor.DRIFT_KEY: _input(artifacts.DataDrift, optional=True),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {
        executor.REPORT_KEY: component_spec.ChannelParameter(type=artifacts.HtmlReport),
    }


class TrainingReport(base_component.BaseComponent):  # type: ignore[misc]
    """Writes a page about a run: verdict, curves, classes, serving, mistakes, data, origin.

    The output `report` holds `report.html`, one file that loads nothing from anywhere. It is
    written for a model that failed its gates too, since that is when it is needed most. Its custom
    property `test_accuracy` is the accuracy on the evaluated split, where that was measured.
    """

    SPEC_CLASS = TrainingReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        evaluation: types.BaseChannel,
        blessing: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        *,
        history: types.BaseChannel | None = None,
        anomalies: types.BaseChannel | None = None,
        model: types.BaseChannel | None = None,
        examples: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
        drift: types.BaseChannel | None = None,
        classes: Sequence[str] = (),
        split: str = "eval",
        label: str = schemas.LABEL,
        title: str = "Training run",
        source: str | None = None,
        network: str | None = None,
        command: str = "",
        fingerprint: str = "",
        rounding: float = 0.0,
        look_at: int = LOOKED_AT,
    ) -> None:
        """Constructs the component.

        Args:
            evaluation: ModelEvaluation of the trained model.
            blessing: ModelBlessing it was given, or not.
            statistics: ExampleStatistics, for the number of examples by split and class.
            schema: Schema of the data.
            history: TrainingHistory of the run, or the ModelRun of TFX's Trainer, into which
                `trainer_module.HistoryRecorder` wrote; without it the page has no curves.
            anomalies: ExampleAnomalies; without it the page cannot say whether the data is fine.
            model: The trained Model. With `examples`, the page shows the mistakes it is surest of.
            examples: Examples whose split `split` the model is asked about.
            infra_blessing: InfraBlessing, for whether the model can be served; one of Servable also
                has the checks, and how fast the model answered.
            drift: DataDrift, for how far the data has moved.
            classes: Class names in the order of the label indices.
            split: Split that was evaluated.
            label: Name of the label feature.
            title: Heading of the page.
            source: Where the data came from, such as its folder.
            network: Name of the model, such as "cnn".
            command: Command that repeats the run.
            fingerprint: Fingerprint of the training code.
            rounding: By how much the EvalConfig's bounds were made looser to allow for rounding.
            look_at: Examples the model is asked about, at most.

        Raises:
            UserError: `look_at` is below 1, or `classes` is a text.
        """
        require(
            look_at >= 1,
            "`look_at` must be at least 1 example",
            look_at,
            "Leave out model and examples to look at none.",
        )
        require(
            not isinstance(classes, str),
            "`classes` must be a sequence of names",
            classes,
            "Give a tuple such as ('cat', 'dog').",
        )
        is_run = history is not None and history.type is standard_artifacts.ModelRun
        optional = {
            executor.MODEL_RUN_KEY if is_run else executor.HISTORY_KEY: history,
            _KEYS.ANOMALIES_KEY: anomalies,
            _KEYS.MODEL_KEY: model,
            _KEYS.EXAMPLES_KEY: examples,
            executor.INFRA_BLESSING_KEY: infra_blessing,
            executor.DRIFT_KEY: drift,
        }
        super().__init__(
            spec=TrainingReportSpec(
                evaluation=evaluation,
                blessing=blessing,
                statistics=statistics,
                schema=schema,
                **{key: channel for key, channel in optional.items() if channel is not None},
                classes=parameter.compressed(json.dumps(list(classes))),
                split=split,
                label=label,
                title=title,
                source=source,
                network=network,
                command=command,
                fingerprint=fingerprint,
                rounding=rounding,
                look_at=look_at,
                report=types.Channel(type=artifacts.HtmlReport),
            )
        )


notebook.register()
