import numpy as np
import pytest

from examples import IMAGE_CONFIG, TABLE_CONFIG, TABLE_ROWS, analyze, example, picture


@pytest.fixture
def mixed_precision():
    """Keras's policy of mixed bfloat16, for models made within the test."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="session")
def image_records() -> list[bytes]:
    random = np.random.default_rng(0)
    records = []
    for i in range(40):
        light = i % 2
        value = int(random.integers(160, 256) if light else random.integers(0, 96))
        kind, mode = [("PNG", "RGB"), ("JPEG", "RGB"), ("BMP", "RGB"), ("PNG", "L")][i % 4]
        size = (8 + i % 3, 8 + i % 5)
        records.append(
            example(
                image=picture(value, size, kind, mode),
                label=b"light" if light else b"dark",
                file_name=f"{i}".encode(),
            )
        )
    return records


@pytest.fixture(scope="session")
def image_transform(tmp_path_factory):
    import tensorflow as tf

    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label", "file_name")}
    rows = [{"image": picture(9), "label": b"dark", "file_name": b"a"}]
    return analyze(tmp_path_factory.mktemp("image"), IMAGE_CONFIG, spec, rows)


@pytest.fixture(scope="session")
def table_transform(tmp_path_factory):
    import tensorflow as tf

    spec = {
        "miles": tf.io.VarLenFeature(tf.float32),
        "hour": tf.io.VarLenFeature(tf.int64),
        "company": tf.io.VarLenFeature(tf.string),
        "tips": tf.io.VarLenFeature(tf.float32),
        "fare": tf.io.VarLenFeature(tf.float32),
    }
    rows = [{k: [] if v is None else [v] for k, v in row.items()} for row in TABLE_ROWS]
    return analyze(tmp_path_factory.mktemp("table"), TABLE_CONFIG, spec, rows)
