"""Reader of what TFMA's Evaluator writes."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import (
    config_pb2,
    metrics_for_slice_pb2,
    validation_result_pb2,
)
from tensorflow_model_analysis.slicer import slicer_lib
from tensorflow_model_analysis.writers import eval_config_writer

import schemas
from components.evaluation import plot_reader, slices, thresholds
from components.evaluation.results import OVERALL, Evaluation, SliceMetrics
from components.evaluation.slices import Key, Metrics, Slice, metric_name
from trainer_module.util.checks import UserError
from trainer_module.util.text import joined

_SLICES_NAMED = 3


def read(folder: str, classes: Sequence[str], rounding: float) -> Evaluation:
    """Reads what an Evaluator wrote; see `results.read`."""
    config, *_ = eval_config_writer.load_eval_run(folder)
    metrics = list(tfma.load_metrics(folder)) if config is not None else []
    if not metrics:
        raise UserError(
            "an evaluation must hold the Evaluator's metrics and eval_config.json",
            folder,
            "Run the Evaluator again.",
        )
    validation = tfma.load_validation_result(folder)
    plots = list(tfma.load_plots(folder))
    return summarise(config, metrics, validation, plots, classes, rounding)


def overall(metrics: Metrics, model: str) -> SliceMetrics | None:
    """Returns the metrics of one model over all examples; None where there are none.

    Args:
        metrics: One proto a slice.
        model: The model's name in the EvalConfig.
    """
    everything = slices.by_key(metrics, set(), (), model).get(())
    return None if everything is None else everything.metrics(model)


def summarise(
    config: config_pb2.EvalConfig,
    metrics: Metrics,
    validation: validation_result_pb2.ValidationResult,
    plots: Sequence[metrics_for_slice_pb2.PlotsForSlice],
    classes: Sequence[str] = (),
    rounding: float = 0.0,
) -> Evaluation:
    """Returns the Evaluator's protos as plain values.

    Args:
        config: The EvalConfig that was followed.
        metrics: One proto a slice.
        validation: Failures of the thresholds.
        plots: One proto a slice.
        classes: Class names in the order of the label indices.
        rounding: By how much each bound was made looser to allow for rounding.

    Raises:
        UserError: There are no metrics over all examples.
    """
    candidate = min({spec.name for spec in config.model_specs if not spec.is_baseline} or {""})
    baseline = next((spec.name for spec in config.model_specs if spec.is_baseline), None)
    labels = {spec.label_key for spec in config.model_specs} | {schemas.LABEL}
    by_key = slices.by_key(metrics, labels, classes, candidate)
    if () not in by_key:
        raise UserError(
            "the EvalConfig must evaluate all examples",
            "slices only",
            "Add an empty SlicingSpec to its slicing_specs.",
        )
    everything = by_key[()]
    values = everything.metrics(candidate)
    assert values is not None, "the overall slice always holds the trained model"
    bounded = list(thresholds.read(config, baseline))
    named = {metric for each in by_key.values() if each.is_class for metric in each.of(candidate)}
    ranked_by, higher = thresholds.ranking(bounded, values, named)

    def rank(item: tuple[str, SliceMetrics]) -> tuple[float, str]:
        value = item[1].values.get(ranked_by, math.nan)
        order = value if higher else -value
        return (-math.inf if math.isnan(order) else order, item[0])

    def of(model: str, is_class: bool) -> list[tuple[str, SliceMetrics]]:
        chosen = [s for key, s in by_key.items() if key and s.is_class == is_class]
        return [(s.name, m) for s in chosen if (m := s.metrics(model)) is not None]

    by_class = tuple(sorted(of(candidate, is_class=True), key=rank))
    order = {name: position for position, (name, _) in enumerate(by_class)}
    unseen = tuple(name for name in classes if name not in order) if by_class else ()
    failures = thresholds.failures(validation)
    gates = [
        gate
        for each in sorted(by_key.values(), key=lambda s: (s.key != (), order.get(s.name, -1)))
        for threshold in bounded
        if threshold.applies_to(each.key)
        for gate in thresholds.gates(each, threshold, failures, candidate, baseline or "", rounding)
    ]
    return Evaluation(
        candidate=values,
        baseline=None if baseline is None else everything.metrics(baseline),
        classes=by_class,
        gates=(*gates, *thresholds.gates_of_unseen(unseen, bounded, labels, rounding)),
        problems=tuple(_problems(validation, by_key)),
        baseline_classes={} if baseline is None else dict(of(baseline, is_class=True)),
        slices=tuple(of(candidate, is_class=False)),
        matrix=plot_reader.matrix(plots, classes, candidate),
        calibration=plot_reader.calibration(plots, classes, candidate),
        ranked_by=ranked_by,
        higher_is_better=higher,
        unseen=unseen,
    )


def _problems(validation: Any, slices: Mapping[Key, Slice]) -> Iterator[str]:
    """Yields what failed the model beyond the gates, such as a metric that is missing."""
    where: dict[tuple[str, str], list[str]] = defaultdict(list)
    for per_slice in validation.metric_validations_per_slice:
        crosses = per_slice.HasField("cross_slice_key")
        if crosses:
            name = "a comparison of slices"
        else:
            key = slicer_lib.deserialize_slice_key(per_slice.slice_key)
            name = slices[key].name if key in slices else str(key)
        for failure in per_slice.failures:
            message = " ".join(failure.message.split())
            if crosses:
                message = message or "its threshold was not met"
            if message:
                where[metric_name(failure.metric_key), message].append(name)
    for (metric, message), names in where.items():
        yield f"{metric} on {joined(names, _SLICES_NAMED)}: {message}"
    for spec in validation.missing_slices:
        parts = [*spec.feature_keys, *(f"{k} = {v}" for k, v in spec.feature_values.items())]
        if parts:
            yield f"no example in any slice by {', '.join(parts)}"
        else:
            yield f"nothing was checked over {OVERALL}"
