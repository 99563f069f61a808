import json
import subprocess
import sys

import pytest

from components import gate
from components.gate import Check, GateError


@pytest.mark.parametrize(("at_most", "margin", "sign"), [(False, 0.1, ">="), (True, -0.1, "<=")])
def test_a_margin_is_positive_on_the_good_side(at_most: bool, margin: float, sign: str) -> None:
    check = Check("a rule", 0.6, 0.5, not at_most, at_most=at_most)
    assert check.margin == pytest.approx(margin)
    assert check.comparison == sign
    assert str(check) == f"a rule is 0.6000, must be {sign} 0.5000"


@pytest.mark.parametrize("threshold", [None, "at most 3 bytes"])
def test_without_a_number_for_a_threshold_there_is_no_margin(threshold: str | None) -> None:
    assert Check("a rule", 0.9, threshold, None).margin is None


@pytest.mark.parametrize(
    ("threshold", "beyond"), [(0.5, True), (0.55, False), (0.65, False), (0.66, True), (None, None)]
)
def test_a_threshold_lies_within_the_interval_or_not(
    threshold: float | None, beyond: bool | None
) -> None:
    check = Check("a rule", 0.6, threshold, None, interval=(0.55, 0.65))
    assert check.beyond_interval is beyond


def test_what_is_written_is_read() -> None:
    checks = [
        Check("größe", "3 bytes", "2 bytes", False, "Shrink it."),
        Check("accuracy", 0.5, 0.25, True, metric="accuracy", subject="cat", interval=(0.3, 0.7)),
        Check("drift", 0.5, None, None, at_most=True),
    ]
    assert [gate.parse(each) for each in json.loads(json.dumps(gate.to_json(checks)))] == checks


@pytest.mark.parametrize(
    "change", [{"value": None}, {"passed": "yes"}, {"interval": [1]}, {"more": 1}, {"note": 3}]
)
def test_what_is_no_check_is_refused(change: dict[str, object]) -> None:
    [entry] = gate.to_json([Check("a rule", 0.5, 0.5, True)])
    with pytest.raises(ValueError, match="a check must have a rule, a value, a threshold"):
        gate.parse({**entry, **change})
    for key in ("rule", "value", "threshold", "passed"):
        with pytest.raises(ValueError, match="a check must have"):
            gate.parse({name: value for name, value in entry.items() if name != key})


def test_an_error_lists_the_failed_checks_and_no_more_than_fit() -> None:
    failed = [Check(f"rule {n}", n / 100, 0.5, False) for n in range(22)]
    lines = str(GateError("two must hold", failed, "Mend it.")).splitlines()
    assert lines[0] == "two must hold:"
    assert lines[1] == "  rule 0 is 0.0000, must be >= 0.5000"
    assert lines[-2:] == ["  and 2 more", "Mend it."]
    assert len(lines) == 23


def test_that_a_gate_stopped_a_run_is_known_without_tfx() -> None:
    code = (
        "import sys, components.gate, components.drift_gate.drift; "
        "sys.exit(bool({'tfx', 'tensorflow', 'tensorflow_data_validation'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
