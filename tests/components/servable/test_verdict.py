import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from components.gate import Check
from components.servable import verdict
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
from components.servable.verdict import CLEAN, Ending, Evaluated, Limits

LOADED = Loaded(0.25, "2.16.2", "CPU", "float32")
SIGNATURE = Signature("a", "examples", {"examples": "string [N]"}, {"y": "float32 [N, 2]"})
REFUSED = "InvalidArgumentError: Could not parse"
COMPARED = (verdict.SINGLE, verdict.SIGNATURES, verdict.SESSION, verdict.ORIGINALS)
GOOD: tuple[Measurement, ...] = (
    Stage("reading the examples"),
    LOADED,
    SIGNATURE,
    Requests(256),
    *(Finding(rule) for rule in verdict.RULES if rule not in COMPARED),
    *(Finding(rule, difference=1e-6) for rule in COMPARED),
    Finding(verdict.CORRUPT, refusal=REFUSED),
    Latency("a", 200, 1.5, 4.0),
    Predictions(400, 0.75, 0.75, 0.5, 0),
    Finished(3.0),
)
EVALUATED = Evaluated(0.75, 0.5, 400)
ENDED = Ending(CLEAN)
LIMITS = Limits(5.0, 2.0)
NAMES = [
    "process",
    "loads",
    "signatures",
    *verdict.RULES,
    "latency",
    "size",
    "accuracy",
    "accuracy by class name",
    "cross-entropy",
]


def judge(
    measurements: Sequence[Measurement] = GOOD,
    ending: Ending = ENDED,
    size_mib: float = 2.0,
    limits: Limits = LIMITS,
    evaluated: Evaluated = EVALUATED,
) -> dict[str, Check]:
    checks = verdict.judge(measurements, ending, size_mib, limits, evaluated)
    return {check.rule: check for check in checks}


def instead(*others: Any) -> list[Measurement]:
    """The good measurements, all of the others' kinds (of a finding: of its rule) replaced."""

    def kind(measurement: Measurement) -> object:
        return measurement.rule if isinstance(measurement, Finding) else type(measurement)

    kinds = {kind(other) for other in others}
    kept = [each for each in GOOD[:-1] if kind(each) not in kinds]
    return [*kept, *others, GOOD[-1]]


def without(*rules: str) -> list[Measurement]:
    return [each for each in GOOD if not (isinstance(each, Finding) and each.rule in rules)]


def test_all_is_well() -> None:
    checks = judge()
    assert {name: check.passed for name, check in checks.items()} == dict.fromkeys(NAMES, True)
    assert all(check.value and check.threshold for check in checks.values())
    assert checks["corrupt input"].value == "2 requests, 1 refused"
    assert checks["corrupt input"].note == REFUSED
    assert checks["batch of 1"].value == "1 outputs, different by up to 1e-06"
    assert str(checks["batch of 1"].threshold).endswith("within 0.0001")


@pytest.mark.parametrize("rule", verdict.RULES)
def test_a_problem_fails_its_rule_alone(rule: str) -> None:
    checks = judge(instead(Finding(rule), Finding(rule, "a, 1 row: E: no"), Finding(rule)))
    assert [name for name, check in checks.items() if check.passed is False] == [rule]
    assert checks[rule].value == "a, 1 row: E: no"
    assert bool(checks[rule].note) == (rule == verdict.SESSION)


@pytest.mark.parametrize(
    ("found", "name", "value"),
    [
        (
            instead(Latency("a", 200, 1.0, 5.01), Latency("b", 50, 1.0, 5.0)),
            "latency",
            "a p50 1.00 ms, p99 5.01 ms",
        ),
        (instead(Predictions(400, 0.74, 0.75, 0.5)), "accuracy", "0.740000"),
        (instead(Predictions(400, 0.75, 0.25, 0.5)), "accuracy by class name", "0.250000"),
        (instead(Predictions(400, 0.75, 0.75, 0.6)), "cross-entropy", "0.600000"),
        (instead(Predictions(400, 0.75, 0.75, float("nan"))), "cross-entropy", "nan"),
    ],
)
def test_one_rule_broken(found: list[Measurement], name: str, value: str) -> None:
    checks = judge(found)
    assert [each for each, check in checks.items() if check.passed is False] == [name]
    assert checks[name].value == value


