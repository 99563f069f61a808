import keras
import pytest

from trainer_module.config import OptimizerConfig
from trainer_module.training.optimizer import build, describe, kind


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", keras.optimizers.SGD),
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
    ],
)
def test_builds_what_the_config_says(name, kind, decay):
    optimizer = build(OptimizerConfig(optimizer=name, learning_rate=0.25, weight_decay=decay))
    assert type(optimizer) is kind
    assert float(optimizer.learning_rate) == 0.25
    assert (optimizer.weight_decay or 0) == decay


def test_sgd_has_its_momentum():
    optimizer = build(OptimizerConfig(momentum=0.5, nesterov=True))
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.5, True, None)


class Mine(keras.optimizers.Adam):
    """Adam with something of its own."""


class Other(keras.optimizers.Optimizer):
    """A rule that Keras does not have."""


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (keras.optimizers.Adam(name="mine"), "Adam"),
        (keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "Adam"),
        (keras.optimizers.SGD(0.1, name="adam"), "SGD"),
        (keras.optimizers.Lamb(), "Lamb"),
        (Mine(), "Adam"),
        (Other(0.1), "Other"),
    ],
)
def test_the_kind_is_the_class_whatever_the_name(optimizer, name):
    assert kind(optimizer) == name


def test_a_description_holds_no_name():
    def make(name, rate=0.1):
        scaled = keras.optimizers.SGD(rate, momentum=0.5, name=name)
        return describe(keras.optimizers.LossScaleOptimizer(scaled, name=f"scaled_{name}"))

    assert make("a") == make("b") != make("a", rate=0.2)
    assert describe(keras.optimizers.Adam()) != describe(keras.optimizers.AdamW())
