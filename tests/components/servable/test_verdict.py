from collections.abc import Sequence
from typing import Any

import pytest

from components import gate
from components.gate import Check
from components.servable import verdict
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
    Read,
    Requests,
    Session,
    Signature,
    Stage,
)
from components.servable.verdict import CLEAN, Ending, Evaluated, Limits

LOADED = Loaded(0.25, "2.16.2", "CPU", "float32")
SIGNATURE = Signature("a", "examples", {"examples": "string [N]"}, {"y": "float32 [N, 2]"})
REFUSED = "InvalidArgumentError: Could not parse"
GOOD: tuple[Measurement, ...] = (
    Stage("reading the examples"),
    Read(300),
    LOADED,
    SIGNATURE,
    Requests(256),
    Answer("a", 1),
    Output("a", 1, "y", "float32", [1, 2], "float32", [None, 2], 2, 0),
    Answer("a", 256),
    Output("a", 256, "y", "float32", [256, 2], "float32", [None, 2], 512, 0),
    Answer("a", 0),
    Difference("single", "a", "", "y", 1e-6, 0, 32),
    Difference("signatures", "a", "b", "y", 1e-6, 0, 512),
    Difference("session", "a", "", "y", 0.0, 0, 512),
    Session(),
    Corrupt("a", "random characters as examples", True, REFUSED, True, "", True),
    Original("a", "a/1.tiff", size=20, largest=1e-6),
    Original("a", "a/2.gif", REFUSED, True),
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
    "answers",
    "shapes and types",
    "finite",
    "empty batch",
    "batch of 1",
    "signatures agree",
    "session",
    "corrupt input",
    "original files",
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
    """The good measurements, all of the others' kinds replaced by them."""
    kinds = tuple({type(other) for other in others})
    kept = [found for found in GOOD if not isinstance(found, kinds)]
    return [*kept[:-1], *others, kept[-1]] if Finished not in kinds else [*kept, *others]


def without(*kinds: type[Any]) -> list[Measurement]:
    return [found for found in GOOD if not isinstance(found, kinds)]


def states(checks: dict[str, Check]) -> dict[str, bool | None]:
    return {name: check.passed for name, check in checks.items()}


def told(check: Check) -> tuple[object, ...]:
    return check.value, check.threshold, check.passed


def test_all_is_well() -> None:
    checks = judge()
    assert states(checks) == dict.fromkeys(NAMES, True)
    assert verdict.blessed(list(checks.values()))
    assert all(check.value and check.threshold for check in checks.values())
    assert checks["corrupt input"].note == REFUSED


@pytest.mark.parametrize(
    ("found", "name", "value"),
    [
        (
            instead(Answer("a", 1), Answer("a", 256, "E: no"), Answer("a", 0)),
            "answers",
            "a, 256 rows: E: no",
        ),
        (instead(Answer("a", 1, "E: no", True), Answer("a", 256)), "answers", "a, 1 row: E: no"),
        (
            instead(Answer("a", 1), Answer("a", 0, "ValueError: none")),
            "empty batch",
            "a: ValueError: none",
        ),
        (
            instead(Output("a", 256, "y", "float32", [256, 2], "float32", [None, 2], 512, 3)),
            "finite",
            "a, 256 rows: 3 of 512 values of y",
        ),
        (
            instead(Difference("single", "a", "", "y", 2e-4, 0, 32)),
            "batch of 1",
            "a: y differs by up to 0.0002",
        ),
        (
            instead(Difference("single", "a", "", "y", float("inf"), 0, 32)),
            "batch of 1",
            "a: y differs by up to inf",
        ),
        (
            instead(Difference("single", "a", "", "y", 0.0, 2, 32)),
            "batch of 1",
            "a: 2 of 32 values of y differ",
        ),
        (
            instead(Difference("signatures", "a", "b", "y", 0.5, 0, 32)),
            "signatures agree",
            "a and b: y differs by up to 0.5",
        ),
        (
            instead(Difference("session", "a", "", "y", 0.5, 0, 32)),
            "session",
            "a: y differs by up to 0.5",
        ),
        (
            instead(Session("FailedPreconditionError: no variable")),
            "session",
            "FailedPreconditionError: no variable",
        ),
        (
            instead(Corrupt("a", "rubbish", True, "", False, "", True)),
            "corrupt input",
            "a, rubbish: answered as if it were good",
        ),
        (
            instead(Corrupt("a", "rubbish", True, "KeyError: 3", False, "", True)),
            "corrupt input",
            "a, rubbish: KeyError: 3",
        ),
        (
            instead(Corrupt("a", "rubbish", True, REFUSED, True, "E: broke", False)),
            "corrupt input",
            "a, rubbish: then a good request raised E: broke",
        ),
        (
            instead(Original("a", "b/3.png", unequal=1, size=3)),
            "original files",
            "a, b/3.png: 1 of 3 values differ",
        ),
        (
            instead(Original("a", "b/3.png", largest=0.5, size=3)),
            "original files",
            "a, b/3.png: differs by up to 0.5",
        ),
        (
            instead(Original("a", "b/3.png", "KeyError: 3")),
            "original files",
            "a, b/3.png: KeyError: 3",
        ),
        (
            instead(Corrupt("a", "rubbish", True, REFUSED, True, "", False)),
            "corrupt input",
            "a, rubbish: then a good request was answered otherwise",
        ),
        (
            instead(Latency("a", 200, 1.0, 5.01), Latency("b", 50, 1.0, 4.0)),
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
    assert not verdict.blessed(list(checks.values()))


@pytest.mark.parametrize(
    ("dtype", "shape", "declared", "as_declared"),
    [
        ("float32", [256, 2], [None, 2], True),
        ("float32", [256, 7], [None, None], True),
        ("float32", [2], [2], True),
        ("float32", [3, 1], None, True),
        ("float32", [], [], True),
        ("float64", [256, 2], [None, 2], False),
        ("float32", [255, 2], [None, 2], False),
        ("float32", [256, 3], [None, 2], False),
        ("float32", [256], [None, 2], False),
        ("float32", [], [None], False),
    ],
)
def test_shapes_and_types(
    dtype: str, shape: list[int], declared: list[int | None] | None, as_declared: bool
) -> None:
    found = instead(Output("a", 256, "y", dtype, shape, "float32", declared, 1, 0))
    check = judge(found)["shapes and types"]
    assert check.passed is as_declared
    if not as_declared:
        assert check.value.startswith(f"a, 256 rows: y is {dtype} {shape}, not float32")


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
    for factor, passed in ((0.99, True), (1.01, False)):
        loaded = LOADED._replace(arithmetic=arithmetic, device=device)
        difference = Difference("single", "a", "", "y", bound * factor, 0, 32)
        assert judge(instead(loaded, difference))["batch of 1"].passed is passed


def test_near_ties_may_fall_either_way() -> None:
    two = Predictions(400, 0.745, 0.745, 0.5, near_ties=2)
    assert judge(instead(two))["accuracy"].passed
    assert "2 near ties" in judge(instead(two))["accuracy"].threshold
    assert judge(instead(two._replace(near_ties=1)))["accuracy"].passed is False


def test_metrics_as_float32_are_the_same() -> None:
    found = instead(Predictions(400, 0.9, 0.9, 0.5))
    assert judge(found, evaluated=Evaluated(0.8999999762, 0.5, 400))["accuracy"].passed


def test_an_empty_batch_may_be_refused_clearly() -> None:
    found = instead(Answer("a", 1), Answer("a", 256), Answer("a", 0, REFUSED, True))
    check = judge(found)["empty batch"]
    assert (check.passed, check.note) == (True, f"a: {REFUSED}")


def test_strings_that_need_be_no_picture_may_be_answered() -> None:
    found = instead(Corrupt("a", "rubbish as brand", False, "", False, "", True))
    assert judge(found)["corrupt input"].passed


def test_original_files_are_counted() -> None:
    check = judge()["original files"]
    assert check.value == "1 requests answered alike, 1 refused"
    assert check.note == REFUSED


def test_without_limits_the_numbers_are_told() -> None:
    checks = judge(limits=Limits())
    assert told(checks["latency"]) == ("a p50 1.50 ms, p99 4.00 ms", "no limit", None)
    assert told(checks["size"]) == ("2.00 MiB", "no limit", None)
    assert verdict.blessed(list(checks.values()))


@pytest.mark.parametrize(("size", "passed"), [(2.0, True), (2.01, False)])
def test_size(size: float, passed: bool) -> None:
    assert judge(size_mib=size)["size"].passed is passed


@pytest.mark.parametrize(
    ("kind", "name", "note"),
    [
        (Corrupt, "corrupt input", "no signature takes strings"),
        (Original, "original files", "no file was converted"),
        (Difference, "signatures agree", "no two signatures give the same outputs"),
    ],
)
def test_what_does_not_apply_is_not_judged(kind: type[Any], name: str, note: str) -> None:
    check = judge(without(kind))[name]
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
    failed = LOADED._replace(error="OSError: no file")
    checks = judge([Stage("loading the model"), failed, Finished(1.0)])
    assert checks["loads"].passed is False
    assert checks["loads"].value == "OSError: no file"
    rest = [name for name in NAMES if name not in ("process", "loads", "size")][:-2]
    assert {(checks[name].passed, checks[name].note) for name in rest} == {
        (None, "the model does not load")
    }


def test_keras_is_told_of() -> None:
    check = judge(instead(LOADED._replace(keras=True)))["loads"]
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


def test_what_is_broken_before_the_end_is_told_too() -> None:
    found = [*instead(Answer("a", 1, "E: no"))[:-1]]
    checks = judge(found, Ending("signal SIGSEGV"))
    assert checks["answers"].passed is False


def test_dying_after_all_is_done_is_noted_only() -> None:
    check = judge(ending=Ending("signal SIGSEGV"))["process"]
    assert (check.passed, check.note) == (True, "then signal SIGSEGV")


def test_no_evaluation() -> None:
    checks = judge(without(Predictions), evaluated=Evaluated(why_not="no evaluation is given"))
    assert list(checks) == NAMES[: NAMES.index("accuracy") + 1]
    assert (checks["accuracy"].passed, checks["accuracy"].note) == (None, "no evaluation is given")


def test_predictions_that_cannot_be_compared() -> None:
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
    found = instead(*(Answer(f"s{i}", 1, "E: no") for i in range(8)))
    assert judge(found)["answers"].value.endswith("s4, 1 row: E: no; and 3 more")


def test_result() -> None:
    checks = list(judge().values())
    result = verdict.result(checks, GOOD, "test", 2.0)
    assert result["blessed"] is True
    assert [gate.parse(check) for check in result["checks"]] == checks
    assert (result["split"], result["examples"], result["seconds"]) == ("test", 256, 3.0)
    assert result["latency"] == [{"signature": "a", "requests": 200, "p50_ms": 1.5, "p99_ms": 4.0}]
    assert [each["name"] for each in result["signatures"]] == ["a"]
    assert (result["tensorflow"], result["device"]) == ("2.16.2", "CPU")


def test_result_of_a_process_that_did_nothing() -> None:
    checks = list(judge([], Ending("exit code 1", "ImportError")).values())
    result = verdict.result(checks, [], "test", 2.0)
    assert result["blessed"] is False
    assert (result["examples"], result["seconds"], result["device"]) == (0, None, None)
