import shutil
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest
import tfx

import schemas
from pipeline import presets
from pipeline.data import schema as contract
from pipeline.data.csv_check import check_table, count_rows
from trainer_module.config import TableFeatures
from trainer_module.util.checks import UserError

SCHEMA = """
feature { name: "age" type: INT int_domain { min: 0 max: 150 } presence { min_count: 1 } }
feature { name: "weight" type: FLOAT presence { min_fraction: 1.0 min_count: 1 } }
feature { name: "note" type: BYTES }
feature { name: "town" type: BYTES presence { min_count: 1 }
          domain: "town" distribution_constraints { min_domain_mass: 0.5 } }
feature { name: "label" type: BYTES domain: "label" presence { min_fraction: 1.0 } }
string_domain { name: "label" value: "yes" value: "no" }
string_domain { name: "town" value: "Ulm" }
"""
COLUMNS = TableFeatures(numeric=("age", "weight"), categorical=("note", "town"))
HEADER = "age,weight,note,town,label\n"
GOOD = HEADER + "30,1.5,,Ulm,yes\n\n,2,some,Bonn,no\n"


def check(folder: Path, *tables: str | bytes) -> int:
    data = folder / "data"
    data.mkdir()
    for i, table in enumerate(tables):
        content = table if isinstance(table, bytes) else table.encode()
        (data / f"{i}.csv").write_bytes(content)
    schema = folder / "schema.pbtxt"
    schema.write_text(SCHEMA)
    return check_table(data, schema, COLUMNS)


def test_good_tables(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD, GOOD) == 4
    (tmp_path / "data" / "README.md").write_text("not a table")
    assert check_table(tmp_path / "data", tmp_path / "schema.pbtxt", COLUMNS) == 4