@pytest.mark.parametrize(
    ("measured", "passed"), [(523.1, True), (523.12, True), (524.0, False), (math.nan, False)]
)
def test_errors_of_a_regression_are_those_evaluated(measured: float, passed: bool) -> None:
    """Within rounding relative to their size, and without an accuracy."""
    evaluated = Evaluated(examples=400, errors={"mean absolute error": 523.1})
    found = Predictions(400, errors={"mean absolute error": measured})
    checks = judge(instead(found), evaluated=evaluated)
    assert checks["mean absolute error"].passed is passed
    assert not any("accuracy" in name or "entropy" in name for name in checks)


@pytest.mark.parametrize(
    ("arithmetic", "device", "bound"),
    [
        ("float32", "CPU", 1e-4),
        ("float32", "GPU", 1e-2),
        ("bfloat16", "CPU", 5e-2),
        ("float16", "GPU", 5e-2),
    ],
)
def test_the_tolerance_is_that_of_the_arithmetic(
    arithmetic: str, device: str, bound: float
) -> None:
    assert verdict.tolerance(arithmetic, device) == bound
    loaded = replace(LOADED, arithmetic=arithmetic, device=device)
    for factor, passed in ((0.99, True), (1.01, False)):
        predictions = Predictions(400, 0.75, 0.75, 0.5 + bound * factor)
        assert judge(instead(loaded, predictions))["cross-entropy"].passed is passed


def test_near_ties_may_fall_either_way() -> None:
    two = Predictions(400, 0.745, 0.745, 0.5, near_ties=2)
    assert judge(instead(two))["accuracy"].passed
    assert "2 near ties" in judge(instead(two))["accuracy"].threshold
    assert judge(instead(replace(two, near_ties=1)))["accuracy"].passed is False


def test_metrics_as_float32_are_the_same() -> None:
    found = instead(Predictions(400, 0.9, 0.9, 0.5))
    assert judge(found, evaluated=Evaluated(0.8999999762, 0.5, 400))["accuracy"].passed


def test_without_limits_latency_and_size_are_only_measured() -> None:
    checks = judge(limits=Limits())
    values = {"latency": "a p50 1.50 ms, p99 4.00 ms", "size": "2.00 MiB"}
    for name, value in values.items():
        check = checks[name]
        assert (check.value, check.threshold, check.passed) == (value, "no limit", None)


@pytest.mark.parametrize(("size", "passed"), [(2.0, True), (2.01, False)])
def test_size(size: float, passed: bool) -> None:
    assert judge(size_mib=size)["size"].passed is passed


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("corrupt input", "no signature takes strings"),
        ("original files", "no file was converted"),
        ("signatures agree", "no two signatures give the same outputs"),
    ],
)
def test_what_does_not_apply_is_not_judged(name: str, note: str) -> None:
    check = judge(without(name))[name]
    assert (check.passed, check.value, check.note) == (None, "not measured", note)


def test_signatures_left_out_are_named() -> None:
    other = Signature("b", "", {}, {}, "it takes no input")
    check = judge(instead(SIGNATURE, other))["signatures"]
    assert check.passed
    assert check.value == "1 of 2 tried: a"
    assert check.note == "b left out: it takes no input"


def test_a_model_must_have_a_signature_to_try() -> None:
    alone = [LOADED, Signature("b", "", {}, {}, "it takes no input"), Requests(40), Finished(1.0)]
    checks = judge(alone, evaluated=Evaluated(why_not="no evaluation is given"))
    assert checks["signatures"].passed is False
    assert checks["signatures"].value == "b left out: it takes no input"
    assert checks["answers"].note == "there is no signature to try"
    checks = judge([LOADED, Requests(40), Finished(1.0)])
    assert checks["signatures"].value == "the model has no signatures"


def test_a_model_that_does_not_load() -> None:
    failed = replace(LOADED, error="OSError: no file")
    checks = judge([Stage("loading the model"), failed, Finished(1.0)])
    assert checks["loads"].passed is False
    assert checks["loads"].value == "OSError: no file"
    rest = [name for name in NAMES if name not in ("process", "loads", "size")][:-2]
    assert {(checks[name].passed, checks[name].note) for name in rest} == {
        (None, "the model does not load")
    }


