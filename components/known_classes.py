"""The classes that an exported model knows, and the gate on a push over a model of other ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import schemas
from components.gate import Check, GateError
from trainer_module.config import Features, ImageFeatures

_NAMED = 10


class Known(NamedTuple):
    """What an exported model says of itself.

    Attributes:
        kind: Kind of its data: "images" or "table".
        classes: Class names in the order of its outputs.
        label: Column of a table that holds the class; None for images, for a label that is made of
            several columns, and in models of earlier versions.
    """

    kind: str
    classes: tuple[str, ...]
    label: str | None = None


def of(features: Features, classes: tuple[str, ...]) -> Known:
    """Returns what the export of a model with these features and classes writes."""
    return Known("images" if isinstance(features, ImageFeatures) else "table", classes)


def read(model: Path) -> Known | None:
    """Reads what the Trainer's export wrote beside the graph; None where it wrote nothing.

    Args:
        model: Folder of a SavedModel.

    Raises:
        ValueError: The file is damaged.
    """
    file = model / schemas.CLASSES_FILE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
        label = found.get("label")
        return Known(str(found["kind"]), tuple(map(str, found["classes"])), label)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the classes of a model must be a readable {schemas.CLASSES_FILE}, got {file} "
            f"({type(error).__name__}: {error}). Push the model again, or remove the file."
        ) from error


def check(model: Path, new: Known, *, allow_change: bool) -> None:
    """Refuses to let a model take the place of one that knows other classes.

    Two tables must have the same classes in the same order: where the label is derived, its order
    says what a class means, and the evaluation knows the classes of a table by their index alone.

    Args:
        model: Folder of the SavedModel that would be replaced or compared with.
        new: The model to come.
        allow_change: Whether a model of images may have other classes, and whether a model that
            recorded none may be replaced.

    Raises:
        GateError: The classes differ and may not.
    """
    old = read(model)
    images = old is not None and old.kind == new.kind == "images"
    same = old is not None and (old.kind, old.classes) == (new.kind, new.classes)
    if same or (images and old and set(old.classes) == set(new.classes)):
        return
    may_change = images or old is None
    if may_change and allow_change:
        return
    remedy = "To keep both models, push to another folder (--output, or the parameter pushed)."
    if may_change:
        remedy = f"To replace it, add --allow-class-change. {remedy}"
    failed = Check(
        f"classes of {model}",
        "not recorded" if old is None else f"{old.kind}, {_listed(old.classes)}",
        f"{new.kind}, {_listed(new.classes)}",
        passed=False,
    )
    raise GateError(
        "a model may only take the place of one that knows the same classes", [failed], remedy
    )


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
    return f"{', '.join(classes[:_NAMED])}{more}"