def test_crlf_quotes_and_long_texts(tmp_path: Path) -> None:
    table = HEADER + '30,1.5,"a, ""b""\nžluťoučký",Ulm,yes\n'
    assert check(tmp_path, table.replace("\n", "\r\n")) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"0\.csv, row 1: .*must have a header"),
        (HEADER, "must have rows"),
        ("age,weight,note\n", r"0\.csv, row 1: each column .* without town, label"),
        (GOOD.replace("age", "x"), "row 1: each column that is used .* without age"),
        (HEADER.replace("note", "age"), "row 1: each column that is used .* without note"),
        (
            GOOD + "x,1,,Ulm,no\n",
            "row 5, column 'age': it must be a whole number of 64 bits, .* got 'x'",
        ),
        (
            GOOD + "1.5,1,,Ulm,no\n",
            "row 5, column 'age': it must be a whole number of 64 bits, .* got '1.5'",
        ),
        (
            GOOD + "151,1,,Ulm,no\n",
            "row 5, column 'age': .* at least 0 and at most 150, got '151'",
        ),
        (GOOD + "1,heavy,,Ulm,no\n", "column 'weight': it must be a number, got 'heavy'"),
        (GOOD + "1,,,Ulm,no\n", "column 'weight': it may not be empty, got ''"),
        (GOOD + "1,1,,Ulm,maybe\n", "column 'label': it must be one of 'no', 'yes', got 'maybe'"),
        (GOOD + "1,1,,Ulm\n", "row 5: each row must have 5 cells, got 4"),
        (GOOD + "1,1,,Ulm,no,\n", "row 5: each row must have 5 cells, got 6"),
        (GOOD.encode() + b"1,1,\xff,Ulm,no\n", "must be UTF-8"),
        (HEADER + "1,2.5,7,Ulm,no\n", "column 'note': a column of type BYTES must hold a value"),
        (GOOD + f"{2**63},1,,Ulm,no\n", "column 'age': it must be a whole number of 64 bits"),
        (GOOD + "1,1,a\rb,Ulm,no\n", "row 5: each row must have 5 cells, got 3"),
        (GOOD + '1,1,"a"b,Ulm,no\n', "row 5: a row must be readable .*Put double quotes"),
        (GOOD + '1,1,"a,Ulm,no\n', "row 5: a row must be readable .*end of data"),
        (GOOD + "1,1,\0,Ulm,no\n", "row 5: a row may hold no NUL characters"),
        (GOOD.replace("note", "no\0te", 1), "row 1: a row may hold no NUL"),
        (GOOD + f"1,1,{'x' * 131_073},Ulm,no\n", "row 5: a cell may have at most 131,072 char"),
        (GOOD + "\u0661,1,,Ulm,no\n", "row 5, column 'age': it must be a whole number"),
        (GOOD + "1" * 5000 + ",1,,Ulm,no\n", "column 'age': it must be a whole number"),
        (GOOD.encode() + "1,1,é,Ulm,no\n".encode("latin-1"), "iconv -f WINDOWS-1252 -t UTF-8 0"),
    ],
)
def test_broken_rules(tmp_path: Path, table: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(tmp_path, table)


def test_a_row_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    """A quote without its partner, below which everything is one cell."""
    tracemalloc.start()
    try:
        for text, most in (("1,1,a\n", "cell .* 131,072"), ("x", "line .* 16,777,216")):
            with pytest.raises(UserError, match=f"a {most} characters"):
                check(tmp_path, GOOD + '1,1,"' + text * (20 * 1024**2 // len(text)))
            shutil.rmtree(tmp_path / "data")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The text is that of this test.
    assert peak < 400 * 1024**2


def test_numbers_of_every_kind(tmp_path: Path) -> None:
    odd = ("inf", "-Infinity", "1e300", "1_000.5", " 2.5 ", "1e-400", "9" * 400 + ".0")
    assert check(tmp_path, GOOD + "".join(f"1,{number},,Ulm,no\n" for number in odd)) == 9


def test_a_long_cell_is_shown_in_part(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        check(tmp_path, GOOD + "x" * 100_000 + ",1,,Ulm,no\n")
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1.CSV", r"must end in \.csv, in small letters, got .*1\.CSV"),
        (".1.csv", r"must not be hidden, .*\.1\.csv"),
    ],
)
def test_files_that_csv_example_gen_sees_or_misses(tmp_path: Path, name: str, message: str) -> None:
    check(tmp_path, GOOD)
    (tmp_path / "data" / name).write_text(GOOD)
    with pytest.raises(UserError, match=message):
        check_table(tmp_path / "data", tmp_path / "schema.pbtxt", COLUMNS)


def test_a_folder_named_like_a_table(tmp_path: Path) -> None:
    check(tmp_path, GOOD)
    (tmp_path / "data" / "old.csv").mkdir()
    with pytest.raises(UserError, match=r"named like a table must be a file, got .*old\.csv"):
        check_table(tmp_path / "data", tmp_path / "schema.pbtxt", COLUMNS)


def test_links_of_tables(tmp_path: Path) -> None:
    check(tmp_path, GOOD)
    link = tmp_path / "data" / "1.csv"
    link.symlink_to("0.csv")
    assert check_table(tmp_path / "data", tmp_path / "schema.pbtxt", COLUMNS) == 4
    (tmp_path / "secret.csv").write_text(GOOD)
    for target in (tmp_path / "secret.csv", link, tmp_path / "gone.csv"):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(UserError, match=r"not behind a link, got .*1\.csv"):
            check_table(tmp_path / "data", tmp_path / "schema.pbtxt", COLUMNS)


def test_a_path_that_would_be_a_pattern(tmp_path: Path) -> None:
    check(tmp_path, GOOD)
    for name in ("data[1]", "what?", "all*"):
        with pytest.raises(
            UserError, match=r"path of a run on a table may hold none of .*`output`"
        ):
            check_table(tmp_path / "data", tmp_path / "schema.pbtxt", COLUMNS, copy=tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [b"feature { struct_domain { " * 2000, b'feature { name: "\\377" }', b"\xff", b"\0"],
    ids=["deep", "no UTF-8 within", "no UTF-8", "NUL"],
)
def test_schemas_that_cannot_be_read(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "schema.pbtxt").write_bytes(text)
    with pytest.raises(UserError, match=r"readable TFMD schema as text, got .* Check `schema`"):
        contract.read(tmp_path / "schema.pbtxt")


def test_a_schema_has_a_bound(tmp_path: Path) -> None:
    with (tmp_path / "schema.pbtxt").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(UserError, match="more than 16,777,216 bytes"):
        contract.read(tmp_path / "schema.pbtxt")


def test_the_message_names_the_file_among_many(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data/1\.csv, row 2, column 'age'"):
        check(tmp_path, GOOD, HEADER + "x,1,,Ulm,no\n", GOOD)


def test_files_with_their_columns_in_another_order(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"1\.csv, row 1: all files must have the columns of 0\.csv"
    ):
        check(tmp_path, GOOD, "weight,age,note,town,label\n")


def test_no_folder_no_table_no_schema(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got 'nothing'"):
        check_table(tmp_path / "missing", tmp_path, COLUMNS)
    with pytest.raises(UserError, match=r"must hold a \.csv file"):
        check(tmp_path)
    (tmp_path / "data" / "0.csv").write_text(GOOD)
    (tmp_path / "schema.pbtxt").write_text("feature {")
    with pytest.raises(UserError, match="readable TFMD schema"):
        check_table(tmp_path / "data", tmp_path / "schema.pbtxt", COLUMNS)


def test_rows_are_counted_without_looking_at_values(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD, GOOD) == 4
    (tmp_path / "data" / "2.csv").write_text(HEADER + 'x,y,"a\nb",,\n')
    (tmp_path / "data" / "3.csv").write_text("")
    assert count_rows(tmp_path / "data") == 5


@pytest.mark.parametrize(
    ("label_type", "rows", "message"),
    [
        (
            "BYTES",
            "1.5,no\n2.5,maybe\n",
            r"row 3, column 'label': .*one of 'no', 'yes', got 'maybe'",
        ),
        ("INT", "1.5,0\n2.5,2\n", r"row 3, column 'label': .*one of '0', '1', got '2'"),
        ("INT", "1.5,0\n2.5,01\n", None),
        ("INT", "1.5,0.0\n2.5,1.0\n", None),
        ("FLOAT", "1.5,0\n2.5,1.0\n", None),
        ("FLOAT", "1.5,0\n2.5,0.5\n", r"row 3, column 'label': .*one of '0', '1', got '0.5'"),
    ],
)
def test_a_label_that_is_no_class(
    tmp_path: Path, label_type: str, rows: str, message: str | None
) -> None:
    (tmp_path / "0.csv").write_text("x,label\n" + rows)
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(
        f'feature {{ name: "x" type: FLOAT }} feature {{ name: "label" type: {label_type} }}'
    )
    features = TableFeatures(numeric=("x",))
    classes = ("no", "yes") if label_type == "BYTES" else ("0", "1")
    if message is None:
        assert check_table(tmp_path, schema, features, classes) == 2
        return
    with pytest.raises(UserError, match=message + ".*`classes`"):
        check_table(tmp_path, schema, features, classes)


USED = """
feature { name: "x" type: FLOAT float_domain { min: 0 } }
feature { name: "n" type: INT int_domain { min: 1 max: 1234567 } }
feature { name: "label" type: BYTES }
feature { name: "odd" type: INT presence { min_fraction: 1 } }
"""
FEATURES = TableFeatures(numeric=("x", "n"))


def check_used(
    folder: Path, table: str, features: TableFeatures = FEATURES, schema: str = USED, **given: str
) -> int:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/0.csv").write_text(table)
    (folder / "schema.pbtxt").write_text(schema)
    return check_table(
        folder / "data",
        folder / "schema.pbtxt",
        features,
        ("no", "yes"),
        **given,  # type: ignore[arg-type]
    )


def test_columns_that_no_feature_uses_never_stop_a_run(tmp_path: Path) -> None:
    """Whatever they hold, however they are called, in the schema or not."""
    unused = ("odd", "new", "", "", "same", "same", " blank", "% 'é")
    header = ",".join(("\ufeff", *unused, "x", "n", "label"))
    rows = [f"{i},not a number,,,{i},,,{i},z,1.5,1,no\n" for i in range(3)]
    assert check_used(tmp_path, f"{header}\n{''.join(rows)}") == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "x,label\n1.5,no\n",
            "row 1: each column that is used must be in the file, got 'x,label without n'",
        ),
        ("x,n,n,label\n1.5,1,1,no\n", "column names must differ, got .'n'"),
        (
            "x,n,label\n-1.5,1,no\n",
            r"'x': it must be at least 0\.0 and at most inf, got '-1\.5'",
        ),
        ("x,n,label\n1.5,1234568,no\n", "it must be at least 1 and at most 1234567, got '1234568'"),
    ],
)
def test_columns_that_a_feature_uses(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_used(tmp_path, table)


def test_rows_without_a_label_are_named_at_once_or_left_out(tmp_path: Path) -> None:
    rows = ["2.5,1,no\n"] + [f"1.5,1,{'' if i % 3 == 0 else 'yes'}\n" for i in range(100)]
    table = "x,n,label\n" + "".join(rows)
    message = (
        r"data: each row must have a label in the column 'label', got '34 of 101 rows without: "
        r"0\.csv:3, 0\.csv:6, .* 0\.csv:60 and 14 more'\. .*`on_missing_label=skip`"
    )
    with pytest.raises(UserError, match=message):
        check_used(tmp_path, table)
    assert check_used(tmp_path, table, on_missing_label="skip") == 67
    with pytest.raises(UserError, match="some row must have a label"):
        check_used(tmp_path, "x,n,label\n1.5,1,\n2.5,1,\n", on_missing_label="skip")
    # What is left out is read with the others, so that it has to be right.
    with pytest.raises(UserError, match="row 2, column 'n': it must be a whole number"):
        check_used(tmp_path, "x,n,label\n1.5,one,\n2.5,1,no\n", on_missing_label="skip")


@pytest.mark.parametrize("cell", ["31.01.2026", "2026-02-29", "2026-01-31 25:00", "soon"])
def test_a_date_that_is_none_is_named(tmp_path: Path, cell: str) -> None:
    (tmp_path / "a.csv").write_text(f"day,label\n2026-01-31,x\n,y\n{cell},x\n")
    schema = tmp_path / "schema.pbtxt"
    schema.write_text('feature { name: "day" type: BYTES } feature { name: "label" type: BYTES }')
    features = TableFeatures(dates=("day",))
    with pytest.raises(UserError, match=r"row 4, column 'day': it must be a date such as"):
        check_table(tmp_path, schema, features, ("x", "y"))


def test_the_integer_that_is_missing_where_the_model_is_served(tmp_path: Path) -> None:
    schema = 'feature { name: "n" type: INT } feature { name: "label" type: BYTES }'
    table = "n,label\n{},no\n2,yes\n"
    features = TableFeatures(numeric=("n",))
    assert check_used(tmp_path, table.format(-(2**63) + 1), features, schema) == 2
    with pytest.raises(UserError, match=r"may not be -2\^63, which stands for a missing value"):
        check_used(tmp_path, table.format(-(2**63)), features, schema)


@pytest.mark.parametrize("row", ["1.5,1,", ",1,2.5", "nan,1,2.5", "1.5,1,inf"])
def test_a_ratio_without_one_of_its_numbers_is_no_label(tmp_path: Path, row: str) -> None:
    ratio = TableFeatures(numeric=("n",), label="x", label_over="y")
    schema = USED + 'feature { name: "y" type: FLOAT }'
    with pytest.raises(UserError, match=r"'x' and 'y', got '1 of 2 rows without: 0\.csv:3'"):
        check_used(tmp_path, f"x,n,y\n1.5,1,0.5\n{row}\n", ratio, schema)


@pytest.mark.parametrize("label_type", ["INT", "FLOAT"])
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("001", "002", "003"), r"without leading zeros.* got \('001', .* Name 1 2 3\."),
        (("no", "yes"), "must be whole numbers .* 'label' is of type (INT|FLOAT) in"),
        (("0.5", "1"), "must be whole numbers .* Or name another `label`"),
    ],
)
def test_classes_of_a_label_of_whole_numbers(
    tmp_path: Path, classes: tuple[str, ...], message: str, label_type: str
) -> None:
    (tmp_path / "0.csv").write_text("x,label\n1.5,001\n2.5,003\n")
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(
        f'feature {{ name: "x" type: FLOAT }} feature {{ name: "label" type: {label_type} }}'
    )
    features = TableFeatures(numeric=("x",))
    with pytest.raises(UserError, match=message):
        check_table(tmp_path, schema, features, classes)
    assert check_table(tmp_path, schema, features, ("1", "2", "3")) == 2


def test_pandas_writes_whole_numbers_as_floats_where_some_are_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"age": [3, None, -(2**53)], "weight": [1, 2, 3], "label": [0, 1, 1]})
    frame.to_csv(tmp_path / "0.csv", index=False)
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(
        'feature { name: "age" type: INT } feature { name: "weight" type: INT } '
        'feature { name: "label" type: INT }'
    )
    features = TableFeatures(numeric=("age", "weight"))
    copy = tmp_path / "copy"
    assert check_table(tmp_path, schema, features, ("0", "1"), copy=copy) == 3
    assert (copy / "0.csv").read_text() == f"age,weight,label\n3,1,0\n,2,1\n{-(2**53)},3,1\n"


def test_the_taxi_table_passes() -> None:
    schema = schemas.committed("taxi")
    assert schema is not None
    folder = Path(tfx.__file__).parent / "examples/chicago_taxi_pipeline/data/simple"
    features = presets.taxi().features
    assert isinstance(features, TableFeatures)
    assert check_table(folder, schema, features) == 15_002
