import inspect
import keyword
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import columns
from schemas.columns import Input, served_names

# Few letters, so that names become equal after cleaning.
NAMES = st.lists(
    st.text(max_size=12)
    | st.text("aA_ -1é%", max_size=4)
    | st.sampled_from(["self", "a_2", *keyword.kwlist]),
    unique=True,
    max_size=12,
)


@given(NAMES)
def test_any_different_names_give_valid_and_unique_ones(names):
    served = served_names(names)
    assert list(served) == names
    assert len({name.casefold() for name in served.values()}) == len(names)
    for name in served.values():
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)
        assert name != "self"
        # TensorFlow makes a parameter of each input.
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)


@given(NAMES)
def test_what_is_served_is_served_by_the_same_names(names):
    served = list(served_names(names).values())
    assert list(served_names(served).values()) == served


@pytest.mark.parametrize(
    ("names", "served"),
    [
        (["trip_miles", "Age", "class"], ["trip_miles", "Age", "class_"]),
        (["petal width (cm)", "% fat", "_id"], ["petal_width_cm", "fat", "id"]),
        (["Größe", "naïve", "Ångström"], ["Grosse", "naive", "Angstrom"]),
        (["self", "self_"], ["self__2", "self_"]),
        (["a b", "a_b", "A_B"], ["a_b_3", "a_b", "A_B_2"]),
        (["1st", "", "价格", "$"], ["column_1st", "column", "column_2", "column_3"]),
        (["a.b", "a-b", "a/b"], ["a_b", "a_b_2", "a_b_3"]),
    ],
)
def test_names(names, served):
    assert list(served_names(names).values()) == served


def test_what_is_written_is_read():
    inputs = {"n": Input("ñ", "int64", columns.MISSING_INTEGER), "x": Input("x", "float32", None)}
    assert columns.parse(columns.to_json(inputs)) == inputs
    for content in ("[]", '{"x": {"column": "x"}}', "no JSON"):
        with pytest.raises(ValueError):
            columns.parse(content)
