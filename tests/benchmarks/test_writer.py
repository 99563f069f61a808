import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx.types import standard_artifacts

from benchmarks import writer
from components.image_example_gen.executor import Executor

pytestmark = pytest.mark.component


def records(*files) -> list[bytes]:
    """What files hold, each example with its features in a fixed order."""
    found = tf.data.TFRecordDataset([str(file) for file in files], compression_type="GZIP")
    examples = [tf.train.Example.FromString(record) for record in found.as_numpy_iterator()]
    return sorted(example.SerializeToString(deterministic=True) for example in examples)


@pytest.mark.parametrize("decode", [False, True])
def test_the_plain_writer_does_the_same_job(tmp_path, decode):
    data = tmp_path / "data"
    for i in range(60):
        path = data / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    writer.write(data, tmp_path / "plain.gz", decode)
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path / "examples")
    properties = {"input_base": str(data), "on_bad_image": "fail"}
    Executor().Do({}, {"examples": [artifact]}, properties)
    own = records(*(tmp_path / "examples").rglob("*.gz"))
    assert len(own) == 60
    assert records(tmp_path / "plain.gz") == own
