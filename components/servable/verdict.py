"""Whether a model can be served.  Pure: measurements in, checks in words out."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from components import gate
from components.gate import Check
from components.servable.measurement import (
    Answer,
    Corrupt,
    Difference,
    Finished,
    Latency,
    Loaded,
    Measurement,
    Original,
    Output,
    Predictions,
    Requests,
    Session,
    Signature,
    Stage,
)

ROUNDING = 1e-6
"""Metrics come as float32, where 0.9 is 0.89999998."""

FILE_NAME = "servable.json"
"""Beside the marker of an InfraBlessing: what `result` gives."""

CLEAN = "exit code 0"

_REMEDY = (
    "Export the model by trainer_module.export_model, which writes a SavedModel that TensorFlow "
    "Serving loads; tf.saved_model.save of a Keras 3 model does not."
)

_HALVES = ("bfloat16", "float16")
_SHOWN = 5
_Kind = TypeVar("_Kind", bound=Measurement)


class Limits(NamedTuple):
    """What the model may take at most; None for no limit.

    Attributes:
        latency_ms_p99: Milliseconds that 99 of 100 requests for one example may take.
        model_mib: MiB on disk.
    """

    latency_ms_p99: float | None = None
    model_mib: float | None = None


class Evaluated(NamedTuple):
    """What the Evaluator found, over all examples; None for what it did not measure.

    Attributes:
        accuracy: Share of right answers.
        crossentropy: Mean negative log-likelihood in nats.
        examples: How many were evaluated.
        why_not: Why there is nothing to compare with; empty if there is.
    """

    accuracy: float | None = None
    crossentropy: float | None = None
    examples: int | None = None
    why_not: str = ""


class Ending(NamedTuple):
    """How the fresh process ended.

    Attributes:
        how: "exit code 0", "signal SIGKILL" or "no end after 900 s".
        stderr: The end of what it wrote there.
    """

    how: str
    stderr: str = ""


def tolerance(arithmetic: str, device: str) -> float:
    """By how much two answers may differ, relative where they exceed 1, and be the same.

    Sums are rounded in another order for another batch size, and a GPU may multiply in
    TensorFloat-32, which has 10 bits of mantissa; bfloat16 has 7.

    Args:
        arithmetic: Coarsest floating type the model computes in.
        device: "CPU" or "GPU".
    """
    if arithmetic in _HALVES:
        return 5e-2
    return 1e-2 if device == "GPU" else 1e-4


def blessed(checks: Sequence[Check]) -> bool:
    """Whether no check failed."""
    return not gate.failed(checks)


def judge(
    measurements: Sequence[Measurement],
    ending: Ending,
    size_mib: float,
    limits: Limits,
    evaluated: Evaluated,
) -> list[Check]:
    """Hold the measurements against the rules.

    Args:
        measurements: What the fresh process measured, as far as it came.
        ending: How it ended.
        size_mib: Size of the model on disk.
        limits: What the model may take.
        evaluated: What the Evaluator found.
    """
    seen = _Seen(measurements)
    return [
        _process(seen, ending),
        _loads(seen),
        _signatures(seen),
        _answers(seen),
        _shapes(seen),
        _finite(seen),
        _empty_batch(seen),
        _differences(
            seen,
            "batch of 1",
            "single",
            "an example alone must get the answer it gets among others",
            "no output has a row for each example",
        ),
        _differences(
            seen,
            "signatures agree",
            "signatures",
            "signatures with the same outputs must answer alike",
            "no two signatures give the same outputs",
        ),
        _session(seen),
        _corrupt(seen),
        _originals(seen),
        _latency(seen, limits.latency_ms_p99),
        _size(size_mib, limits.model_mib),
        *_predictions(seen, evaluated),
    ]


def result(
    checks: Sequence[Check], measurements: Sequence[Measurement], split: str, size_mib: float
) -> dict[str, Any]:
    """What a report shows, as JSON.

    Args:
        checks: The checks.
        measurements: What they were made of.
        split: Split the requests came from.
        size_mib: Size of the model on disk.
    """
    seen = _Seen(measurements)
    loaded = seen.loaded
    return {
        "version": 2,
        "blessed": blessed(checks),
        "checks": gate.to_json(checks),
        "split": split,
        "examples": sum(found.examples for found in seen.of(Requests)),
        "signatures": [found._asdict() for found in seen.of(Signature)],
        "latency": [found._asdict() for found in seen.of(Latency)],
        "model_mib": size_mib,
        "seconds": sum(found.seconds for found in seen.of(Finished)) or None,
        "tensorflow": loaded.tensorflow if loaded else None,
        "device": loaded.device if loaded else None,
        "arithmetic": loaded.arithmetic if loaded else None,
    }


class _Seen:
    """The measurements by kind."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._all = measurements
        self.finished = any(isinstance(found, Finished) for found in measurements)

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        return [found for found in self._all if isinstance(found, kind)]

    @property
    def loaded(self) -> Loaded | None:
        return next(iter(self.of(Loaded)), None)

    @property
    def tried(self) -> list[str]:
        return [found.name for found in self.of(Signature) if not found.left_out]

    @property
    def tolerance(self) -> float:
        loaded = self.loaded
        return tolerance(loaded.arithmetic, loaded.device) if loaded else 0.0

    def check(
        self, name: str, bound: str, good: str, problems: Sequence[str], measured: object, why: str
    ) -> Check:
        """A rule broken by any problem, kept if it was measured, and else not judged.

        Args:
            name: Name of the check.
            bound: What had to be.
            good: What was found if there is no problem.
            problems: What breaks the rule.
            measured: Whether anything was measured.
            why: Why nothing was, unless the process came to no answers at all.
        """
        if problems:
            return Check(name, _listed(problems), bound, False)
        if measured and self.finished:
            return Check(name, good, bound, True)
        if self.loaded is not None and self.loaded.error:
            why = "the model does not load"
        elif not self.finished:
            why = "the process ended before"
        elif not self.tried:
            why = "there is no signature to try"
        return Check(name, "not measured", bound, None, why)


