import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import parameter


@given(st.text(), st.integers(1, 2000))
def test_a_text_comes_back(text: str, times: int) -> None:
    assert parameter.text(parameter.compressed(text * times)) == text * times


def test_a_short_text_stays_readable() -> None:
    assert parameter.compressed("feature { name: 'x' }") == "feature { name: 'x' }"


def test_four_thousand_names_without_any_pattern_fit_in_an_argument() -> None:
    letters = random.Random(0).choices(string.ascii_lowercase, k=4000 * 20)
    names = ["".join(letters[start : start + 20]) for start in range(0, len(letters), 20)]
    assert len(parameter.compressed("\n".join(f'value: "{name}"' for name in names))) < 80_000


def test_a_damaged_parameter_is_refused() -> None:
    whole = parameter.compressed("a" * 10_000)
    with pytest.raises(ValueError, match="must be complete"):
        parameter.text(whole[:-8])
