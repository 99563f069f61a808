"""Registry of models, by name or by the dotted path of a user's own builder."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer_module.config import MODELS, NetworkConfig
from trainer_module.util.checks import UserError, require

if TYPE_CHECKING:
    import keras

Builder = Callable[[tuple[int, ...], int, NetworkConfig], "keras.Model"]
"""From the shape of an example, such as (height, width, channels) of pixel values 0 to 255, the
number of classes, and the config, to a model that returns logits [N, num_classes]. A regression has
one, whose output is the standardised number."""


def build(input_shape: tuple[int, ...], num_classes: int, config: NetworkConfig) -> "keras.Model":
    """Builds a model from float32 [N, *input_shape] to logits [N, num_classes].

    Raises:
        UserError: No such model, or it does not return logits of that shape.
    """
    model = builder(config.model)(input_shape, num_classes, config)
    require(
        tuple(model.output_shape) == (None, num_classes),
        f"a model must return logits of shape (None, {num_classes})",
        model.output_shape,
        f"End {config.model} in a Dense({num_classes}) without activation.",
    )
    return model


def builder(name: str) -> Builder:
    """Returns the function that builds the model called `name`.

    Raises:
        UserError: `name` is neither built in nor the dotted path of a function.
    """
    path = f"trainer_module.models.{name}.build" if name in MODELS else name
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"`model` must be one of {', '.join(MODELS)} or the dotted path of an importable "
            f"function ({error})",
            name,
            "Try `model=cnn`, or put the folder of your module on PYTHONPATH.",
        ) from error
