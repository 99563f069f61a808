from datetime import date, datetime

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer_module.serving import dates


@settings(deadline=None)
@given(st.lists(st.one_of(st.dates(), st.datetimes()), min_size=1, max_size=20), st.booleans())
def test_days_are_those_of_the_calendar(moments: list[date | datetime], spaced: bool) -> None:
    texts = [str(m) if spaced else m.isoformat() for m in moments]
    parts = [part.numpy() for part in dates.parse(tf.constant(texts))]
    for moment, day, time, month, known in zip(moments, *parts, strict=True):
        minutes = 60 * moment.hour + moment.minute if isinstance(moment, datetime) else 0
        assert known and day == moment.toordinal() - date(1970, 1, 1).toordinal()
        assert time == pytest.approx(minutes / 1440, abs=1e-6)
        assert month == moment.month


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-1-1",
        "31.01.2026",
        "2026-13-01",
        "2026-01-32",
        "2023-02-29",
        "x2026-01-01",
        "NA",
    ],
)
def test_what_is_no_date(text: str) -> None:
    parts = dates.parse(tf.constant([text, "1970-02-01 12:00"]))
    assert [part.numpy().tolist() for part in parts] == [[0, 31], [0, 0.5], [1, 2], [False, True]]
