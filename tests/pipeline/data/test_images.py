import io
import itertools
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import presets
from pipeline.cli.arguments import Arguments
from pipeline.data import images
from trainer_module.config import ImageFeatures


def save(folder: Path, size: tuple[int, int], count: int = 4, **changes: object) -> Path:
    """Images of noise in two classes; `mode`, `suffix` and `orientation` may change."""
    random = np.random.default_rng(0)
    for name in changes.get("classes", ("cat", "dog")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = random.integers(0, 255, (size[1], size[0], 3), np.uint8)
            if changes.get("grey"):
                pixels = np.repeat(pixels[..., :1], 3, axis=2)
            image = Image.fromarray(pixels).convert(str(changes.get("mode", "RGB")))
            exif = Image.Exif()
            exif[0x0112] = changes.get("orientation", 1)
            image.save(folder / name / f"{i}.{changes.get('suffix', 'png')}", exif=exif)
    return folder


@pytest.mark.parametrize(
    ("size", "changes", "trained"),
    [
        ((32, 32), {}, (32, 32, 3)),
        ((28, 28), {"mode": "L"}, (28, 28, 1)),
        ((28, 28), {"grey": True}, (28, 28, 1)),
        # A JPEG of grey pixels that was saved in colour.
        ((64, 64), {"grey": True, "suffix": "jpg"}, (64, 64, 1)),
        ((640, 480), {"suffix": "jpg"}, (96, 128, 3)),
        # A phone's portrait, stored on its side.
        ((640, 480), {"suffix": "jpg", "orientation": 6}, (128, 96, 3)),
        ((200, 3), {}, (8, 128, 3)),
    ],
)
def test_images_are_trained_on_at_their_own_size_and_colour(
    tmp_path: Path, size: tuple[int, int], changes: dict[str, object], trained: tuple[int, ...]
) -> None:
    features = images.look(save(tmp_path, size, **changes)).features
    assert (features.height, features.width, features.channels) == trained


def test_one_image_in_colour_is_enough(tmp_path: Path) -> None:
    save(tmp_path, (16, 16), 8, grey=True)
    save(tmp_path / "cat", (16, 16), 1, classes=("deeper",))
    assert images.look(tmp_path).channels == 3


def test_a_file_that_cannot_be_read_decides_nothing(tmp_path: Path) -> None:
    save(tmp_path, (48, 48), 3, mode="L")
    content = io.BytesIO()
    Image.new("RGB", (900, 900)).save(content, "PNG")
    (tmp_path / "cat" / "cut.png").write_bytes(content.getvalue()[:100])
    (tmp_path / "dog" / "text.jpg").write_text("no image")
    look = images.look(tmp_path)
    assert (look.height, look.width, look.channels, look.count) == (48, 48, 1, 8)


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text("no image")
    assert images.look(tmp_path).features == ImageFeatures(augment="light")


def test_a_small_file_of_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    save(tmp_path, (48, 48), 2, mode="L")
    # 81 million pixels in a few kilobytes.
    Image.new("1", (9000, 9000)).save(tmp_path / "cat" / "bomb.png")
    tracemalloc.start()
    look = images.look(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (look.height, look.channels) == (48, 1)
    assert peak < 10 * 2**20


@pytest.mark.parametrize(
    ("classes", "flipped"),
    [
        (("0", "1", "2"), False),
        (("A", "b", "ß"), False),
        (("6", "nine"), True),
        (("10", "11"), True),
        (("cat", "dog"), True),
    ],
)
def test_symbols_are_not_flipped(tmp_path: Path, classes: tuple[str, ...], flipped: bool) -> None:
    look = images.look(save(tmp_path, (8, 8), 1, classes=classes))
    assert look.features.flip == flipped
    line = look.describe(look.features)
    assert ("; not flipped, since the classes are symbols" in line) != flipped
    assert line.startswith(
        f"{len(classes)} images of about 8 x 8, colour: trained at 8 x 8, colour"
    )


def test_batch_and_width_follow_number_and_size(tmp_path: Path) -> None:
    features = images.look(save(tmp_path, (32, 32))).features
    batches = [
        presets.of_images(features, count).loop.batch_size for count in (50, 1360, 5000, 10**6)
    ]
    assert batches == [8, 8, 32, 64]
    assert presets.of_images(features, 50).network.width_multiplier == 1
    large = images.Look(10, 500, 500, 3, False).features
    assert presets.of_images(large, 50).network.width_multiplier == 0.5


def test_a_folder_of_images_sets_the_defaults_and_flags_the_rest(tmp_path: Path) -> None:
    folder = save(tmp_path, (28, 24), 200, mode="L", classes=("3", "5"))
    words = ["--data", str(folder), "--width", "32"]
    arguments = Arguments("run", "runs", words)
    config = arguments.read_preset(lambda preset: preset)
    assert arguments.look is not None and arguments.look.count == 400
    assert config.features == ImageFeatures(
        height=24, width=32, channels=1, augment="light", flip=False
    )
    assert config.loop.batch_size == 8
    # A folder that breaks a rule is named by the run.
    missing = Arguments("run", "runs", ["--data", str(tmp_path / "none")])
    assert missing.read_preset(lambda preset: preset).features == presets.images().features


@pytest.mark.parametrize(
    ("archive", "every", "side"),
    [("flowers17.tar.gz", 60, 128), ("cifar10-images.tar.gz", 300, 32)],
)
def test_photos_that_somebody_else_took(
    shared_data: Path, tmp_path: Path, archive: str, every: int, side: int
) -> None:
    with tarfile.open(shared_data / archive) as opened:
        images_of = (m for m in opened if m.name.endswith((".jpg", ".jpeg")))
        for member in itertools.islice(images_of, 0, 20 * every, every):
            opened.extract(member, tmp_path, filter="data")
    (root,) = {path.parents[1] for path in tmp_path.rglob("*.jpg")}
    look = images.look(root)
    assert (look.count, look.channels, look.has_symbols) == (20, 3, False)
    assert max(look.features.height, look.features.width) == side
