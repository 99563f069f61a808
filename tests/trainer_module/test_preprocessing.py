import numpy as np
import pytest
import tensorflow as tf

from examples import IMAGE_CONFIG, TABLE_ROWS, picture
from trainer_module.config import ImageFeatures, TableFeatures
from trainer_module.preprocessing import _table_label, class_index, decode_images


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_becomes_the_same_tensor(kind, mode, channels):
    features = ImageFeatures(height=8, width=10, channels=channels)
    pixels = decode_images(tf.constant([picture(200, (20, 30), kind, mode)]), features).numpy()
    assert pixels.shape == (1, 8, 10, channels)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, 200, atol=2)


def test_pixels_are_whole_numbers_so_uint8_loses_nothing():
    random = np.random.default_rng(0).integers(0, 256, (23, 17, 3), np.uint8)
    encoded = tf.io.encode_png(random)[None]
    pixels = decode_images(encoded, IMAGE_CONFIG.features).numpy()
    np.testing.assert_array_equal(pixels, pixels.astype(np.uint8))


def test_a_picture_of_the_right_size_is_left_alone():
    random = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    pixels = decode_images(tf.io.encode_png(random)[None], IMAGE_CONFIG.features).numpy()
    np.testing.assert_array_equal(pixels[0], random)


def test_class_index_marks_a_label_that_is_no_class():
    index = class_index(tf.constant(["b", "a", "z", ""]), ("a", "b"))
    assert index.numpy().tolist() == [1, 0, -1, -1]


def test_image_graph_maps_raw_columns_to_input_and_label(image_transform):
    layer = image_transform.transform_features_layer()
    out = layer(
        {
            "image": tf.constant([picture(10), picture(250)]),
            "label": tf.constant(["dark", "light"]),
            "file_name": tf.constant(["a", "b"]),
        }
    )
    assert out["x"].shape == (2, 8, 8, 3)
    assert out["label_xf"].numpy().tolist() == [[0], [1]]


def table_columns():
    def sparse(name, dtype):
        present = [i for i, row in enumerate(TABLE_ROWS) if row[name] is not None]
        values = [TABLE_ROWS[i][name] for i in present]
        return tf.SparseTensor([[i, 0] for i in present], tf.constant(values, dtype), [4, 1])

    dtypes = {"hour": tf.int64, "company": tf.string}
    return {name: sparse(name, dtypes.get(name, tf.float32)) for name in TABLE_ROWS[0]}


def test_table_graph_scales_buckets_and_looks_up(table_transform):
    out = table_transform.transform_features_layer()(table_columns())
    x = out["x"].numpy()
    # miles: 1, 3, 5 and one missing; its z-score and whether it is there.
    deviation = np.std([1, 3, 5])
    np.testing.assert_allclose(x[:, 0], [-2 / deviation, 0, 2 / deviation, 0], rtol=1e-5)
    np.testing.assert_array_equal(x[:, 1], [1, 1, 1, 0])
    buckets, words = x[:, 2:5], x[:, 5:]
    np.testing.assert_array_equal(buckets.sum(1), 1)
    assert np.argmax(buckets, 1)[0] < np.argmax(buckets, 1)[2]
    np.testing.assert_array_equal(words.sum(1), 1)
    np.testing.assert_array_equal(words[0], words[1])
    assert not np.array_equal(words[0], words[2])


def test_table_label_is_whether_the_ratio_is_exceeded(table_transform):
    out = table_transform.transform_features_layer()(table_columns())
    # tips over fare: 0, 0.3, exactly 0.2 (not above), 0.9.
    assert out["label_xf"].numpy()[:, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("dtype", [tf.int64, tf.float32])
def test_whole_numbers_of_either_type_are_the_same_classes(dtype):
    values = tf.constant([-1, 0, 10, 2**24], dtype)
    sparse = tf.SparseTensor([[0, 0], [1, 0], [2, 0], [4, 0]], values, [5, 1])
    features = TableFeatures(numeric=("x",), label="y")
    classes = ("-1", "0", "10", str(2**24))
    for column, expected in ((values, [0, 1, 2, 3]), (sparse, [0, 1, 2, -1, 3])):
        labels = _table_label({"y": column}, features, classes)
        assert class_index(labels, classes).numpy().tolist() == expected


def test_an_unknown_word_falls_into_the_spare_bucket(table_transform):
    columns = table_columns()
    unknown = tf.SparseTensor([[i, 0] for i in range(4)], ["Z"] * 4, [4, 1])
    words = table_transform.transform_features_layer()(columns | {"company": unknown})["x"][:, 5:]
    seen = table_transform.transform_features_layer()(columns)["x"][:, 5:]
    assert np.argmax(words[0]) not in np.argmax(seen.numpy()[:3], 1)
