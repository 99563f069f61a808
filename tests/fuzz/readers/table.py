"""A table: what our first look lets pass, CsvExampleGen must read, as the same rows and types."""

import csv
import io
from typing import Any

from pipeline.data import csv_check
from tests.fuzz.reader import Reader, refused, scratch
from trainer_module.config import TableFeatures
from trainer_module.util.checks import UserError

FOLDER = scratch()
FILE = FOLDER / "data" / "0.csv"
SCHEMA = FOLDER / "schema.pbtxt"
FEATURES = TableFeatures(numeric=("age", "weight"), categorical=("note",))
HEADER = "age,weight,note,label\n"
TYPES = {"age": "INT", "weight": "FLOAT", "note": "STRING", "label": "STRING"}


def reader() -> Reader:
    FILE.parent.mkdir()
    SCHEMA.write_text(
        'feature { name: "age" type: INT } feature { name: "weight" type: FLOAT }'
        'feature { name: "note" type: BYTES }'
        'feature { name: "label" type: BYTES domain: "label" }'
        'string_domain { name: "label" value: "yes" value: "no" }'
    )
    rows = [
        "30,1.5,plain,yes\n",
        '30,nan,"a, ""b""\nc",no\n',
        "\n,,,\n1,inf,x,yes\n",
        '1,1.5,5" pipe,yes\n2,1.5,6" pipe,no\n',
        '1,1.5,x"y,"no\nno"\n',
        "1,1.5,a\r2,1.5,b,no\n",
        "1_0, 2.5 ,\ttab,yes\r\n",
        "\u0661,1e5,\u202e,no\n",
        "99999999999999999999,1.5,x,no\n",
        '"1","1.5","x","yes"\n',
    ]
    headers = ["", '"age","weight","note","label"\n', "\ufeff" + HEADER, "\n" + HEADER]
    seeds = [HEADER + row for row in rows] + [header + rows[0] for header in headers]
    return Reader(check, [seed.encode() for seed in seeds], memory=2048)


def check(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        count = csv_check.check_table(FILE.parent, SCHEMA, FEATURES)
    except UserError as error:
        refused(error)
        return
    names, rows, types = as_csv_example_gen_reads()
    assert set(names) >= set(TYPES)
    assert len(rows) == count
    for name, kind in TYPES.items():
        assert types[name] in ("UNKNOWN", kind), (name, types[name])


def as_csv_example_gen_reads() -> tuple[list[str], list[Any], dict[str, str]]:
    """Column names, Examples and inferred types, by TFX's own functions and without Beam."""
    from tfx.components.example_gen.csv_example_gen import executor
    from tfx.utils import io_utils
    from tfx_bsl.coders import csv_decoder

    names = io_utils.load_csv_column_names(str(FILE))
    parse = csv_decoder.ParseCSVLine(",")
    parse.setup()
    records = list(executor._ReadCsvRecordsFromTextFile().process(str(FILE)))
    cells = [cells for record in records for cells, _ in parse.process(record)]
    infer = csv_decoder.ColumnTypeInferrer(names, skip_blank_lines=True)
    types = infer.create_accumulator()
    for row in cells:
        types = infer.add_input(types, row)
    infos = infer.extract_output(types)
    make = executor._ParsedCsvToTfExample()
    examples = [example for row in cells for example in make.process(row, infos)]
    return names, examples, {info.name: info.type.name for info in infos}


def rows_of(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text)) if row]
