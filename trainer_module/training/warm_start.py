"""Warm start from the weights of an exported model."""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from trainer_module.util.checks import require

_WEIGHT = "variables/{}/.ATTRIBUTES/VARIABLE_VALUE"


def restore(model: keras.Model, directory: str) -> None:
    """Loads all weights and averages of a SavedModel that `export` wrote.

    Args:
        model: Model of the same network; left as it was if the weights do not fit.
        directory: Folder of the SavedModel.

    Raises:
        ValueError: Another network's weights, or no SavedModel of ours.
    """
    saved = tf.train.load_checkpoint(f"{directory}/variables/variables")
    shapes = saved.get_variable_to_shape_map()
    weights: list[npt.NDArray[Any]] = []
    while (name := _WEIGHT.format(len(weights))) in shapes:
        weights.append(saved.get_tensor(name))
    expected = [list(v.shape) for v in model.variables]
    require(
        [list(value.shape) for value in weights] == expected,
        f"a base model must have weights of the shapes {expected}, those of {model.name}",
        [list(value.shape) for value in weights],
        "Train without warm start, or with the network that the base model was trained with.",
    )
    for variable, value in zip(model.variables, weights, strict=True):
        variable.assign(value)


def digest(directory: str) -> bytes:
    """Returns a digest of the weights of a SavedModel."""
    sha = hashlib.sha256()
    for path in sorted(Path(directory, "variables").iterdir()):
        sha.update(path.read_bytes())
    return sha.digest()