def test_a_model_that_needs_keras_is_noted() -> None:
    check = judge(instead(replace(LOADED, keras=True)))["loads"]
    assert check.passed
    assert check.value == "in 0.25 s, with Keras"
    assert "only Keras" in check.note
    assert judge()["loads"].note == ""


@pytest.mark.parametrize("upto", range(len(GOOD)))
def test_a_process_that_ends_early_is_never_blessed(upto: int) -> None:
    checks = judge(GOOD[:upto], Ending("signal SIGKILL", "Killed"))
    assert checks["process"].passed is False
    assert checks["process"].note == "Killed"
    judged = {name for name, check in checks.items() if check.passed}
    assert judged <= {"loads", "size", "accuracy", "accuracy by class name", "cross-entropy"}


def test_a_process_that_dies_says_where() -> None:
    found = [LOADED, Stage("timing a")]
    assert judge(found, Ending("no end after 9 s"))["process"].value == (
        "no end after 9 s while timing a"
    )
    assert judge([], Ending("exit code 1"))["process"].value == "exit code 1 before it began"


def test_a_problem_before_the_process_died_fails_too() -> None:
    found = instead(Finding("answers", "a, 1 row: E: no"))[:-1]
    assert judge(found, Ending("signal SIGSEGV"))["answers"].passed is False


def test_dying_after_all_is_done_is_noted_only() -> None:
    check = judge(ending=Ending("signal SIGSEGV"))["process"]
    assert (check.passed, check.note) == (True, "then signal SIGSEGV")


def test_predictions_that_cannot_be_compared() -> None:
    why_not = Evaluated(why_not="no evaluation is given")
    unpredicted = [each for each in GOOD if not isinstance(each, Predictions)]
    checks = judge(unpredicted, evaluated=why_not)
    assert list(checks) == NAMES[: NAMES.index("accuracy") + 1]
    assert (checks["accuracy"].passed, checks["accuracy"].note) == (None, "no evaluation is given")
    checks = judge(instead(Predictions(0, error="there is no label")))
    assert (checks["accuracy"].passed, checks["accuracy"].note) == (None, "there is no label")


def test_the_evaluation_lacks_a_metric() -> None:
    checks = judge(evaluated=Evaluated(0.75, None, 400))
    assert checks["accuracy"].passed
    assert checks["cross-entropy"].passed is None
    assert checks["cross-entropy"].note == "the evaluation has no such metric"


def test_there_are_no_class_names() -> None:
    check = judge(instead(Predictions(400, 0.75, None, 0.5)))["accuracy by class name"]
    assert check.passed is None
    assert "do not both hold names" in check.note


def test_another_split_than_the_evaluated_one() -> None:
    checks = judge(evaluated=Evaluated(0.75, 0.5, 800))
    assert "accuracy" not in checks
    assert checks["examples"].passed is False
    assert "Give Servable the split" in checks["examples"].note


def test_many_problems_are_counted() -> None:
    found = instead(*(Finding("answers", f"s{i}: E: no") for i in range(8)))
    assert judge(found)["answers"].value.endswith("s4: E: no and 3 more")


def test_result_is_read_back_as_it_was_written() -> None:
    checks = list(judge().values())
    result = verdict.result(checks, GOOD, "test", 2.0)
    assert verdict.parse(json.dumps(asdict(result))) == result
    assert result.blessed
    assert result.checks == checks
    assert (result.split, result.examples, result.seconds) == ("test", 256, 3.0)
    assert result.latency == [Latency("a", 200, 1.5, 4.0)]
    assert result.signatures == [SIGNATURE]
    assert result.platform == ["TensorFlow 2.16.2", "CPU", "float32"]


def test_result_of_a_process_that_did_nothing() -> None:
    checks = list(judge([], Ending("exit code 1", "ImportError")).values())
    result = verdict.result(checks, [], "test", 2.0)
    assert not result.blessed
    assert [check.rule for check in result.failed] == ["process"]
    assert (result.examples, result.seconds, result.platform) == (0, None, [])
    assert verdict.parse(json.dumps(asdict(result))) == result


@pytest.mark.parametrize("content", ["{}", '{"version": 1}', "[]", "no JSON"])
def test_another_version_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        verdict.parse(content)
