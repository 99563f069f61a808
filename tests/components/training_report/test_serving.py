import json

import pytest

from components.servable import verdict
from components.servable.measurement import (
    Finding,
    Finished,
    Latency,
    Loaded,
    Measurement,
    Requests,
    Signature,
    Stage,
)
from components.servable.verdict import Ending, Evaluated, Limits
from components.training_report.serving import parse

LOADED = Loaded(0.5, "2.16.2", "CPU", "float32")
SIGNATURE = Signature("serving_default", "examples", {"examples": "string"}, {"scores": "float32"})
LATENCY = Latency("serving_default", 200, 1.0, 3.0)
MEASURED = [
    LOADED,
    SIGNATURE,
    Requests(64),
    Finding(verdict.ANSWERS),
    LATENCY,
    Finished(2.5),
]


def written(measured: list[Measurement], how: str = verdict.CLEAN, **limits: float) -> str:
    """What Servable writes of measurements."""
    evaluated = Evaluated(why_not="not given")
    checks = verdict.judge(measured, Ending(how), 1.25, Limits(**limits), evaluated)
    return json.dumps(verdict.result(checks, measured, "test", 1.25))


def test_a_good_model() -> None:
    found = parse(written(MEASURED, model_mib=2))
    assert found.failed == ()
    assert (found.signatures, found.latency) == ((SIGNATURE,), (LATENCY,))
    assert (found.model_mib, found.split, found.examples) == (1.25, "test", 64)
    assert found.platform == ("TensorFlow 2.16.2", "CPU", "float32")
    verdicts = [check.passed for check in found.checks]
    assert verdicts == sorted(verdicts, key=[True, None].index)


def test_failed_checks_come_first() -> None:
    found = parse(written(MEASURED, latency_ms_p99=2, model_mib=1))
    assert [check.rule for check in found.failed] == ["latency", "size"]
    assert found.checks[:2] == found.failed


def test_a_process_that_died_before_loading() -> None:
    found = parse(written([Stage("importing TensorFlow")], "signal SIGKILL"))
    assert [check.rule for check in found.failed] == ["process"]
    assert (found.platform, found.signatures, found.latency, found.examples) == ((), (), (), 0)


@pytest.mark.parametrize("content", ["{}", '{"version": 1}', "[]"])
def test_another_version_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="version must be 2, got"):
        parse(content)
