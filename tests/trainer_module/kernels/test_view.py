import keras
import numpy as np
import pytest

from tests.trainer_module.views import assert_alike, pictures, scattered
from trainer_module.kernels import view


def normalized(x, **options):
    return keras.layers.BatchNormalization(**options)(x)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


class Doubled(keras.layers.BatchNormalization):
    """Another rule."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class Shifted(keras.Model):
    """A model whose graph is not all that it computes."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask) + 1


def test_a_layer_of_another_class_computes_by_its_own_rule():
    inputs = keras.Input((5, 4, 3))
    model = keras.Model(inputs, Doubled()(inputs))
    assert view.of(model) is model


def test_a_model_of_another_class_computes_by_its_own_rule():
    inputs = keras.Input((5, 4, 3))
    model = Shifted(inputs, normalized(inputs))
    assert view.of(model) is model


def test_what_a_layer_adds_to_the_loss_by_its_outputs_is_not_lost():
    inputs = keras.Input((5, 4, 3))
    model = keras.Model(inputs, normalized(inputs, activity_regularizer="l2"))
    assert view.of(model) is model


def sequential():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model.build((None, 5, 4, 3))
    return scattered(model)


def nested():
    keras.utils.set_random_seed(0)
    inner_inputs = keras.Input((5, 4, 3))
    inner = keras.Model(inner_inputs, normalized(inner_inputs))
    inputs = keras.Input((5, 4, 3))
    shared = keras.layers.BatchNormalization()
    x = shared(inner(shared(inputs)))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.Sequential([inner])(x)))
    return scattered(model)


@pytest.mark.parametrize("make", [sequential, nested])
def test_models_of_any_build(make):
    assert_alike(make, pictures(), atol=1e-3)


def test_inputs_and_outputs_by_name():
    a, b = keras.Input((5, 4, 3), name="a"), keras.Input((5, 4, 3), name="b")
    model = keras.Model({"a": a, "b": b}, {"sum": normalized(a) + b, "b": b})
    given = {"a": pictures(), "b": pictures()}
    ours, theirs = view.of(model)(given), model(given)
    assert ours.keys() == theirs.keys() == {"sum", "b"}
    np.testing.assert_allclose(ours["sum"], theirs["sum"], rtol=1e-5, atol=1e-5)


def test_the_model_itself_stays_as_it_was():
    inputs = keras.Input((5, 4, 3))
    x = normalized(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model.compile(keras.optimizers.Adam(), "mse")
    config, before = model.to_json(), [id(v) for v in model.variables]
    through = view.of(model)
    assert "Fused" in kinds(through)
    assert "Fused" not in kinds(model)
    assert (model.to_json(), [id(v) for v in model.variables]) == (config, before)
    assert {id(v) for v in through.variables} <= set(before)
    # A part of it can still be taken for another model.
    keras.Model(model.input, model.layers[-3].output)(pictures())
