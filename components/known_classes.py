"""Task and classes of an exported model, and the gate on replacing a model of another task."""

import json
from pathlib import Path
from typing import NamedTuple

import schemas
from components.gate import Check, GateError
from trainer_module.config import Features, ImageFeatures
from trainer_module.util.checks import UserError
from trainer_module.util.text import listed


class Known(NamedTuple):
    """What an exported model predicts.

    Attributes:
        kind: Kind of its data: "images" or "table".
        classes: Class names in the order of its outputs; none for a regression.
        label: Column of a table that holds the label; None for images, for a label that is made of
            several columns, and in models of earlier versions.
        task: "classification" or "regression".
    """

    kind: str
    classes: tuple[str, ...]
    label: str | None = None
    task: str = "classification"

    @property
    def _meaning(self) -> tuple[str, ...]:
        """What the outputs stand for."""
        return (self.label or "",) if self.task == "regression" else self.classes

    def may_replace(self, old: "Known") -> bool:
        """Returns whether the outputs stand for the same; those of images may be in any order."""
        kinds = {(self.kind, self.task), (old.kind, old.task)}
        if self.kind == "images":
            return len(kinds) == 1 and set(self.classes) == set(old.classes)
        return len(kinds) == 1 and self._meaning == old._meaning

    def __str__(self) -> str:
        """Kind, and classes or the number's column."""
        meaning = f"number {self.label}" if self.task == "regression" else listed(self.classes)
        return f"{self.kind}, {meaning}"


def of(features: Features, classes: tuple[str, ...]) -> Known:
    """Returns what the export of a model with these features and classes writes."""
    if isinstance(features, ImageFeatures):
        return Known("images", classes)
    return Known("table", classes, features.label, features.task)


def read(model: Path) -> Known | None:
    """Reads what the Trainer's export wrote beside the graph; None where it wrote nothing.

    Args:
        model: Folder of a SavedModel.

    Raises:
        UserError: The file is damaged.
    """
    file = model / schemas.CLASSES_FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text("utf-8"))
        return Known(
            str(content["kind"]),
            tuple(map(str, content["classes"])),
            content.get("label"),
            # Models of earlier versions are all classifiers.
            str(content.get("task", "classification")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        rule = f"the classes of a model must be a readable {schemas.CLASSES_FILE} ({error})"
        raise UserError(rule, str(file), "Push the model again, or remove the file.") from error


def check(model: Path, new: Known, *, allow_change: bool) -> None:
    """Checks that a model may replace one that is pushed.

    Two tables must have the same classes in the same order: where the label is derived, its order
    says what a class means, and the evaluation knows the classes of a table by their index alone.
    Two regressions must predict the same column.

    Args:
        model: Folder of the SavedModel that would be replaced or compared with.
        new: Classes of the new model.
        allow_change: Whether a model of images may have other classes, and whether a model that
            recorded none may be replaced.

    Raises:
        GateError: The classes differ and may not.
    """
    old = read(model)
    images = old is not None and old.kind == new.kind == "images"
    if old is not None and new.may_replace(old):
        return
    may_change = images or old is None
    if may_change and allow_change:
        return
    remedy = "To keep both models, push to another folder (`output`, or the parameter pushed)."
    if may_change:
        remedy = f"To replace it, set `allow_class_change`. {remedy}"
    failed = Check(
        f"classes of {model}",
        "not recorded" if old is None else str(old),
        str(new),
        passed=False,
    )
    raise GateError("a model may only replace one that knows the same classes", [failed], remedy)
