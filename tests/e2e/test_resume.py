"""A pipeline that is ended while it trains goes on where it was."""

import signal

import numpy as np
import pytest

from runs import interrupt, plateau, records
from trainer_module.util.preemption import EXIT_STATUS

pytestmark = pytest.mark.e2e


def logits(model, records_of):
    import tensorflow as tf

    raw = records(records_of.files("ImageExampleGen", "examples", "test"))
    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    return signature(examples=tf.constant(raw))["logits"].numpy()


def test_ended_twice_it_goes_on_to_the_same_model(first, tmp_path):
    output = tmp_path / "run"
    strikes = [("epoch  3", signal.SIGTERM, EXIT_STATUS), ("epoch  7", signal.SIGKILL, -9)]
    for after, number, status in strikes:
        assert interrupt("run", "digits", output=output, after=after, number=number) == status
        assert not (output / "pushed").exists()
    done = plateau("run", "digits", output=output)
    assert done.status == 0, done.out + done.err
    assert "resuming after epoch" in done.out
    assert done.component("Transform") == "cached"
    assert done.accuracy() == first.accuracy()
    expected = logits(first.pushed[0], first)
    np.testing.assert_array_equal(logits(done.pushed[0], first), expected)
