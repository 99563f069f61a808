"""What the Evaluator found, and how it asked the model."""

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.writers import eval_config_writer

from components import evaluation
from components.servable.logic import Evaluated
from components.servable.prediction import Evaluation

ACCURACY, CROSSENTROPY = "accuracy", "crossentropy"
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
    metrics = evaluation.overall(tfma.load_metrics(folder), spec.name)
    values = metrics.values if metrics else {}
    evaluated = Evaluated(
        accuracy=values.get(ACCURACY),
        crossentropy=values.get(CROSSENTROPY),
        examples=metrics.examples if metrics else None,
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
