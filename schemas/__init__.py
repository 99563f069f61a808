"""Names of the features of image examples, and the schemas of data sets."""

from pathlib import Path

IMAGE = "image"
LABEL = "label"
FILE_NAME = "file_name"

ORIGINALS = "originals.tfrecord.gz"
"""Beside the splits of image examples: a sample of the files that were converted, as pairs of
tf.Examples, one with the stored image and one with the file itself."""

CLASSES_FILE = "assets.extra/classes.json"
"""In a SavedModel: the kind of its data, its classes in the order of its outputs, and of a table
the task and the column that holds the label."""


def committed(name: str) -> Path | None:
    """Returns the path of the schema of a data set (digits, cifar10, taxi), if it has one."""
    path = Path(__file__).with_name(f"{name}.pbtxt")
    return path if path.is_file() else None
