import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import dialect
from trainer_module.util.checks import UserError

FRAME = pd.DataFrame(
    {
        "height in cm": [1.5, 1234.25, -0.5, None],
        "age": [30, 41, 7, 12345],
        "note": ['5" pipe', "a; b", "über\nzwei", "x, y\tz"],
        "label": ["yes", "no", "yes", "no"],
    }
)
PLAIN = [
    ["1.5", "30", '5" pipe', "yes"],
    ["1234.25", "41", "a; b", "no"],
    ["-0.5", "7", "über\nzwei", "yes"],
    ["", "12345", "x, y\tz", "no"],
]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"encoding": "utf-8-sig"}, ""),
        ({"lineterminator": "\r\n"}, ""),
        ({"quoting": csv.QUOTE_ALL}, ""),
        ({"quoting": csv.QUOTE_NONNUMERIC}, ""),
        ({"sep": ";"}, "semicolons between cells"),
        ({"sep": ";", "decimal": ","}, "semicolons between cells, decimal commas"),
        ({"sep": "\t", "encoding": "utf-16"}, "tabs between cells, UTF-16"),
        ({"sep": ";", "decimal": ",", "encoding": "utf-16-le"}, "semicolons.*UTF-16-LE"),
        ({"sep": "|", "encoding": "utf-16-be"}, "vertical bars between cells, UTF-16-BE"),
    ],
    ids=str,
)
def test_what_pandas_writes_is_read(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    file = tmp_path / "my.csv"
    FRAME.to_csv(file, index=False, **given)
    rows = [cells for _, cells in dialect.read(file)]
    assert rows == [list(FRAME.columns), *PLAIN]
    assert pd.Series([str(dialect.detect(file))]).str.fullmatch(words).all()


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    """Thousands are grouped; a program may put blanks after commas and lines above the header."""
    file = tmp_path / "my.csv"
    file.write_text("\n\nPreis;Ort\n1.234,50;Ulm\n-7.000;Bonn\n0,5;01.02.2024\n")
    rows = [["Preis", "Ort"], ["1234.50", "Ulm"], ["-7000", "Bonn"], ["0.5", "01.02.2024"]]
    assert [cells for _, cells in dialect.read(file)] == rows
    file.write_text('a, b\n1, "x, y"\n2.5, z\n')
    read = [(1, ["a", "b"]), (2, ["1", "x, y"]), (3, ["2.5", "z"])]
    assert list(dialect.read(file)) == read
    file.write_text(file.read_text().replace("\n", "\r"), newline="")
    assert list(dialect.read(file)) == read


cells = st.text(st.sampled_from('ab1,.;|\t"\n é-'), max_size=6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_table_of_the_csv_module_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], delimiter: str, quoting: int
) -> None:
    """Against the csv module, told how the file is written."""
    file = tmp_path_factory.mktemp("table") / "my.csv"
    how: Any = {"delimiter": delimiter, "quoting": quoting}
    text = io.StringIO(newline="")
    csv.writer(text, **how).writerows([["a", "b", "c"], *table])
    file.write_text(text.getvalue(), newline="")
    found = dialect.detect(file)
    assert found.delimiter == delimiter
    written = csv.reader(io.StringIO(text.getvalue(), newline=""), skipinitialspace=True, **how)
    expected = [[found.number(cell) for cell in row] for row in written]
    assert [cells for _, cells in dialect.read(file)] == expected


def test_an_encoding_of_eight_bits_is_refused_with_the_command(tmp_path: Path) -> None:
    file = tmp_path / "my.csv"
    file.write_text("name;label\nMüller;yes\n", "cp1252")
    with pytest.raises(UserError, match=r"iconv -f WINDOWS-1252 -t UTF-8 my\.csv"):
        list(dialect.read(file))
