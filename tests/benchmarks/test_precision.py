from types import SimpleNamespace

import keras
import numpy as np
import pytest

from benchmarks import precision
from benchmarks.cifar import Cifar
from benchmarks.settings import Settings
from trainer_module.models import registry
from trainer_module.training.precision import BFLOAT16, FLOAT32


@pytest.fixture
def pictures(monkeypatch):
    """Random pictures in place of the archive, as many as a quick run takes."""
    rng = np.random.default_rng(0)

    def split(count):
        x = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return x, rng.integers(0, 10, count).astype(np.int64)

    data = Cifar(*split(400), *split(256))
    monkeypatch.setattr("benchmarks.cifar.load", lambda path: data)


def test_both_precisions_run_the_same_course_once(pictures, tmp_path, monkeypatch):
    policies = []

    def build(*arguments):
        policies.append(keras.config.dtype_policy().name)
        return registry.build(*arguments)

    monkeypatch.setattr("benchmarks.contest.registry", SimpleNamespace(build=build))
    settings = Settings(quick=True, output=tmp_path)
    result = precision.measure(settings)
    assert policies == [FLOAT32, BFLOAT16]
    rows = {row.what: row for row in result.rows}
    assert rows[f"updates of a whole run, {BFLOAT16}"].values == (1.0,)
    lacks = rows[f"test accuracy that {BFLOAT16} lacks"]
    assert (lacks.against, lacks.reached) == (FLOAT32, None), "one seed is no evidence"
    assert (tmp_path / result.figure).exists()

    assert precision.measure(settings).rows == result.rows
    assert len(policies) == 2, "finished runs are read from their file"
