import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import normalization


def pictures(n=6):
    return tf.constant(np.random.default_rng(0).normal(2, 3, (n, 5, 4, 3)), tf.float32)


def normalized(x, **options):
    options = {"momentum": 0.7, **options}
    return keras.layers.BatchNormalization(**options)(x)


def network(**options):
    """A convolution, a normalisation whose weights are not those of the start, a dropout."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4, 3))
    x = normalized(keras.layers.Conv2D(4, 3, padding="same")(inputs), **options)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.5, seed=1)(x)))
    scattered(model)
    return model


def scattered(model):
    generator = np.random.default_rng(1)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(variable + generator.uniform(0.1, 0.5, variable.shape))


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def step(model, view, *, training=True, dtype=tf.float32):
    """Output, gradients and what the weights are after a pass."""
    with tf.GradientTape() as tape:
        output = view(tf.cast(pictures(), dtype), training=training)
        loss = tf.reduce_sum(tf.square(tf.cast(output, tf.float32)))
        loss += tf.add_n([0.0, *view.losses])
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    values = [output, *gradients, *[v.value for v in model.weights]]
    return [np.array(tf.cast(value, tf.float32)) for value in values]


def assert_alike(make, *, training=True, rtol=1e-4, atol=1e-4, replaced=True):
    theirs, ours = make(), make()
    view = normalization.fused(ours)
    assert (view is not ours) == replaced
    for mine, its in zip(
        step(ours, view, training=training), step(theirs, theirs, training=training), strict=True
    ):
        np.testing.assert_allclose(mine, its, rtol=rtol, atol=atol)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": False},
        {"center": False},
        {"epsilon": 0.1},
        {"axis": 3},
        {"trainable": False},
        {"gamma_regularizer": "l2"},
    ],
    ids=str,
)
def test_output_gradients_and_averages_are_those_of_keras(options, training):
    assert_alike(lambda: network(**options), training=training)


@pytest.mark.parametrize("options", [{"axis": 1}, {"epsilon": 1e-6}, {"synchronized": True}])
def test_what_the_kernel_does_not_do_keras_does(options):
    model = network(**options)
    assert normalization.fused(model) is model


def test_a_table_is_left_to_keras():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, normalized(inputs))
    assert normalization.fused(model) is model


def test_one_picture_of_one_pixel():
    def make():
        inputs = keras.Input((None, None, 3))
        return keras.Model(inputs, normalized(inputs))

    theirs, ours = make(), make()
    x = tf.ones((1, 1, 1, 3))
    np.testing.assert_allclose(
        normalization.fused(ours)(x, training=True), theirs(x, training=True), atol=1e-6
    )
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-6)


def test_in_mixed_precision_as_close_as_bfloat16_is():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert_alike(network, rtol=0.1, atol=0.2)
    finally:
        keras.config.set_dtype_policy(before)


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
    assert normalization.fused(model) is model


def test_a_model_of_another_class_computes_by_its_own_rule():
    inputs = keras.Input((5, 4, 3))
    model = Shifted(inputs, normalized(inputs))
    assert normalization.fused(model) is model


def sequential():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model.build((None, 5, 4, 3))
    scattered(model)
    return model


def nested():
    keras.utils.set_random_seed(0)
    inner_inputs = keras.Input((5, 4, 3))
    inner = keras.Model(inner_inputs, normalized(inner_inputs))
    inputs = keras.Input((5, 4, 3))
    shared = keras.layers.BatchNormalization()
    x = shared(inner(shared(inputs)))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.Sequential([inner])(x)))
    scattered(model)
    return model


@pytest.mark.parametrize("make", [sequential, nested])
def test_models_of_any_build(make):
    assert_alike(make, atol=1e-3)


def test_inputs_and_outputs_by_name():
    a, b = keras.Input((5, 4, 3), name="a"), keras.Input((5, 4, 3), name="b")
    model = keras.Model({"a": a, "b": b}, {"sum": normalized(a) + b, "b": b})
    given = {"a": pictures(), "b": pictures()}
    ours, theirs = normalization.fused(model)(given), model(given)
    assert ours.keys() == theirs.keys() == {"sum", "b"}
    np.testing.assert_allclose(ours["sum"], theirs["sum"], rtol=1e-5, atol=1e-5)


def test_the_model_itself_stays_as_it_was():
    model = network()
    model.compile(keras.optimizers.Adam(), "mse")
    config, before = model.to_json(), [id(v) for v in model.variables]
    view = normalization.fused(model)
    assert "_FusedBatchNormalization" in kinds(view)
    assert "_FusedBatchNormalization" not in kinds(model)
    assert (model.to_json(), [id(v) for v in model.variables]) == (config, before)
    assert {id(v) for v in view.variables} <= set(before)
    # A part of it can still be taken for another model.
    keras.Model(model.input, model.layers[-3].output)(pictures())


def test_its_graph_has_the_kernel_and_no_other_normalisation():
    model = network()
    view = normalization.fused(model)
    graph = tf.function(lambda x: view(x, training=True)).get_concrete_function(pictures()).graph
    kernels = [op.type for op in graph.get_operations()]
    assert kernels.count("FusedBatchNormV3") == 1
    assert "SquaredDifference" not in kernels
