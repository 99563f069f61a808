import keras
import pytest

from trainer_module.config import OptimizerConfig
from trainer_module.optimizer import build


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", keras.optimizers.SGD),
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
    ],
)
def test_builds_what_the_config_says(name, kind):
    optimizer = build(OptimizerConfig(optimizer=name, learning_rate=0.25, weight_decay=0.01))
    assert type(optimizer) is kind
    assert float(optimizer.learning_rate) == 0.25
    assert optimizer.weight_decay == 0.01


def test_sgd_has_its_momentum():
    optimizer = build(OptimizerConfig(momentum=0.5, nesterov=True))
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.5, True, None)
