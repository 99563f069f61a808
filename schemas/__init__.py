"""The data contract: names of the features every image example carries, and schemas by data set."""

from pathlib import Path

IMAGE = "image"
LABEL = "label"
FILE_NAME = "file_name"


def committed(name: str) -> Path | None:
    """Path of the schema committed for a data set (digits, cifar10, taxi), if there is one."""
    path = Path(__file__).with_name(f"{name}.pbtxt")
    return path if path.is_file() else None
