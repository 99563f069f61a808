from hypothesis import given
from hypothesis import strategies as st

from trainer_module.util.text import joined, listed, visible


def test_what_is_escaped() -> None:
    assert visible("\u202egpj.1") == r"\u202egpj.1"
    assert visible("a\x1b[31m\n") == r"a\x1b[31m\n"
    assert visible("a\n\tb\x07", keep="\n\t") == "a\n\tb\\x07"
    # Marks of Arabic and joiners of emoji belong to what is written.
    for text in ("žluťoučký", "\u200f\u05d0", "👨\u200d👩"):
        assert visible(text) == text


@given(st.text())
def test_nothing_else_changes(text: str) -> None:
    kept = "".join(c for c in text if c.isprintable())
    assert visible(kept) == kept
    assert not set("\u202d\u202e\u2066\x1b") & set(visible(text))


def test_values_are_listed_up_to_a_number() -> None:
    assert listed(["a", 2]) == "'a', 2"
    assert listed(range(1200), 2) == "0, 1 and 1,198 more"
    assert joined(["a", "b", "c"], 2, "; ", str.upper) == "A; B and 1 more"
