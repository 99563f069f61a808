"""Preprocessing graph that training, evaluation and serving share.

TFX reloads this module by its dotted name: it holds functions only.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

import schemas
from schemas import parameter
from trainer_module.config import ImageFeatures, TableFeatures, TrainConfig, is_regression
from trainer_module.serving import dates, decoding

INPUT = "x"
LABEL = "label_xf"
CONFIG_KEY = "preprocessing"


def preprocessing_fn(
    inputs: Mapping[str, Any], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Returns the model's input and the label.

    Args:
        inputs: Raw columns by name, each [N], [N, 1] or sparse.
        custom_config: `TrainConfig.preprocessing_json()` under "preprocessing", compressed if it is
            long.

    Returns:
        "x": float32, [N, height, width, channels] of whole numbers 0 to 255 for images and
        [N, D] for tables; "label_xf" [N, 1]: the index of the class, int64, or -1 for a label that
        is no class; for a regression the label itself, float32, or NaN where there is none.
    """
    config = TrainConfig.from_json(parameter.text(custom_config[CONFIG_KEY]))
    if isinstance(config.features, ImageFeatures):
        x = decode_images(_column(inputs[schemas.IMAGE], ""), config.features)
        labels = _column(inputs[schemas.LABEL], "")
    else:
        x = _table(inputs, config.features)
        if is_regression(config.features):
            number, _ = _numeric(inputs[config.features.label])
            return {INPUT: x, LABEL: number[:, None]}
        labels = _table_label(inputs, config.features, config.classes)
    return {INPUT: x, LABEL: class_index(labels, config.classes)[:, None]}


def decode_images(encoded: tf.Tensor, features: ImageFeatures) -> tf.Tensor:
    """Decodes and resizes images: upright by EXIF orientation, composed on white.

    Pixels are rounded to whole numbers, so that keeping them as uint8 loses nothing.

    Args:
        encoded: String [N], PNG, JPEG, GIF (first frame) or BMP.
        features: Target size.

    Returns:
        float32 [N, height, width, channels], 0 to 255.
    """
    size = [features.height, features.width]

    def decode(example: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, transparent, orientation = example
        # Decoded as colour and made grey afterwards: BMP and GIF have no grey decoder.
        image = decoding.decode(data, transparent)
        # Turned when it is small: a copy of a large image takes time and memory.
        stored = tf.where(orientation >= 5, size[::-1], size)
        image = tf.image.resize(image, stored, antialias=True)
        turn = functools.partial(decoding.upright, image, orientation)
        image = tf.ensure_shape(tf.cond(orientation > 1, turn, lambda: image), [*size, 3])
        if features.channels == 1:
            image = tf.image.rgb_to_grayscale(image)
        return tf.clip_by_value(tf.round(image), 0.0, 255.0)

    header = decoding.header(encoded)
    return tf.map_fn(
        decode,
        (encoded, header.transparent, header.orientation),
        fn_output_signature=tf.TensorSpec([*size, features.channels], tf.float32),
    )


def class_index(labels: tf.Tensor, classes: tuple[str, ...]) -> tf.Tensor:
    """Returns the class index of each label, -1 where there is none: string [N] -> int64 [N]."""
    matches = tf.equal(labels[:, None], tf.constant(classes)[None, :])
    return tf.where(tf.reduce_any(matches, axis=1), tf.argmax(matches, axis=1), -1)


def _column(values: Any, default: Any) -> tf.Tensor:
    """Returns one value a row, [N], missing ones filled."""
    if isinstance(values, tf.SparseTensor):
        shape = [values.dense_shape[0], 1]
        first = tf.SparseTensor(values.indices, values.values, shape)
        values = tf.sparse.to_dense(first, default)
    return tf.reshape(values, [-1])


def _table(inputs: Mapping[str, Any], features: TableFeatures) -> tf.Tensor:
    parts = []
    for name in features.numeric:
        column, known = _numeric(inputs[name])
        scaled = tft.scale_to_z_score(column)
        parts += [tf.where(known, scaled, 0.0)[:, None], tf.cast(known, tf.float32)[:, None]]
    for name in features.bucketized:
        column, known = _numeric(inputs[name])
        bucket = tft.bucketize(column, features.buckets)
        hot = tf.one_hot(bucket, features.buckets)
        parts.append(tf.where(known[:, None], hot, 0.0))
    for name in features.categorical:
        column = _text(inputs[name])
        index = tft.compute_and_apply_vocabulary(
            column, top_k=features.vocabulary_size, num_oov_buckets=1
        )
        parts.append(tf.one_hot(index, features.vocabulary_size + 1))
    for name in features.dates:
        parts.append(_date(_column(inputs[name], "")))
    return tf.concat(parts, axis=1)


def _date(texts: tf.Tensor) -> tf.Tensor:
    """Returns a date's day, scaled, month, weekday and time on circles, and whether it is known."""
    date = dates.parse(texts)
    day, month = tf.cast(date.day, tf.float32), tf.cast(date.month, tf.float32)
    # 1970-01-01 was a Thursday.
    turns = tf.stack([(month - 1) / 12, (day + 3) % 7 / 7, date.time], axis=1) * (2 * math.pi)
    scaled = tft.scale_to_z_score(tf.where(date.known, day + date.time, float("nan")))
    columns = tf.concat([scaled[:, None], tf.sin(turns), tf.cos(turns)], axis=1)
    known = date.known[:, None]
    return tf.concat([tf.where(known, columns, 0.0), tf.cast(known, tf.float32)], axis=1)


def _numeric(values: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the column as float32 [N], and whether each value is known: bool [N]."""
    # `tf.cast` takes sparse tensors too.
    column = _column(tf.cast(values, tf.float32), float("nan"))
    # The analyzers skip NaN, so a missing value shifts neither mean nor quantiles.
    return column, tf.math.is_finite(column)


def _text(values: Any) -> tf.Tensor:
    if values.dtype != tf.string:
        # A missing number becomes an empty text, not "0".
        if isinstance(values, tf.SparseTensor):
            values = tf.sparse.map_values(tf.strings.as_string, values)
        else:
            values = tf.strings.as_string(values)
    return _column(values, "")


def _table_label(
    inputs: Mapping[str, Any], features: TableFeatures, classes: tuple[str, ...]
) -> tf.Tensor:
    if features.label_over is None:
        labels = inputs[features.label]
        if not labels.dtype.is_floating:
            return _text(labels)
        number, known = _numeric(labels)
        whole = tf.logical_and(known, number == tf.round(number))
        return tf.where(whole, tf.strings.as_string(tf.cast(number, tf.int64)), "")
    value, value_known = _numeric(inputs[features.label])
    base, base_known = _numeric(inputs[features.label_over])
    above = tf.cast(value > base * features.label_ratio, tf.int32)
    known = tf.logical_and(value_known, base_known)
    return tf.where(known, tf.gather(tf.constant(classes), above), "")