def _listed(items: Sequence[str]) -> str:
    more = [f"and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return "; ".join([*items[:_SHOWN], *more])


def _process(seen: _Seen, ending: Ending) -> Check:
    bound = "a fresh process must do all its requests and end by itself"
    if seen.finished:
        (finished,) = seen.of(Finished)
        # A process may still die of its own tidying up, after all requests.
        note = "" if ending.how == CLEAN else f"then {ending.how}"
        return Check("process", f"done after {finished.seconds:.1f} s", bound, True, note)
    stages = seen.of(Stage)
    doing = f"while {stages[-1].doing}" if stages else "before it began"
    return Check("process", f"{ending.how} {doing}", bound, False, ending.stderr)


def _loads(seen: _Seen) -> Check:
    bound = "tf.saved_model.load must load it"
    loaded = seen.loaded
    if loaded and not loaded.error:
        # What comes later does not change that it loaded.
        with_keras = "It holds what only Keras loads in Python; a model server ignores that."
        keras = "with" if loaded.keras else "without"
        good = f"in {loaded.seconds:.2f} s, {keras} Keras"
        return Check("loads", good, bound, True, with_keras * loaded.keras)
    return seen.check("loads", bound, "", [loaded.error] if loaded else [], loaded, "")


def _signatures(seen: _Seen) -> Check:
    found = seen.of(Signature)
    left_out = [f"{each.name} left out: {each.left_out}" for each in found if each.left_out]
    bound = "there must be a signature that the examples can be sent to"
    problems = []
    if seen.finished and seen.loaded and not seen.loaded.error and not seen.tried:
        problems = left_out or ["the model has no signatures"]
    good = f"{len(seen.tried)} of {len(found)} tried: {', '.join(seen.tried)}"
    check = seen.check("signatures", bound, good, problems, found, "")
    if check.passed is False:
        return dataclasses.replace(check, note=f"Give Servable the examples it takes. {_REMEDY}")
    return dataclasses.replace(check, note=_listed(left_out)) if check.passed else check


def _answers(seen: _Seen) -> Check:
    asked = [answer for answer in seen.of(Answer) if answer.rows]
    sizes = sorted({answer.rows for answer in asked})
    return seen.check(
        "answers",
        "every signature must answer a batch of 1 and a large one",
        f"{len(seen.tried)} signatures, batches of {' and '.join(map(str, sizes))}",
        [f"{a.signature}, {_rows(a.rows)}: {a.error}" for a in asked if a.error],
        asked,
        "",
    )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _shapes(seen: _Seen) -> Check:
    outputs = seen.of(Output)
    problems = [
        f"{found.signature}, {_rows(found.rows)}: {found.name} is "
        f"{found.dtype} {list(found.shape)}, not {_declared(found)}"
        for found in outputs
        if not _as_declared(found)
    ]
    return seen.check(
        "shapes and types",
        "outputs must be as the signature declares them, with a row for each example",
        f"{len({(o.signature, o.name) for o in outputs})} outputs",
        problems,
        outputs,
        "",
    )


def _as_declared(found: Output) -> bool:
    if found.dtype != found.declared_dtype:
        return False
    declared = found.declared_shape
    if declared is None:
        return True
    expected = [found.rows if i == 0 and size is None else size for i, size in enumerate(declared)]
    return len(expected) == len(found.shape) and all(
        size in (None, got) for size, got in zip(expected, found.shape, strict=True)
    )


def _declared(found: Output) -> str:
    if found.declared_shape is None:
        return found.declared_dtype
    sizes = [
        str(found.rows if i == 0 and size is None else "any" if size is None else size)
        for i, size in enumerate(found.declared_shape)
    ]
    return f"{found.declared_dtype} [{', '.join(sizes)}]"


def _finite(seen: _Seen) -> Check:
    outputs = [found for found in seen.of(Output) if found.rows]
    return seen.check(
        "finite",
        "no output may hold NaN or infinity",
        f"all of {sum(found.size for found in outputs):,} values",
        [
            f"{o.signature}, {_rows(o.rows)}: {o.not_finite:,} of {o.size:,} values of {o.name}"
            for o in outputs
            if o.not_finite
        ],
        outputs,
        "",
    )


def _empty_batch(seen: _Seen) -> Check:
    asked = [answer for answer in seen.of(Answer) if not answer.rows]
    refused = [f"{answer.signature}: {answer.error}" for answer in asked if answer.clear]
    check = seen.check(
        "empty batch",
        "no examples must be answered with no rows, or refused with one of tf.errors",
        f"answered by {len(asked) - len(refused)} signatures, refused by {len(refused)}",
        [f"{a.signature}: {a.error}" for a in asked if a.error and not a.clear],
        asked,
        "",
    )
    return dataclasses.replace(check, note=_listed(refused)) if check.passed else check


def _differences(seen: _Seen, name: str, between: str, rule: str, why: str) -> Check:
    found = [each for each in seen.of(Difference) if each.between == between]
    problems = []
    for each in found:
        pair = f"{each.signature} and {each.other}" if each.other else each.signature
        if each.unequal:
            problems.append(
                f"{pair}: {each.unequal:,} of {each.size:,} values of {each.output} differ"
            )
        elif not each.largest <= seen.tolerance:
            problems.append(f"{pair}: {each.output} differs by up to {each.largest:.2g}")
    largest = max((each.largest for each in found), default=0.0)
    return seen.check(
        name,
        f"{rule}, but for {seen.tolerance:g}" if seen.tolerance else rule,
        f"differs by up to {largest:.2g}",
        problems,
        found,
        why,
    )


def _session(seen: _Seen) -> Check:
    check = _differences(
        seen,
        "session",
        "session",
        "loaded in a session, as TensorFlow Serving does, it must answer alike",
        "no signature answers",
    )
    errors = [found.error for found in seen.of(Session) if found.error]
    if not errors:
        return check
    return dataclasses.replace(check, value=errors[0], passed=False, note=_REMEDY)


def _corrupt(seen: _Seen) -> Check:
    found = seen.of(Corrupt)
    problems = []
    for each in found:
        sent = f"{each.signature}, {each.sent}"
        if each.must_refuse and not each.error:
            problems.append(f"{sent}: answered as if it were good")
        elif each.error and not each.clear:
            problems.append(f"{sent}: {each.error}")
        elif each.error_after:
            problems.append(f"{sent}: then a good request raised {each.error_after}")
        elif not each.equal_after:
            problems.append(f"{sent}: then a good request was answered otherwise")
    refused = [each for each in found if each.error]
    check = seen.check(
        "corrupt input",
        "random characters as an example or a picture must raise one of tf.errors, "
        "and the next good request must be answered as before",
        f"{len(refused)} of {len(found)} requests refused, all good ones after them answered",
        problems,
        found,
        "no signature takes strings",
    )
    return dataclasses.replace(check, note=refused[0].error) if check.passed and refused else check


def _originals(seen: _Seen) -> Check:
    """Whether files are answered from the pixels that were trained on."""
    found = seen.of(Original)
    problems = []
    for each in found:
        sent = f"{each.signature}, {each.file}"
        if each.error and not each.clear:
            problems.append(f"{sent}: {each.error}")
        elif each.unequal:
            problems.append(f"{sent}: {each.unequal:,} of {each.size:,} values differ")
        elif not each.largest <= seen.tolerance:
            problems.append(f"{sent}: differs by up to {each.largest:.2g}")
    refused = [each for each in found if each.error]
    check = seen.check(
        "original files",
        "a file that was converted for training must be answered as the image stored of it, but "
        f"for {seen.tolerance:g}, or refused with one of tf.errors",
        f"{len(found) - len(refused)} requests answered alike, {len(refused)} refused",
        problems,
        found,
        "no file was converted",
    )
    return dataclasses.replace(check, note=refused[0].error) if check.passed and refused else check


def _latency(seen: _Seen, limit: float | None) -> Check:
    found = seen.of(Latency)
    each = [f"{f.signature} p50 {f.p50_ms:.2f} ms, p99 {f.p99_ms:.2f} ms" for f in found]
    slow = [w for w, f in zip(each, found, strict=True) if limit is not None and f.p99_ms > limit]
    bound = "no limit" if limit is None else f"p99 of requests for 1 example at most {limit:g} ms"
    check = seen.check("latency", bound, "; ".join(each), slow, found, "no signature answers")
    if limit is None and check.passed:
        return dataclasses.replace(check, passed=None, note="no limit is set")
    return check


def _size(mib: float, limit: float | None) -> Check:
    value = f"{mib:.2f} MiB"
    if limit is None:
        return Check("size", value, "no limit", None, "no limit is set")
    return Check("size", value, f"on disk at most {limit:g} MiB", mib <= limit)


def _predictions(seen: _Seen, evaluated: Evaluated) -> list[Check]:
    """Whether the model predicts the split as the Evaluator saw it do."""
    found = next(iter(seen.of(Predictions)), None)
    if evaluated.why_not or (found and found.error):
        why = evaluated.why_not or (found.error if found else "")
        bound = "the accuracy must be the evaluated one"
        return [Check("accuracy", "not measured", bound, None, why)]
    if found is None:
        return [seen.check("accuracy", "the accuracy must be the evaluated one", "", [], None, "")]
    if evaluated.examples not in (None, found.examples):
        return [
            Check(
                "examples",
                f"{found.examples:,}",
                f"the evaluated split must be the one given, {evaluated.examples:,} examples",
                False,
                "Give Servable the split that the Evaluator judges.",
            )
        ]
    slack = found.near_ties / found.examples + ROUNDING
    ties = f", and for {found.near_ties} near ties" if found.near_ties else ""
    close = seen.tolerance * max(1.0, evaluated.crossentropy or 0.0)
    rows = (
        ("accuracy", found.accuracy, evaluated.accuracy, slack, ties, ""),
        (
            "accuracy by class name",
            found.accuracy_by_name,
            evaluated.accuracy,
            slack,
            ties,
            "the label feature and the output class do not both hold names",
        ),
        (
            "cross-entropy",
            found.crossentropy,
            evaluated.crossentropy,
            close,
            "",
            "the scores are no probabilities, and the metric does not take them as logits",
        ),
    )
    return [_equal(*row) for row in rows]


def _equal(
    name: str, value: float | None, target: float | None, within: float, ties: str, why: str
) -> Check:
    if target is None:
        bound = f"the {name} must be the evaluated one"
        return Check(name, "not compared", bound, None, "the evaluation has no such metric")
    bound = f"must be {target:.6f} as evaluated, but for rounding{ties}"
    if value is None:
        return Check(name, "not measured", bound, None, why)
    equal = math.isfinite(value) and abs(value - target) <= within
    return Check(name, f"{value:.6f}", bound, equal)
