"""Checks of whether a model can be served.  Pure: measurements in, checks out."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeVar

from components import gate
from components.gate import Check
from components.servable.measurement import (
    Finding,
    Finished,
    Latency,
    Loaded,
    Measurement,
    Predictions,
    Requests,
    Signature,
    Stage,
)
from trainer_module.util.text import joined

FILE_NAME = "servable.json"
"""File beside the marker of an InfraBlessing, with a `Result`."""

CLEAN = "exit code 0"

_ROUNDING = 1e-6  # Metrics come as float32, where 0.9 is 0.89999998.
_REMEDY = (
    "Export the model by trainer_module.export_model, which writes a SavedModel that TensorFlow "
    "Serving loads; tf.saved_model.save of a Keras 3 model does not."
)
_LISTED = 5
_Kind = TypeVar("_Kind", bound=Measurement)


class Rule(NamedTuple):
    """A rule that the probe examines.

    Attributes:
        bound: What must hold; `{tolerance}` is the difference that rounding may make.
        examined: What is counted.
        not_applicable: Why nothing may have been examined.
    """

    bound: str
    examined: str
    not_applicable: str = ""


ANSWERS, SHAPES, FINITE, EMPTY = "answers", "shapes and types", "finite", "empty batch"
SINGLE, SIGNATURES, SESSION = "batch of 1", "signatures agree", "session"
CORRUPT, ORIGINALS = "corrupt input", "original files"

RULES: Mapping[str, Rule] = {
    ANSWERS: Rule("every signature must answer a batch of 1 and a large one", "requests"),
    SHAPES: Rule(
        "outputs must be as the signature declares them, with a row for each example", "outputs"
    ),
    FINITE: Rule("no output may hold NaN or infinity", "outputs"),
    EMPTY: Rule(
        "no examples must be answered with no rows, or refused with one of tf.errors", "requests"
    ),
    SINGLE: Rule(
        "an example alone must get the answer it gets in a batch, within {tolerance:g}",
        "outputs",
        "no output has a row for each example",
    ),
    SIGNATURES: Rule(
        "signatures with the same outputs must answer alike, within {tolerance:g}",
        "outputs",
        "no two signatures give the same outputs",
    ),
    SESSION: Rule(
        "loaded in a session, as TensorFlow Serving does, it must answer alike, "
        "within {tolerance:g}",
        "outputs",
        "no signature answers",
    ),
    CORRUPT: Rule(
        "random characters as an example or an image must raise one of tf.errors, "
        "and the next good request must be answered as before",
        "requests",
        "no signature takes strings",
    ),
    ORIGINALS: Rule(
        "a file that was converted for training must be answered as the image stored of it, "
        "within {tolerance:g}, or refused with one of tf.errors",
        "requests",
        "no file was converted",
    ),
}


class Limits(NamedTuple):
    """What the model may take at most; None for no limit.

    Attributes:
        latency_ms_p99: Milliseconds that 99 of 100 requests for one example may take.
        model_mib: MiB on disk.
    """

    latency_ms_p99: float | None = None
    model_mib: float | None = None


class Evaluated(NamedTuple):
    """Metrics of the Evaluator over all examples; None for what it did not measure.

    Attributes:
        accuracy: Share of right answers.
        crossentropy: Mean negative log-likelihood in nats.
        examples: Number of evaluated examples.
        why_not: Why there is nothing to compare with; empty if there is.
        errors: Errors of a regression by their names in `Predictions.errors`.
    """

    accuracy: float | None = None
    crossentropy: float | None = None
    examples: int | None = None
    why_not: str = ""
    errors: Mapping[str, float] = MappingProxyType({})


class Ending(NamedTuple):
    """How the process of the probe ended.

    Attributes:
        how: "exit code 0", "signal SIGKILL" or "no end after 900 s".
        stderr: The end of what it wrote there.
    """

    how: str
    stderr: str = ""


def tolerance(arithmetic: str, device: str) -> float:
    """Returns the difference, relative where values exceed 1, that rounding may make.

    Sums are rounded in another order for another batch size, and a GPU may multiply in
    TensorFloat-32, which has 10 bits of mantissa; bfloat16 has 7.

    Args:
        arithmetic: Coarsest floating type that the model computes in.
        device: "CPU" or "GPU".
    """
    if arithmetic in ("bfloat16", "float16"):
        return 5e-2
    return 1e-2 if device == "GPU" else 1e-4


def judge(
    measurements: Sequence[Measurement],
    ending: Ending,
    size_mib: float,
    limits: Limits,
    evaluated: Evaluated,
) -> list[Check]:
    """Returns the checks of a model.

    Args:
        measurements: Measurements of the probe, perhaps cut short.
        ending: How the probe ended.
        size_mib: Size of the model on disk.
        limits: What the model may take.
        evaluated: Metrics of the Evaluator.
    """
    judged = _Judge(measurements)
    return [
        judged.process(ending),
        judged.loads(),
        judged.signatures(),
        *(judged.rule(name, rule) for name, rule in RULES.items()),
        judged.latency(limits.latency_ms_p99),
        _size(size_mib, limits.model_mib),
        *judged.predictions(evaluated),
    ]


@dataclass(frozen=True)
class Result:
    """Content of `servable.json`, which the report shows."""

    version: Literal[2]
    blessed: bool
    checks: list[Check]
    split: str
    """Split that the requests came from."""
    examples: int
    """Number of different examples in the requests."""
    signatures: list[Signature]
    latency: list[Latency]
    model_mib: float
    seconds: float | None
    tensorflow: str | None
    device: str | None
    arithmetic: str | None

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that the model failed."""
        return gate.failed(self.checks)

    @property
    def platform(self) -> list[str]:
        """What the model ran on, such as ["TensorFlow 2.16.2", "CPU", "float32"]."""
        version = f"TensorFlow {self.tensorflow}" if self.tensorflow else None
        return [part for part in (version, self.device, self.arithmetic) if part]


