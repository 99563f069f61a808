"""What the Evaluator found, and how it asked the model."""

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.writers import eval_config_writer

from components.servable.logic import Evaluated
from components.servable.prediction import Evaluation

ACCURACY, CROSSENTROPY, EXAMPLES = "accuracy", "crossentropy", "example_count"
_CANDIDATES = ("", "candidate")


def read(folder: str) -> tuple[Evaluated, Evaluation | None]:
    """The candidate's metrics over all examples, and how to measure them again.

    Args:
        folder: Folder of a ModelEvaluation.

    Returns:
        What was found (or why there is nothing to compare with), and how the model was asked;
        None where it cannot be asked the same way.
    """
    config = eval_config_writer.load_eval_run(folder)[0]
    specs = [s for s in config.model_specs if s.name in _CANDIDATES and not s.is_baseline]
    if len(specs) != 1 or not specs[0].label_key:
        return Evaluated(why_not="the evaluation names no single label of one model"), None
    (spec,) = specs
    if spec.example_weight_key or spec.example_weight_keys:
        return Evaluated(why_not="the evaluation gives its examples weights"), None
    metrics = _overall(folder)
    evaluated = Evaluated(
        accuracy=metrics.get(ACCURACY),
        crossentropy=metrics.get(CROSSENTROPY),
        examples=round(metrics[EXAMPLES]) if EXAMPLES in metrics else None,
    )
    if evaluated.accuracy is None and evaluated.crossentropy is None:
        why = f"the evaluation has no metric {ACCURACY} or {CROSSENTROPY}"
        return Evaluated(why_not=why), None
    return evaluated, Evaluation(
        spec.signature_name or "serving_default",
        spec.prediction_key,
        spec.label_key,
        tuple(spec.preprocessing_function_names),
    )


def _overall(folder: str) -> dict[str, float]:
    return {
        item.key.name: item.value.double_value.value
        for proto in tfma.load_metrics(folder)
        if not proto.slice_key.single_slice_keys
        for item in proto.metric_keys_and_values
        if item.key.model_name in _CANDIDATES
        and not item.key.is_diff
        and item.value.WhichOneof("type") == "double_value"
    }
