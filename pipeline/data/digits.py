"""The 1,797 handwritten digits that come with scikit-learn, as an image folder."""

import os
import shutil
import tempfile
from pathlib import Path

# Shares of the splits. Enough is held out for each of ten classes to be judged by itself.
_SPLITS = {"train": 0.6, "eval": 0.2, "test": 0.2}
_SEED = 0

TRAIN_EXAMPLES = 1078
"""Images in the split train."""


def write_digits(root: str | os.PathLike[str]) -> Path:
    """Writes `<root>/<split>/<class>/<number>.png`: 8 x 8 pixels, grey, 0 to 255.

    Train, eval and test get 60, 20 and 20 %, each class alike, the same on every machine. The
    folder is written atomically; an existing one stays as it is.

    Args:
        root: Folder to make.

    Returns:
        The folder.
    """
    root = Path(root)
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    try:
        _write(unfinished)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(root)
        except OSError:
            # Another process came first: both write the same images.
            if not root.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _write(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Intensities are 0 to 16.
    pixels = (digits.images * (255 / 16)).round().astype("uint8")
    labels = digits.target
    held_out = _SPLITS["eval"] + _SPLITS["test"]
    train, rest = train_test_split(
        range(len(labels)), test_size=held_out, stratify=labels, random_state=_SEED
    )
    evaluation, test = train_test_split(
        rest, test_size=_SPLITS["test"] / held_out, stratify=labels[rest], random_state=_SEED
    )
    for split, members in zip(_SPLITS, (train, evaluation, test), strict=True):
        for label in digits.target_names:
            (folder / split / str(label)).mkdir(parents=True)
        for i in members:
            path = folder / split / str(labels[i]) / f"{i:04d}.png"
            Image.fromarray(pixels[i]).save(path)
