"""View of a model that computes the same by faster kernels."""

from typing import Any

import keras

from trainer_module.kernels import batch_normalization, convolution


def of(model: keras.Model) -> keras.Model:
    """Returns a view of a model in which kernels replace layers.

    All layers, weights, random states and losses are the model's own; outputs and gradients are
    equal to float tolerance, those of training and moving averages included. A model or a layer
    of a class that is not Keras's is left as it is, for it may compute by another rule.

    Args:
        model: Any built model.

    Returns:
        The view; the model itself if there is nothing to replace.
    """
    if not _has_graph(model) or not any(map(_replacement, _layers(model))):
        return model
    # The clone of a compiled model would get an optimizer with slots of its own.
    bare = keras.Model(*_ends(model), name=model.name)
    return keras.models.clone_model(bare, clone_function=_replaced)


def _replaced(layer: keras.Layer) -> keras.Layer:
    if replacement := _replacement(layer):
        return replacement(layer)
    return of(layer) if isinstance(layer, keras.Model) else layer


def _replacement(layer: keras.Layer) -> type[keras.Layer] | None:
    # An operation of a graph is no layer; what a layer adds to the loss by its outputs, it adds
    # when it is called itself.
    if not isinstance(layer, keras.Layer) or not layer.built or layer.activity_regularizer:
        return None
    if batch_normalization.replaceable(layer):
        return batch_normalization.Fused
    return convolution.Products if convolution.replaceable(layer) else None


def _layers(model: keras.Model) -> list[keras.Layer]:
    """Returns the layers of a model and of the models in it."""
    inner = [
        deeper
        for layer in model.layers
        if isinstance(layer, keras.Model) and _has_graph(layer)
        for deeper in _layers(layer)
    ]
    return [*model.layers, *inner]


def _has_graph(model: keras.Model) -> bool:
    """Returns True if the model does what its graph of layers says and nothing else."""
    return type(model).__module__.startswith("keras.") and bool(getattr(model, "inputs", None))


def _ends(model: keras.Model) -> tuple[Any, Any]:
    """Returns inputs and outputs in the structure of a call."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output