def result(
    checks: Sequence[Check], measurements: Sequence[Measurement], split: str, size_mib: float
) -> Result:
    """Returns the result of a probe.

    Args:
        checks: The checks.
        measurements: Measurements that they were made of.
        split: Split that the requests came from.
        size_mib: Size of the model on disk.
    """
    loaded = _first(measurements, Loaded)
    requests = _first(measurements, Requests)
    finished = _first(measurements, Finished)
    return Result(
        version=2,
        blessed=not gate.failed(checks),
        checks=list(checks),
        split=split,
        examples=requests.examples if requests else 0,
        signatures=_of(measurements, Signature),
        latency=_of(measurements, Latency),
        model_mib=size_mib,
        seconds=finished.seconds if finished else None,
        tensorflow=loaded.tensorflow if loaded else None,
        device=loaded.device if loaded else None,
        arithmetic=loaded.arithmetic if loaded else None,
    )


def parse(content: bytes | str) -> Result:
    """Parses a `servable.json`.

    Raises:
        ValueError: It is of another version, or something is missing or of another type.
    """
    # The probe has no use for it.
    from pydantic import TypeAdapter

    parsed: Result = TypeAdapter(Result).validate_json(content)
    return parsed


def _of(measurements: Sequence[Measurement], kind: type[_Kind]) -> list[_Kind]:
    return [each for each in measurements if isinstance(each, kind)]


def _first(measurements: Sequence[Measurement], kind: type[_Kind]) -> _Kind | None:
    return next(iter(_of(measurements, kind)), None)


