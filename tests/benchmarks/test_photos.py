import numpy as np
from PIL import Image

from benchmarks import photos


def test_the_script_trains_on_a_folder(tmp_path):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(10):
            folder = tmp_path / split / f"class {number}"
            folder.mkdir(parents=True)
            pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "0.png")
    curve = photos.script(tmp_path, 2)
    assert len(curve) == 2 and curve[0][0] < curve[1][0]
    assert all(0 <= accuracy <= 1 for _, accuracy in curve)


def test_a_row_says_when_an_accuracy_was_reached(hardware):
    curve = [(10.0, 0.5), (20.0, 0.66), (30.0, 0.64)]
    cells = photos.row(curve)
    assert cells == ["3", "0.6600", "20", "never", "30"]
    text = photos.page({"Keras script": [*cells, "", ""]}, photos.PhotosConfig(), hardware)
    assert "| Keras script | 3 | 0.6600 | 20 | never | 30 |" in text
    assert "python -m benchmarks.photos" in text
