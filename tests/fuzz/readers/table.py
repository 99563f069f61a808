"""A table: what our first look lets pass, CsvExampleGen must read, as the same rows and types."""

from typing import Any

import numpy as np

from pipeline.data import csv_check, dialect
from tests.fuzz.reader import Reader, refused, scratch
from trainer_module.config import TableFeatures
from trainer_module.util.checks import UserError

FOLDER = scratch()
FILE = FOLDER / "data" / "0.csv"
COPY = FOLDER / "copy" / "0.csv"
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
    headers += [HEADER.replace(",", ";")]
    seeds = [HEADER + row for row in rows] + [header + rows[0] for header in headers]
    return Reader(check, [seed.encode() for seed in seeds], memory=2048)


def check(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        count = csv_check.check_table(FILE.parent, SCHEMA, FEATURES, copy=COPY.parent)
    except UserError as error:
        refused(error)
        return
    names, rows, types = as_csv_example_gen_reads()
    assert set(names) == set(TYPES)
    assert len(rows) == count
    given = dialect.read(FILE)
    _, header = next(given)
    for (_, cells), row in zip(given, rows, strict=True):
        for name in TYPES:
            compare(cells[header.index(name)], row.features.feature[name])
    for name, kind in TYPES.items():
        assert types[name] in ("UNKNOWN", kind), (name, types[name])


def compare(cell: str, feature: Any) -> None:
    """Checks that a cell has the value that CsvExampleGen reads from the copy."""
    kind = feature.WhichOneof("kind")
    if kind is None:
        assert cell.strip() in ("", *dialect.MISSING), cell
    elif kind == "bytes_list":
        assert feature.bytes_list.value[0].decode() == cell
    elif kind == "int64_list":
        assert feature.int64_list.value[0] == int(cell)
    else:
        assert feature.float_list.value[0] == np.float32(cell.replace("_", ""))


def as_csv_example_gen_reads() -> tuple[list[str], list[Any], dict[str, str]]:
    """Column names, Examples and inferred types, by TFX's own functions and without Beam."""
    from tfx.components.example_gen.csv_example_gen import executor
    from tfx.utils import io_utils
    from tfx_bsl.coders import csv_decoder

    names = io_utils.load_csv_column_names(str(COPY))
    parse = csv_decoder.ParseCSVLine(",")
    parse.setup()
    records = list(executor._ReadCsvRecordsFromTextFile().process(str(COPY)))
    cells = [cells for record in records for cells, _ in parse.process(record)]
    infer = csv_decoder.ColumnTypeInferrer(names, skip_blank_lines=True)
    types = infer.create_accumulator()
    for row in cells:
        types = infer.add_input(types, row)
    infos = infer.extract_output(types)
    make = executor._ParsedCsvToTfExample()
    examples = [example for row in cells for example in make.process(row, infos)]
    return names, examples, {info.name: info.type.name for info in infos}