class _Judge:
    """The checks that are made of the probe's measurements."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._measurements = measurements
        self._finished = _first(measurements, Finished)
        self._loaded = _first(measurements, Loaded)
        loaded = self._loaded or Loaded(0.0, "", "", "")
        self._tolerance = tolerance(loaded.arithmetic, loaded.device)
        self._signatures = _of(measurements, Signature)
        self._tried = [each.name for each in self._signatures if not each.left_out]

    def _check(
        self, name: str, bound: str, value: str, problems: Sequence[str], why: str = ""
    ) -> Check:
        """Returns a check that any problem fails, and that is not judged without a `value`."""
        if problems:
            return Check(name, joined(problems, _LISTED, "; "), bound, False)
        if value and self._finished:
            return Check(name, value, bound, True)
        if self._loaded and self._loaded.error:
            why = "the model does not load"
        elif not self._finished:
            why = "the process ended before"
        elif not self._tried:
            why = "there is no signature to try"
        return Check(name, "not measured", bound, None, why)

    def process(self, ending: Ending) -> Check:
        bound = "a process of its own must do all requests and end by itself"
        if self._finished:
            # A process may still die while it exits, after all requests.
            note = "" if ending.how == CLEAN else f"then {ending.how}"
            value = f"done after {self._finished.seconds:.1f} s"
            return Check("process", value, bound, True, note)
        stages = _of(self._measurements, Stage)
        stage = f"while {stages[-1].doing}" if stages else "before it began"
        return Check("process", f"{ending.how} {stage}", bound, False, ending.stderr)

    def loads(self) -> Check:
        bound = "tf.saved_model.load must load it"
        loaded = self._loaded
        if loaded is None or loaded.error:
            return self._check("loads", bound, "", [loaded.error] if loaded else [])
        note = "It holds what only Keras loads in Python; a model server ignores that."
        value = f"in {loaded.seconds:.2f} s, {'with' if loaded.keras else 'without'} Keras"
        return Check("loads", value, bound, True, note if loaded.keras else "")

    def signatures(self) -> Check:
        left_out = [f"{s.name} left out: {s.left_out}" for s in self._signatures if s.left_out]
        problems = []
        if self._finished and self._loaded and not self._loaded.error and not self._tried:
            problems = left_out or ["the model has no signatures"]
        check = self._check(
            "signatures",
            "there must be a signature that the examples can be sent to",
            f"{len(self._tried)} of {len(self._signatures)} tried: {', '.join(self._tried)}"
            if self._signatures
            else "",
            problems,
        )
        if check.passed is None:
            return check
        note = f"Give Servable examples it takes. {_REMEDY}"
        if check.passed:
            note = joined(left_out, _LISTED, "; ")
        return dataclasses.replace(check, note=note)

    def rule(self, name: str, rule: Rule) -> Check:
        """Returns the check of one of `RULES`."""
        findings = [each for each in _of(self._measurements, Finding) if each.rule == name]
        refusals = [each.refusal for each in findings if each.refusal]
        differences = [each.difference for each in findings if each.difference is not None]
        value = f"{len(findings)} {rule.examined}" if findings else ""
        if differences:
            value += f", different by up to {max(differences):.2g}"
        if refusals:
            value += f", {len(refusals)} refused"
        problems = [each.problem for each in findings if each.problem]
        bound = rule.bound.format(tolerance=self._tolerance)
        check = self._check(name, bound, value, problems, rule.not_applicable)
        if check.passed and refusals:
            return dataclasses.replace(check, note=refusals[0])
        if name == SESSION and check.passed is False:
            return dataclasses.replace(check, note=_REMEDY)
        return check

    def latency(self, limit: float | None) -> Check:
        value, slow = [], []
        for each in _of(self._measurements, Latency):
            value.append(f"{each.signature} p50 {each.p50_ms:.2f} ms, p99 {each.p99_ms:.2f} ms")
            if limit is not None and each.p99_ms > limit:
                slow.append(value[-1])
        bound = (
            f"p99 of requests for 1 example at most {limit:g} ms"
            if limit is not None
            else "no limit"
        )
        check = self._check("latency", bound, "; ".join(value), slow, "no signature answers")
        if limit is None and check.passed:
            return dataclasses.replace(check, passed=None, note="no limit is set")
        return check

    def predictions(self, evaluated: Evaluated) -> list[Check]:
        """Returns the checks that the model predicts the split as the Evaluator measured."""
        predicted = _first(self._measurements, Predictions)
        what = next(iter(evaluated.errors), "accuracy")
        bound = f"the {what} must be the evaluated one"
        if why := evaluated.why_not or (predicted.error if predicted else ""):
            return [Check(what, "not measured", bound, None, why)]
        if predicted is None:
            return [self._check(what, bound, "", [])]
        if evaluated.examples not in (None, predicted.examples):
            return [
                Check(
                    "examples",
                    f"{predicted.examples:,}",
                    f"the split must be the evaluated one, of {evaluated.examples:,} examples",
                    False,
                    "Give Servable the split that the Evaluator judges.",
                )
            ]
        close = self._tolerance
        if evaluated.errors:
            return [
                _equal(name, predicted.errors.get(name), value, close * max(1.0, value), "", "")
                for name, value in evaluated.errors.items()
            ]
        slack = predicted.near_ties / predicted.examples + _ROUNDING
        ties = f" and {predicted.near_ties} near ties" if predicted.near_ties else ""
        close *= max(1.0, evaluated.crossentropy or 0.0)
        return [
            _equal("accuracy", predicted.accuracy, evaluated.accuracy, slack, ties, ""),
            _equal(
                "accuracy by class name",
                predicted.accuracy_by_name,
                evaluated.accuracy,
                slack,
                ties,
                "the label feature and the output class do not both hold names",
            ),
            _equal(
                "cross-entropy",
                predicted.crossentropy,
                evaluated.crossentropy,
                close,
                "",
                "the scores are no probabilities, and the metric does not take them as logits",
            ),
        ]


def _size(mib: float, limit: float | None) -> Check:
    value = f"{mib:.2f} MiB"
    if limit is None:
        return Check("size", value, "no limit", None, "no limit is set")
    return Check("size", value, f"on disk at most {limit:g} MiB", mib <= limit)


def _equal(
    name: str, value: float | None, target: float | None, within: float, ties: str, why: str
) -> Check:
    """Returns the check that a metric is the evaluated one; `why` it may not be measured."""
    if target is None:
        bound = f"the {name} must be the evaluated one"
        return Check(name, "not compared", bound, None, "the evaluation has no such metric")
    bound = f"must be {target:.6f} as evaluated, within rounding{ties}"
    if value is None:
        return Check(name, "not measured", bound, None, why)
    equal = math.isfinite(value) and abs(value - target) <= within
    return Check(name, f"{value:.6f}", bound, equal)
