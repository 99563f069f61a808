"""Dates of ISO 8601 in a graph."""

from typing import NamedTuple

import tensorflow as tf

from schemas.columns import DATE

_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Dates(NamedTuple):
    """Parts of dates, each [N]; those of 1970-01-01 for a text that is no date."""

    day: tf.Tensor
    """Days since 1970-01-01, int32."""
    time: tf.Tensor
    """Time of day as a fraction of the day, float32; 0 where there is none."""
    month: tf.Tensor
    """Month from 1, int32."""
    known: tf.Tensor
    """Whether the text is a date, bool."""


def parse(texts: tf.Tensor) -> Dates:
    """Returns the parts of dates of the form of `schemas.columns.DATE`: string [N]."""
    known = tf.strings.regex_full_match(texts, DATE)

    def number(start: int, length: int) -> tf.Tensor:
        # A short text is filled up, since its end may lack the time.
        digits = tf.strings.substr(tf.strings.join([texts, filled]), start, length)
        is_number = tf.strings.regex_full_match(digits, "[0-9]+")
        return tf.strings.to_number(tf.where(is_number & known, digits, "0"), tf.int32)

    filled = tf.fill(tf.shape(texts), " " * 16)
    year, month, day = number(0, 4), tf.maximum(number(5, 2), 1), number(8, 2)
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    length = tf.gather(_LENGTHS, month - 1) + tf.cast(is_leap & (month == 2), tf.int32)
    known &= day <= length
    year, month, day = (
        tf.where(known, part, first) for part, first in ((year, 1970), (month, 1), (day, 1))
    )
    seconds = number(11, 2) * 3600 + number(14, 2) * 60
    # Days from the civil date, in years that begin in March (Hinnant, "chrono-Compatible Low-Level
    # Date Algorithms").
    shifted = year - tf.cast(month <= 2, tf.int32)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    leap_days = shifted // 4 - shifted // 100 + shifted // 400
    days = 365 * shifted + leap_days + day_of_year - 719468
    time = tf.where(known, tf.cast(seconds, tf.float32) / 86400, 0.0)
    return Dates(days, time, month, known)
